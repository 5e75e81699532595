package restore

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/restore/transform"
)

// kinds are what test clusters serve.
var kinds = []kube.Resource{
	{Version: "v1", Resource: "namespaces", Kind: "Namespace"},
	{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true},
	{Version: "v1", Resource: "secrets", Kind: "Secret", Namespaced: true},
	{Version: "v1", Resource: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true},
	{Version: "v1", Resource: "services", Kind: "Service", Namespaced: true, Subresources: []string{"status"}},
	{Version: "v1", Resource: "endpoints", Kind: "Endpoints", Namespaced: true},
	{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresources: []string{"status"}},
	{Version: "v1", Resource: "nodes", Kind: "Node"},
	{Version: "v1", Resource: "persistentvolumes", Kind: "PersistentVolume"},
	{Version: "v1", Resource: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Namespaced: true},
	{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true},
	{Group: "apps", Version: "v1", Resource: "replicasets", Kind: "ReplicaSet", Namespaced: true},
	{Group: "apps", Version: "v1", Resource: "statefulsets", Kind: "StatefulSet", Namespaced: true},
	{Group: "batch", Version: "v1", Resource: "jobs", Kind: "Job", Namespaced: true},
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets", Kind: "PodDisruptionBudget", Namespaced: true},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles", Kind: "ClusterRole"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings", Kind: "ClusterRoleBinding"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses", Kind: "StorageClass"},
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions", Kind: "CustomResourceDefinition"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices", Kind: "APIService"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations", Kind: "ValidatingWebhookConfiguration"},
}

// custom are kinds whose definitions are objects of the test.
var custom = []kube.Resource{
	{Group: "shop.example.com", Version: "v1", Resource: "carts", Kind: "Cart", Namespaced: true},
	{Group: "shop.example.com", Version: "v1", Resource: "stores", Kind: "Store"},
}

func findKind(kind string) kube.Resource {
	for _, r := range slices.Concat(kinds, custom) {
		if r.Kind == kind {
			return r
		}
	}
	panic("no kind " + kind)
}

// rowOf makes a row; owners are uids of rows made before or after.
func rowOf(kind, namespace, name string, owners ...archive.Owner) archive.Row {
	r := findKind(kind)
	return archive.Row{
		Ref:  plugins.Ref{Group: r.Group, Version: r.Version, Resource: r.Resource, Namespace: namespace, Name: name},
		Kind: kind, UID: uidOf(kind, namespace, name), Owners: owners,
	}
}

func uidOf(kind, namespace, name string) string { return kind + "/" + namespace + "/" + name }

func ownedBy(kind, namespace, name string) archive.Owner {
	r := findKind(kind)
	return archive.Owner{APIVersion: r.APIVersion(), Kind: kind, Name: name, UID: uidOf(kind, namespace, name), Controller: true}
}

