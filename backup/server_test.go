package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/test/testbed"
)

// onEach runs a test on a shared server of each version.
func onEach(t *testing.T, test func(t *testing.T, c *testbed.Cluster)) {
	t.Helper()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) { test(t, testbed.SharedCluster(t, version)) })
	}
}

func apply(t *testing.T, c *testbed.Cluster, manifests ...string) {
	t.Helper()
	if err := c.ApplyYAML(t.Context(), manifests...); err != nil {
		t.Fatal(err)
	}
}

// TestWholeClusterIsRead lists the cluster with client-go, another way of looking, and wants each of its objects.
func TestWholeClusterIsRead(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		disc, err := discovery.NewDiscoveryClientForConfig(c.Kedge(t))
		if err != nil {
			t.Fatal(err)
		}
		lists, err := disc.ServerPreferredResources()
		if err != nil {
			t.Fatal(err)
		}
		objects, err := dynamic.NewForConfig(c.Kedge(t))
		if err != nil {
			t.Fatal(err)
		}
		live := map[string]bool{}
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list.APIResources {
				if !slices.Contains(r.Verbs, "list") || r.Name == "componentstatuses" || gv.Group == "events.k8s.io" {
					continue
				}
				all, err := objects.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				gr := kube.Resource{Group: gv.Group, Resource: r.Name}.GroupResource()
				for _, o := range all.Items {
					if o.GetLabels()[v1alpha1.ExcludeLabel] == "true" {
						continue
					}
					live[gr+"/"+gv.Version+" "+archive.Key(o.GetNamespace(), o.GetName())] = true
				}
			}
		}
		s, r := readInto(t, newClient(t, c), v1alpha1.BackupSpec{})
		got := s.items()
		for key := range live {
			if got[key] == nil {
				t.Errorf("%s is missing", key)
			}
		}
		if report := r.report(); len(report.Errors)+len(report.Warnings) > 0 || len(live) < 100 {
			t.Errorf("%d objects, report %+v", len(live), report)
		}
		for key, raw := range got {
			head, err := rawjson.ReadHead(raw)
			if err != nil || head.APIVersion == "" || head.Kind == "" || head.UID == "" {
				t.Errorf("%s: %+v, %v", key, head, err)
			}
		}
	})
}

// TestOneMoment changes objects of several resources one after the other and takes readings meanwhile: in none may a later change
// be seen without the earlier ones.
func TestOneMoment(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, momentDefinition, "apiVersion: v1\nkind: Namespace\nmetadata: {name: moment-a}", "apiVersion: v1\nkind: Namespace\nmetadata: {name: moment-b}")
		ctx, stop := context.WithCancel(t.Context())
		rounds, done := make(chan int), make(chan error, 1)
		go func() { done <- writeRounds(ctx, newClient(t, c), rounds) }()
		client := waitingClient(t, c, rounds)
		for n := range 5 {
			s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"moment-*"}}})
			checkMoment(t, s.items(), n, r.revision)
		}
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// waitingClient lets the writer end a round before each list of what it writes, so that the lists are surely read at different moments.
func waitingClient(t *testing.T, c *testbed.Cluster, rounds <-chan int) *kube.Client {
	t.Helper()
	cfg := c.Kedge(t)
	cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			collection := req.URL.Path[strings.LastIndex(req.URL.Path, "/"):]
			written := slices.ContainsFunc(momentOrder, func(o momentWrite) bool { return strings.HasSuffix(o.path, collection) })
			if written && req.URL.Query().Get("limit") != "1" {
				select {
				case <-rounds:
				case <-req.Context().Done():
					return nil, req.Context().Err()
				}
			}
			return next.RoundTrip(req)
		})
	}
	client, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

const momentDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: marks.moment.kedge.dev}
spec:
  group: moment.kedge.dev
  scope: Namespaced
  names: {plural: marks, singular: mark, kind: Mark}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

type momentWrite struct{ path, body, archived string }

