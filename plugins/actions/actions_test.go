package actions_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
)

var update = flag.Bool("update", false, "write what actions do into testdata; read the difference before it is committed")

// options are actions.Options as the cases write them.
type options struct {
	PreserveNodePorts, PreserveClusterIPs, IncludeControlled bool

	Policy    string
	Restored  []string // "persistentvolumes pv-1", as Ref.String writes it
	Selecting []string // "shop/cart": Services with a selector
	EBSDriver string

	OtherCluster bool
	Taken        map[string]string // volumes, by their names: the claims that have them
}

func (o options) actions() actions.Options {
	return actions.Options{
		PreserveNodePorts: o.PreserveNodePorts, PreserveClusterIPs: o.PreserveClusterIPs, IncludeControlled: o.IncludeControlled,
		Policy: v1alpha1.ExistingResourcePolicy(o.Policy), EBSDriver: o.EBSDriver, OtherCluster: o.OtherCluster,
		Restored: func(ref plugins.Ref) bool { return contains(o.Restored, ref.String()) },
		TakenBy: func(volume, namespace, claim string) string {
			if by := o.Taken[volume]; by != namespace+"/"+claim {
				return by
			}
			return ""
		},
		ServiceSelects: func(namespace, name string) bool { return contains(o.Selecting, namespace+"/"+name) },
	}
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

// TestActions runs the cases of testdata: each a txtar file with the item (in.yaml), its resource and the options
// (options.yaml), and what becomes of it: out.yaml or skip.txt, and remarks.txt.
func TestActions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d cases: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runCase(t, file) })
	}
}

func runCase(t *testing.T, file string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
	}
	var opts options
	if err := yaml.UnmarshalStrict([]byte(sections["options.yaml"]), &opts); err != nil {
		t.Fatal(err)
	}
	obj := object(t, sections["in.yaml"])
	raw, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := plugins.NewChain(actions.All(opts.actions())...)
	if err != nil {
		t.Fatal(err)
	}
	item := &plugins.Item{Ref: refOf(obj), Object: obj}
	before := tree.Copy(obj)
	decision, err := chain.Apply(t.Context(), item)
	if err != nil {
		t.Fatal(err)
	}
	if live := sections["live.yaml"]; live != "" {
		item.Object = merged(t, chain, item, object(t, live))
	}
	got := map[string]string{"remarks.txt": remarks(item.Remarks)}
	if decision.Skip {
		got["skip.txt"] = decision.Reason + ": " + decision.Message + "\n"
	} else {
		out, err := yaml.Marshal(item.Object)
		if err != nil {
			t.Fatal(err)
		}
		got["out.yaml"] = string(out)
	}
	if changed := decision.Skip || !cmp.Equal(before, any(item.Object)); changed && !chain.Wants(item.Ref, raw) {
		t.Error("Wants says that there is nothing to do, but there is")
	}
	compare(t, file, archive, sections, got)
	if !decision.Skip && sections["live.yaml"] == "" {
		again(t, chain, item)
	}
}

// merged is the live object after a merge of the item.
func merged(t *testing.T, chain *plugins.Chain, item *plugins.Item, live map[string]any) map[string]any {
	t.Helper()
	m := chain.Merger(item.Ref)
	if m == nil {
		t.Fatalf("%s is not merged", item.Ref)
	}
	before := tree.Copy(live)
	changed, err := m.Merge(t.Context(), item, live)
	if err != nil {
		item.Remark("Error", "%v", err)
	}
	if changed == cmp.Equal(before, any(live)) {
		t.Errorf("merge says changed=%v, which is not so", changed)
	}
	return live
}

// again checks that actions change nothing of what they made.
func again(t *testing.T, chain *plugins.Chain, item *plugins.Item) {
	t.Helper()
	want := tree.Copy(item.Object)
	if _, err := chain.Apply(t.Context(), item); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, any(item.Object)); diff != "" {
		t.Errorf("a second run changes more (-once +twice):\n%s", diff)
	}
}