// planOf plans rows without a server.
func planOf(t testing.TB, req Request, rows ...archive.Row) *Plan {
	t.Helper()
	for n := range kinds {
		kinds[n].Verbs = []string{"create", "get"}
	}
	p, err := buildPlan(req, &kube.Discovery{ServerVersion: "v1.36.3", Resources: kinds}, rows)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func buildPlan(req Request, d *kube.Discovery, rows []archive.Row) (*Plan, error) {
	matcher, err := selection.Compile(req.Spec.Selection)
	if err != nil {
		return nil, err
	}
	pipeline, err := transform.Compile(transform.Options{NamespaceMapping: req.Spec.NamespaceMapping})
	if err != nil {
		return nil, err
	}
	b := newBuilder(&Plan{Request: req, matcher: matcher, pipeline: pipeline, discovery: d, reader: newReader(nil)}, &Engine{})
	b.plan.Source.Cluster.Version, b.plan.Target.Version = "v1.36.3", d.ServerVersion
	b.sameMinor = minor(d.ServerVersion) == "v1.36"
	for _, r := range rows {
		if err := b.add(0, &r, false); err != nil {
			return nil, err
		}
	}
	return b.plan, b.arrange(context.Background()) // it has nothing to read
}

func (p *Plan) find(ref plugins.Ref) int32 {
	for i := range p.items {
		if p.ref(int32(i)) == ref {
			return int32(i)
		}
	}
	return -1
}

// before says whether step a must be done when step b begins.
func before(steps []Step, a, b int32) bool {
	seen := map[int]bool{}
	var walk func(n int) bool
	walk = func(n int) bool {
		for _, m := range steps[n].Needs {
			if m == int(a) || !seen[m] && walk(m) {
				return true
			}
			seen[m] = true
		}
		return false
	}
	return walk(int(b))
}

func TestOrder(t *testing.T) {
	all := []archive.Row{
		rowOf("ValidatingWebhookConfiguration", "", "gate"),
		rowOf("Cart", "shop", "c"),
		rowOf("Pod", "shop", "p"),
		rowOf("Deployment", "shop", "web"),
		rowOf("Secret", "shop", "s"),
		rowOf("Namespace", "", "shop"),
		rowOf("CustomResourceDefinition", "", "carts.shop.example.com"),
		rowOf("CustomResourceDefinition", "", "stores.shop.example.com"),
		rowOf("PersistentVolumeClaim", "shop", "data"),
		rowOf("PersistentVolume", "", "pv"),
		rowOf("StorageClass", "", "gp3"),
		rowOf("PodDisruptionBudget", "shop", "web"),
		rowOf("ServiceAccount", "shop", "web"),
		rowOf("ClusterRole", "", "web"),
		rowOf("ClusterRoleBinding", "", "web"),
		rowOf("Service", "shop", "web"),
		// Objects that must leave their stage: a definition and a namespace that a custom object owns, and what needs those.
		rowOf("Store", "", "tenant"),
		rowOf("Namespace", "", "owned", ownedBy("Store", "", "tenant")),
		rowOf("ConfigMap", "owned", "cm"),
		rowOf("Secret", "shop", "of-cart", ownedBy("Cart", "shop", "c")),
		rowOf("ConfigMap", "shop", "of-deployment", ownedBy("Deployment", "shop", "web")),
	}
	p := planOf(t, Request{Name: "r"}, all...)
	for _, c := range [][2]archive.Row{
		{all[6], all[1]}, {all[5], all[1]}, {all[5], all[4]}, {all[10], all[9]}, {all[9], all[8]}, {all[8], all[3]}, {all[4], all[3]},
		{all[13], all[14]}, {all[12], all[2]}, {all[3], all[11]}, {all[11], all[0]}, {all[15], all[3]}, {all[16], all[17]}, {all[17], all[18]},
		{all[1], all[19]}, {all[19], all[3]}, {all[3], all[20]}, {all[18], all[3]}, {all[20], all[0]}, {all[7], all[16]},
	} {
		a, b := p.find(c[0].Ref), p.find(c[1].Ref)
		if !before(p.Steps, p.items[a].step, p.items[b].step) {
			t.Errorf("%s (%s) does not come before %s (%s)", c[0].Ref, p.Steps[p.items[a].step].Name(), c[1].Ref, p.Steps[p.items[b].step].Name())
		}
	}
}

func TestLeftOut(t *testing.T) {
	node := archive.Owner{APIVersion: "v1", Kind: "Node", Name: "n", UID: "n"}
	labelled := func(r archive.Row, k, v string) archive.Row {
		r.Labels = map[string]string{k: v}
		return r
	}
	rows := []struct {
		row    archive.Row
		reason Reason
	}{
		{rowOf("Deployment", "a", "web"), ""},
		{rowOf("ReplicaSet", "a", "web-1", ownedBy("Deployment", "a", "web")), Remade}, // the only one is the current one
		{rowOf("Pod", "a", "web-1-x", ownedBy("ReplicaSet", "a", "web-1")), Remade},
		{rowOf("PersistentVolumeClaim", "a", "web-1-x-scratch", ownedBy("Pod", "a", "web-1-x")), Remade},
		{rowOf("PersistentVolumeClaim", "a", "data-web-1-x", ownedBy("Pod", "a", "web-1-x")), ""},
		{rowOf("Pod", "a", "lonely", ownedBy("ReplicaSet", "a", "not-selected")), ""},
		{rowOf("ReplicaSet", "a", "of-cart", ownedBy("Cart", "a", "c")), ""},
		{rowOf("Pod", "a", "of-of-cart", ownedBy("ReplicaSet", "a", "of-cart")), Remade},
		{rowOf("Pod", "kube-system", "proxy", node), NodeBound},
		{rowOf("ConfigMap", "a", "of-node", node), NodeBound},
		{rowOf("ConfigMap", "a", "kube-root-ca.crt"), Remade},
		{rowOf("Service", "default", "kubernetes"), ServerManaged},
		{rowOf("Endpoints", "default", "kubernetes"), ServerManaged},
		{labelled(rowOf("Endpoints", "a", "e"), "endpoints.kubernetes.io/managed-by", "endpoint-controller"), Remade},
		{rowOf("Endpoints", "a", "mine"), ""},
		{labelled(rowOf("APIService", "", "v1.apps"), "kube-aggregator.kubernetes.io/automanaged", "onstart"), ServerManaged},
		{labelled(rowOf("ClusterRole", "", "copy"), "kubernetes.io/bootstrapping", "rbac-defaults"), ""},
		{rowOf("Cart", "a", "c"), NotServed},
	}
	var all []archive.Row
	for _, r := range rows {
		all = append(all, r.row)
	}
	p := planOf(t, Request{Name: "r"}, all...)
	for _, r := range rows {
		i := p.find(r.row.Ref)
		it := &p.items[i]
		if it.reason != r.reason || (it.step < 0) != (r.reason != "") {
			t.Errorf("%s: left out for %q (step %d), want %q", r.row.Ref, it.reason, it.step, r.reason)
		}
	}
	// Server defaults are compared where both clusters are of one version, and left alone where they are not.
	boot := labelled(rowOf("ClusterRole", "", "system:node"), "kubernetes.io/bootstrapping", "rbac-defaults")
	if p := planOf(t, Request{Name: "r"}, boot); p.items[0].step < 0 || p.items[0].flags&flagCompare == 0 {
		t.Error("a bootstrap role is not compared")
	}
}

func TestMadeNamespaces(t *testing.T) {
	req := Request{Name: "r"}
	req.Spec.NamespaceMapping = map[string]string{"a": "x", "b": "x"}
	p := planOf(t, req, rowOf("ConfigMap", "a", "one"), rowOf("ConfigMap", "b", "two"), rowOf("ConfigMap", "b", "one"))
	made, collisions := 0, 0
	for i := range p.items {
		if p.items[i].flags&flagMade != 0 {
			made++
		}
		if p.items[i].reason == NameCollision {
			collisions++
		}
	}
	if made != 1 || collisions != 1 {
		t.Errorf("%d namespaces made and %d collisions, want 1 and 1", made, collisions)
	}
}

func TestOwnerCycles(t *testing.T) {
	p := planOf(t, Request{Name: "r"},
		rowOf("CustomResourceDefinition", "", "carts.shop.example.com"),
		rowOf("Namespace", "", "a", ownedBy("Cart", "a", "c")),
		rowOf("Cart", "a", "c"),
		rowOf("ConfigMap", "b", "self", ownedBy("ConfigMap", "b", "self")),
		rowOf("ConfigMap", "b", "x", ownedBy("ConfigMap", "b", "y")),
		rowOf("ConfigMap", "b", "y", ownedBy("ConfigMap", "b", "x")),
		rowOf("ConfigMap", "b", "free", ownedBy("ConfigMap", "b", "x")),
	)
	for _, c := range []struct {
		i   int32
		cut bool
	}{{1, true}, {2, false}, {3, true}, {4, true}, {5, true}, {6, false}} {
		if p.cycles[c.i] != c.cut {
			t.Errorf("%s: cut %v, want %v", p.ref(c.i), p.cycles[c.i], c.cut)
		}
	}
	if !before(p.Steps, p.items[1].step, p.items[2].step) {
		t.Error("the namespace does not come before what is in it")
	}
}

// TestPlanProperties draws clusters and checks what must hold for any of them.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := drawRows(t)
		req := Request{Name: "r"}
		req.Spec.IncludeControlled = rapid.Bool().Draw(t, "includeControlled")
		for n := range kinds {
			kinds[n].Verbs = []string{"create"}
		}
		p, err := buildPlan(req, &kube.Discovery{ServerVersion: "v1.36.3", Resources: kinds}, rows)
		if err != nil {
			t.Fatal(err)
		}
		checkSteps(t, p)
		byUID := map[string]int32{}
		for i := range rows {
			byUID[rows[i].UID] = int32(i)
		}
		for i := range rows {
			if p.items[i].step >= 0 {
				checkRow(t, p, rows, int32(i), byUID)
			}
		}
	})
}