// momentOrder is the order of the writes of one round. All carry the round in a label and in their names.
var momentOrder = []momentWrite{
	{"/apis/coordination.k8s.io/v1/namespaces/moment-b/leases", `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",%s}`, "leases.coordination.k8s.io/v1 moment-b/"},
	{"/api/v1/namespaces/moment-a/secrets", `{"apiVersion":"v1","kind":"Secret",%s}`, "secrets/v1 moment-a/"},
	{"/apis/moment.kedge.dev/v1/namespaces/moment-b/marks", `{"apiVersion":"moment.kedge.dev/v1","kind":"Mark",%s}`, "marks.moment.kedge.dev/v1 moment-b/"},
	{"/api/v1/namespaces/moment-b/configmaps", `{"apiVersion":"v1","kind":"ConfigMap",%s}`, "configmaps/v1 moment-b/"},
	{"/apis/rbac.authorization.k8s.io/v1/namespaces/moment-a/roles", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role",%s}`, "roles.rbac.authorization.k8s.io/v1 moment-a/"},
	{"/api/v1/namespaces/moment-a/events", `{"apiVersion":"v1","kind":"Event","involvedObject":{"namespace":"moment-a"},%s}`, "events/v1 moment-a/"},
}

// writeRounds creates, in each round, one object of each resource in order, and then changes a label on the first ones in the same order.
func writeRounds(ctx context.Context, client *kube.Client, rounds chan<- int) error {
	for n := 1; ; n++ {
		for _, o := range momentOrder {
			ns := strings.Split(o.path, "/namespaces/")[1][:len("moment-a")]
			meta := fmt.Sprintf(`"metadata":{"name":"n%06d","namespace":%q}`, n, ns)
			if _, err := client.Do(ctx, kube.Request{Method: http.MethodPost, Path: o.path, Body: fmt.Appendf(nil, o.body, meta)}); err != nil {
				return err
			}
		}
		for _, o := range momentOrder {
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"round":"%06d"}}}`, n)
			if _, err := client.Do(ctx, kube.Request{Method: http.MethodPatch, Path: o.path + "/n000001", Body: patch, ContentType: "application/merge-patch+json"}); err != nil {
				return err
			}
		}
		select {
		case rounds <- n:
		default: // nobody waits for a round: go on
		}
	}
}

// checkMoment wants of each kind as many objects as of the one written after it, at most one more, and the same of the changes.
func checkMoment(t *testing.T, items map[string][]byte, reading int, revision string) {
	t.Helper()
	var created []int
	var changed []string
	for _, o := range momentOrder {
		n := 0
		for key := range items {
			if strings.HasPrefix(key, o.archived+"n0") {
				n++
			}
		}
		created = append(created, n)
		head := rawjson.Head{}
		if raw := items[o.archived+"n000001"]; raw != nil {
			head, _ = rawjson.ReadHead(raw)
		}
		changed = append(changed, head.Labels["round"])
	}
	for i := 1; i < len(created); i++ {
		if created[i] > created[i-1] || created[i] < created[0]-1 {
			t.Errorf("reading %d at %s: created %v: a later object is there without an earlier one", reading, revision, created)
		}
		if changed[i] > changed[i-1] {
			t.Errorf("reading %d at %s: changed %v: a later change is there without an earlier one", reading, revision, changed)
		}
	}
	// The last change of a round comes after all its creations, and before those of the next.
	for i, label := range changed {
		if label != "" && fmt.Sprintf("%06d", created[len(created)-1]) < label {
			t.Errorf("reading %d at %s: %s was changed in round %s, but only %v were created", reading, revision, momentOrder[i].archived, label, created)
		}
	}
}

// TestEqualBytes wants an idle cluster to give the same bytes again.
func TestEqualBytes(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{ExcludedResources: []string{"leases", "events"}}}
		a, _ := readInto(t, newClient(t, c), spec)
		b, _ := readInto(t, newClient(t, c), spec)
		if !maps.EqualFunc(a.items(), b.items(), func(x, y []byte) bool { return string(x) == string(y) }) {
			t.Error("two readings differ")
		}
	})
}

// TestNamespaceRights reads with an account that may only look into one namespace.
func TestNamespaceRights(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, `
apiVersion: v1
kind: Namespace
metadata: {name: rights-in}
---
apiVersion: v1
kind: Namespace
metadata: {name: rights-out}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: here, namespace: rights-in}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: rights-in}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: rights-in}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: narrow, namespace: `+testbed.AccessNamespace+`}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: there, namespace: rights-out}
`)
		cfg, err := c.ServiceAccountConfigWithRules(t.Context(), "narrow", []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}, ResourceNames: []string{"kube-system"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		client, err := kube.New(cfg, kube.Options{})
		if err != nil {
			t.Fatal(err)
		}
		only := false
		s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"rights-in"}, IncludeClusterResources: &only}})
		if s.items()["configmaps/v1 rights-in/here"] == nil {
			t.Errorf("read %v", s.keys())
		}
		if report := r.report(); len(report.Errors) > 0 || len(report.Warnings) != 1 || report.Warnings[0].Resource != "namespaces" {
			t.Errorf("report %+v", report)
		}
		s, r = readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"rights-in", "rights-out"}}})
		if s.items()["configmaps/v1 rights-in/here"] == nil {
			t.Errorf("read %v", s.keys())
		}
		want := remarkOf(r.report().Errors, "configmaps", ReasonForbidden)
		if !strings.HasPrefix(want, "in namespace rights-out: configmaps is forbidden") || !strings.Contains(want, `grant "list" on configmaps`) {
			t.Errorf("remark %q", want)
		}
		if remarkOf(r.report().Errors, "clusterrolebindings.rbac.authorization.k8s.io", ReasonForbidden) == "" {
			t.Errorf("report %+v", r.report())
		}
		e := &Engine{Kube: client}
		_, err = e.Preview(t.Context(), Request{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"rights-out"}, IncludedResources: []string{"configmaps"}}}})
		if !errors.Is(err, ErrNothingRead) || !strings.Contains(err.Error(), "configmaps is forbidden") {
			t.Errorf("error %v", err)
		}
	})
}

func remarkOf(list []archive.Remark, resource, reason string) string {
	for _, m := range list {
		if m.Resource == resource && m.Reason == reason {
			return m.Message
		}
	}
	return ""
}