func compare(t *testing.T, file string, archive *txtar.Archive, want, got map[string]string) {
	t.Helper()
	if *update {
		files := archive.Files[:0:0]
		for _, f := range archive.Files {
			if f.Name == "options.yaml" || f.Name == "in.yaml" || f.Name == "live.yaml" {
				files = append(files, f)
			}
		}
		for _, name := range []string{"out.yaml", "skip.txt", "remarks.txt"} {
			if got[name] != "" {
				files = append(files, txtar.File{Name: name, Data: []byte(got[name])})
			}
		}
		archive.Files = files
		if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, name := range []string{"out.yaml", "skip.txt", "remarks.txt"} {
		if diff := cmp.Diff(want[name], got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func remarks(all []plugins.Remark) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s: %s\n", r.Reason, r.Message)
	}
	return b.String()
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(raw, &obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

// refOf names an object by its kind; good enough for plural names of the kinds here.
func refOf(obj map[string]any) plugins.Ref {
	apiVersion, kind := tree.Text(obj, "apiVersion"), tree.Text(obj, "kind")
	group, version, err := plugins.SplitAPIVersion(apiVersion)
	if err != nil {
		version = apiVersion
	}
	resource := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(resource, "s") && resource != "ingress" && resource != "storageclass" && resource != "ipaddress" && resource != "priorityclass" && resource != "volumesnapshotclass":
	case strings.HasSuffix(resource, "s"):
		resource += "es"
	case strings.HasSuffix(resource, "y"):
		resource = resource[:len(resource)-1] + "ies"
	default:
		resource += "s"
	}
	meta := tree.Map(obj, "metadata")
	return plugins.Ref{Group: group, Version: version, Resource: resource, Namespace: tree.Text(meta, "namespace"), Name: tree.Text(meta, "name")}
}

func TestDropServerFields(t *testing.T) {
	obj := object(t, `
metadata:
  name: a
  uid: u
  resourceVersion: "1"
  generation: 2
  creationTimestamp: "2020-01-01T00:00:00Z"
  selfLink: /a
  deletionTimestamp: "2020-01-01T00:00:00Z"
  deletionGracePeriodSeconds: 30
  managedFields: [{manager: x}]
  ownerReferences: [{name: o}]
  finalizers: [kubernetes.io/pvc-protection, example.com/mine, foregroundDeletion, group.ingress.k8s.aws/shop]
status: {phase: Bound}
`)
	actions.DropServerFields(obj)
	want := object(t, `
metadata:
  name: a
  ownerReferences: [{name: o}]
  finalizers: [example.com/mine]
status: {phase: Bound}
`)
	if diff := cmp.Diff(want, obj); diff != "" {
		t.Error(diff)
	}
	obj = object(t, "metadata: {name: a, finalizers: [kubernetes.io/pv-protection]}")
	actions.DropServerFields(obj)
	if diff := cmp.Diff(object(t, "metadata: {name: a}"), obj); diff != "" {
		t.Error(diff)
	}
}

func TestNeverRestored(t *testing.T) {
	for _, r := range []string{"nodes", "events", "events.events.k8s.io", "leases.coordination.k8s.io"} {
		if reason, never := actions.NeverRestored(r); !never || reason == "" {
			t.Errorf("%s: %v %q", r, never, reason)
		}
	}
	if _, never := actions.NeverRestored("deployments.apps"); never {
		t.Error("deployments are restored")
	}
}

// TestWantsIsWideEnough runs every action over the objects of the corpus: where Wants saw nothing to do in the bytes,
// no action of that resource may change the object or leave it out.
func TestWantsIsWideEnough(t *testing.T) {
	dir := os.Getenv("KEDGE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Skipf("no corpus of manifests at %s (set KEDGE_CORPUS to have this test run)", dir)
	}
	chain, err := plugins.NewChain(actions.All(actions.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	objects, untouched := 0, 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(data), "\n---") {
			raw, err := yaml.YAMLToJSON([]byte(doc))
			var obj map[string]any
			if err != nil || utiljson.Unmarshal(raw, &obj) != nil || obj["kind"] == nil {
				continue
			}
			objects++
			if checkWants(t, chain, file, obj, raw) {
				untouched++
			}
		}
	}
	t.Logf("%d objects, %d of them need no action", objects, untouched)
	if objects < 1000 {
		t.Errorf("only %d objects were read", objects)
	}
}

func checkWants(t *testing.T, chain *plugins.Chain, file string, obj map[string]any, raw []byte) (untouched bool) {
	t.Helper()
	item := &plugins.Item{Ref: refOf(obj), Object: obj}
	before := tree.Copy(obj)
	decision, err := chain.Apply(t.Context(), item)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return false
	}
	if chain.Wants(item.Ref, raw) {
		return false
	}
	if decision.Skip || len(item.Remarks) > 0 || !cmp.Equal(before, any(item.Object)) {
		t.Errorf("%s: %s: Wants says that there is nothing to do, but there is", file, item.Ref)
	}
	return true
}

// FuzzActions gives actions any JSON as an item of each resource that they apply to.
func FuzzActions(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, section := range archive.Files {
			if section.Name == "in.yaml" {
				raw, err := yaml.YAMLToJSON(section.Data)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(raw)
			}
		}
	}
	f.Add([]byte(`{"metadata":{"annotations":[],"labels":3},"spec":{"ports":[null,{"nodePort":"x"}]},"data":{"mapRoles":"{{"}}`))
	all := actions.All(actions.Options{Policy: v1alpha1.PolicyUpdate, EBSDriver: actions.AutoModeEBSDriver, OtherCluster: true})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, a := range all {
			for _, m := range a.AppliesTo() {
				for _, resource := range m.Resources {
					var obj, live map[string]any
					if utiljson.Unmarshal(raw, &obj) != nil || utiljson.Unmarshal(raw, &live) != nil || obj == nil {
						return
					}
					name, group, _ := strings.Cut(resource, ".")
					item := &plugins.Item{Ref: plugins.Ref{Group: group, Version: "v1", Resource: name, Name: "x"}, Object: obj}
					if _, err := a.Apply(t.Context(), item); err != nil {
						continue
					}
					if merger, ok := a.(plugins.Merger); ok {
						if _, err := merger.Merge(t.Context(), item, live); err != nil && errors.Unwrap(err) == nil {
							t.Errorf("%v wraps nothing", err)
						}
					}
				}
			}
		}
	})
}

func BenchmarkWantsNothing(b *testing.B) {
	chain, err := plugins.NewChain(actions.All(actions.Options{})...)
	if err != nil {
		b.Fatal(err)
	}
	raw := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b","labels":{"app":"x"}},"data":{"k":"` + strings.Repeat("v", 1000) + `"}}`)
	for _, resource := range []string{"configmaps", "deployments"} {
		ref := plugins.Ref{Version: "v1", Resource: resource, Namespace: "b", Name: "a"}
		b.Run(resource, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if chain.Wants(ref, raw) {
					b.Fatal("nothing is to be done")
				}
			}
		})
	}
}