func drawRows(t *rapid.T) []archive.Row {
	all := slices.Concat(kinds, custom)
	n := rapid.IntRange(1, 40).Draw(t, "n")
	rows := make([]archive.Row, 0, n)
	for i := range n {
		r := all[rapid.IntRange(0, len(all)-1).Draw(t, "kind")]
		ns, name := "", fmt.Sprintf("n%d", i)
		if r.Namespaced {
			ns = rapid.SampledFrom([]string{"n0", "n1", "n2", "other"}).Draw(t, "ns")
		}
		if r.Kind == "CustomResourceDefinition" {
			c := rapid.SampledFrom(custom).Draw(t, "defines")
			name = c.GroupResource()
		}
		rows = append(rows, rowOf(r.Kind, ns, name))
	}
	for i := range rows {
		for range rapid.IntRange(0, 2).Draw(t, "owners") {
			o := rows[rapid.IntRange(0, n-1).Draw(t, "owner")]
			owner := ownedBy(o.Kind, o.Namespace, o.Name)
			owner.Controller = rapid.Bool().Draw(t, "controller")
			rows[i].Owners = append(rows[i].Owners, owner)
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(rows, func(r archive.Row) bool {
		double := seen[r.UID]
		seen[r.UID] = true
		return double
	})
}

// checkSteps: every planned item is in one step, needs point backwards, and all else has a reason.
func checkSteps(t *rapid.T, p *Plan) {
	in := map[int32]int{}
	for n := range p.Steps {
		for _, m := range p.Steps[n].Needs {
			if m >= n {
				t.Fatalf("step %d needs step %d", n, m)
			}
		}
		for _, i := range p.Steps[n].items {
			in[i]++
			if p.items[i].step != int32(n) {
				t.Fatalf("item %d is in step %d and says %d", i, n, p.items[i].step)
			}
		}
	}
	for i := range p.items {
		it := &p.items[i]
		switch {
		case it.step >= 0 && (in[int32(i)] != 1 || it.state != Pending):
			t.Fatalf("%s is in %d steps, %s", p.ref(int32(i)), in[int32(i)], it.state)
		case it.step < 0 && (in[int32(i)] != 0 || it.state == Pending || it.reason == ""):
			t.Fatalf("%s is left out silently (%s %q)", p.ref(int32(i)), it.state, it.reason)
		}
	}
}

func checkRow(t *rapid.T, p *Plan, rows []archive.Row, i int32, byUID map[string]int32) {
	must := func(j int32, what string) {
		if p.items[j].step >= 0 && !before(p.Steps, p.items[j].step, p.items[i].step) {
			t.Fatalf("%s %s (%s) does not come before %s (%s)", what, p.ref(j), p.Steps[p.items[j].step].Name(), p.ref(i), p.Steps[p.items[i].step].Name())
		}
	}
	for j := range rows {
		switch {
		case rows[j].Kind == "Namespace" && rows[j].Name == rows[i].Namespace:
			must(int32(j), "namespace")
		case rows[j].Kind == "CustomResourceDefinition" && rows[j].Name == rows[i].GroupResource():
			must(int32(j), "definition")
		}
	}
	if p.cycles[i] {
		return
	}
	for _, o := range rows[i].Owners {
		must(byUID[o.UID], "owner")
	}
}

func TestUID(t *testing.T) {
	const s = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"
	if got := parseUID(s).String(); got != s {
		t.Errorf("got %s", got)
	}
	if parseUID("") != (uid{}) || parseUID("x") == (uid{}) || parseUID("x") == parseUID("y") {
		t.Error("odd uids are not told apart")
	}
}
