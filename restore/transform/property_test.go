package transform

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// everything is one rule of each kind. Its modifier selects one name only.
var everything = Options{
	NamespaceMapping: map[string]string{"shop": "store", "store": "shop", "ops": "platform"},
	Transforms: &v1alpha1.Transforms{
		StorageClasses:     map[string]string{"gp2": "gp3"},
		Images:             map[string]string{"old.example/*": "new.example/*"},
		NodeSelectors:      map[string]string{"pool=blue": "", "pool=red": "pool=green"},
		Zones:              map[string]string{"us-east-1a": "eu-west-1a"},
		RoleARNs:           map[string]string{"arn:aws:iam::1:role/*": "arn:aws:iam::2:role/*"},
		LoadBalancerValues: map[string]string{"sg-1": "sg-2"},
		Modifiers:          []v1alpha1.ResourceModifier{{NameRegex: "^chosen$", MergePatch: "metadata: {labels: {chosen: y}}"}},
	},
}

// knownResources are those that some table knows, and some that none does, in a fixed order.
func knownResources() []resource {
	seen := map[resource]bool{{"", "configmaps"}: true, {"", "secrets"}: true, {"", "namespaces"}: true, {"example.org", "things"}: true, {"", "resourcequotas"}: true}
	for r := range references {
		seen[r] = true
	}
	for r := range podSpecPlaces {
		seen[r] = true
	}
	for r := range networkFields {
		seen[r] = true
	}
	for r := range zoneRequirements {
		seen[r] = true
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b resource) int { return strings.Compare(a.name+"."+a.group, b.name+"."+b.group) })
}

// tableKeys are the words of all places, so that documents made of them meet the tables.
func tableKeys() []string {
	seen := map[string]bool{"kind": true, "type": true, "namespace": true, "matchLabels": true, "matchExpressions": true, "key": true, "values": true, "x": true}
	add := func(p place) {
		for _, w := range p {
			seen[w] = true
		}
	}
	for _, list := range references {
		for _, r := range list {
			add(r.place)
		}
	}
	for _, p := range slices.Concat(containerPlaces, nodeTerms, affinityTerms, customPodSpecs, []place{claimTemplate, at("image storageClassName nodeSelector hard parameters labels pool")}) {
		add(p)
	}
	delete(seen, "[]")
	delete(seen, "{}")
	return slices.Sorted(maps.Keys(seen))
}

// documents draws JSON from the keys and strings.
func documents(keys, values []string, depth int) *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Map(rapid.SampledFrom(values), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(i int64) any { return i }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Just(any(nil)),
	)
	if depth == 0 {
		return leaf
	}
	below := documents(keys, values, depth-1)
	return rapid.OneOf(leaf,
		rapid.Map(rapid.SliceOfN(below, 0, 3), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(rapid.SampledFrom(keys), below, 0, 4), func(m map[string]any) any { return m }),
	)
}

func drawItem(t *rapid.T, resources []resource, keys, values, names []string) (Subject, map[string]any, []byte) {
	obj, ok := documents(keys, values, 6).Draw(t, "object").(map[string]any)
	if !ok {
		obj = map[string]any{}
	}
	r := rapid.SampledFrom(resources).Draw(t, "resource")
	s := Subject{Ref: plugins.Ref{Group: r.group, Version: "v1", Resource: r.name, Namespace: rapid.SampledFrom(names).Draw(t, "namespace"), Name: rapid.SampledFrom(names).Draw(t, "name")}}
	obj["metadata"] = map[string]any{"name": s.Ref.Name, "namespace": s.Ref.Namespace, "annotations": documents(keys, values, 1).Draw(t, "annotations")}
	raw, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return s, obj, raw
}

// TestUntouched: an item that holds none of the old values is not wanted, and comes out as it was.
func TestUntouched(t *testing.T) {
	p := compile(t, everything)
	resources, keys := knownResources(), tableKeys()
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == "pool" })
	values := []string{"", "web", "shop-2", "my-shop", "gp3", "new.example/a", "eu-west-1a", "sg-3", "system:serviceaccount:web:a", "cart.web.svc", "a/b", "{\"a\": 1}"}
	rapid.Check(t, func(t *rapid.T) {
		s, obj, raw := drawItem(t, resources, keys, values, []string{"", "web", "shops", "a-ops"})
		if p.Wants(s, raw) {
			t.Fatalf("wanted: %s %s", s.Ref, raw)
		}
		unchanged(t, p, s, obj, raw)
	})
}

// TestWantsIsSound: what is not wanted is not changed and not remarked on, whatever it holds.
func TestWantsIsSound(t *testing.T) {
	p := compile(t, everything)
	resources, keys := knownResources(), tableKeys()
	values := []string{
		"shop", "ops", "web", "gp2", "old.example/a:1", "blue", "red", "us-east-1a", "us-east-1", "arn:aws:iam::1:role/a", "sg-1", "sg-1,sg-1", "system:serviceaccount:shop:a",
		"system:serviceaccounts:ops", "cart.shop.svc", "shop/x", "cluster.local/ns/shop/sa/x", "aws://us-east-1a/v", "ServiceAccount", "kubernetes.io/metadata.name", "http://a.ops/",
	}
	rapid.Check(t, func(t *rapid.T) {
		s, obj, raw := drawItem(t, resources, keys, values, []string{"", "web", "shop", "ops", "chosen"})
		if !p.Wants(s, raw) {
			unchanged(t, p, s, obj, raw)
		}
	})
}

// TestIdentity: a mapping of everything to itself is empty.
func TestIdentity(t *testing.T) {
	p := compile(t, Options{NamespaceMapping: map[string]string{"shop": "shop"}, Transforms: &v1alpha1.Transforms{
		StorageClasses: map[string]string{"gp2": "gp2"}, Images: map[string]string{"a/*": "a/*", "*": "*"}, Zones: map[string]string{"us-east-1a": "us-east-1a"},
		NodeSelectors: map[string]string{"a=b": "a=b"}, RoleARNs: map[string]string{"arn:x": "arn:x"}, LoadBalancerValues: map[string]string{"a": "a"},
	}})
	if !p.Empty() || len(p.Unused()) > 0 {
		t.Errorf("not empty: %q", p.Unused())
	}
	resources, keys := knownResources(), tableKeys()
	rapid.Check(t, func(t *rapid.T) {
		s, obj, raw := drawItem(t, resources, keys, []string{"shop", "gp2", "a/b", "us-east-1a"}, []string{"", "shop"})
		if p.Wants(s, raw) {
			t.Fatal("wanted")
		}
		unchanged(t, p, s, obj, raw)
	})
}

// unchanged applies the pipeline and compares.
func unchanged(t interface {
	Fatalf(format string, args ...any)
}, p *Pipeline, s Subject, obj map[string]any, raw []byte,
) {
	res, err := p.Apply(context.Background(), s, obj)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var want map[string]any
	if err := utiljson.Unmarshal(raw, &want); err != nil {
		t.Fatalf("%v", err)
	}
	if diff := cmp.Diff(want, res.Object); diff != "" || res.Changed || len(res.Remarks) > 0 {
		t.Fatalf("%s: changed is %v, remarks are %q, (-before +after)\n%s\n%s", s.Ref, res.Changed, res.Remarks, diff, raw)
	}
}

// TestChangedTellsTheTruth: where Changed is false, the object is as it was.
func TestChangedTellsTheTruth(t *testing.T) {
	p := compile(t, everything)
	resources, keys := knownResources(), tableKeys()
	rapid.Check(t, func(t *rapid.T) {
		s, obj, raw := drawItem(t, resources, keys, []string{"shop", "gp2", "old.example/a", "us-east-1a", "sg-1", "web", "web"}, []string{"", "web", "shop", "chosen"})
		res, err := p.Apply(context.Background(), s, obj)
		if err != nil {
			t.Fatal(err)
		}
		var before map[string]any
		if err := utiljson.Unmarshal(raw, &before); err != nil {
			t.Fatal(err)
		}
		if same := cmp.Equal(before, res.Object); same == res.Changed {
			t.Fatalf("%s: changed is %v: %s", s.Ref, res.Changed, cmp.Diff(before, res.Object))
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{modifiers: [{resources: [a], jsonPatch: [{op: add, path: /a, value: "1"}]}], zones: {a: b}}`))
	f.Add([]byte(`modifiers: [{expression: "object", condition: "has(object.a)"}]`))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("images: {\"a/*\": \"b/*\"}\nmodifiers:\n- mergePatch: |\n    a: {b: null}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, err := Load(reader(string(data)))
		if err != nil {
			return
		}
		p, err := Compile(Options{Transforms: tr})
		if err != nil {
			return
		}
		obj, _ := decode(t, deployment)
		if _, err := p.Apply(t.Context(), subjectOf(t, "deployments.apps", obj), obj); err != nil {
			return
		}
	})
}

func FuzzApply(f *testing.F) {
	resources := knownResources()
	rules := compile(f, everything)
	opts := everything
	tr := *everything.Transforms
	tr.Modifiers = []v1alpha1.ResourceModifier{
		{Condition: "has(object.spec)", Expression: "object"},
		{MergePatch: "spec: {a: null}"},
		{JSONPatch: []v1alpha1.JSONPatchOperation{{Op: "add", Path: "/spec", Value: "{}"}}},
		{StrategicMergePatch: "spec: {template: {spec: {containers: [{name: a, image: b}]}}}"},
	}
	opts.Transforms = &tr
	patches := compile(f, opts)
	f.Add([]byte(deployment), uint8(3), "shop", "chosen")
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"name":"a"},3]}}},"metadata":[]}`), uint8(9), "", "")
	f.Add([]byte(`{"subjects":[{"kind":"User","name":"system:serviceaccount:shop"}],"metadata":{"namespace":"\u0073hop"}}`), uint8(20), "ops", "x")
	f.Fuzz(func(t *testing.T, raw []byte, which uint8, namespace, name string) {
		var obj, again map[string]any
		if utiljson.Unmarshal(raw, &obj) != nil || utiljson.Unmarshal(raw, &again) != nil || obj == nil {
			return
		}
		r := resources[int(which)%len(resources)]
		s := Subject{Ref: plugins.Ref{Group: r.group, Version: "v1", Resource: r.name, Namespace: namespace, Name: name}, Kind: text(obj, "kind")}
		wants := rules.Wants(s, raw)
		res, err := rules.Apply(t.Context(), s, obj)
		if err != nil && name != "chosen" {
			t.Fatal(err)
		}
		if err == nil && !wants && (res.Changed || len(res.Remarks) > 0) {
			t.Fatalf("not wanted, but changed is %v and remarks are %q", res.Changed, res.Remarks)
		}
		if res, err := patches.Apply(t.Context(), s, again); err == nil {
			encode(t, res.Object)
		}
	})
}

func BenchmarkWantsUntouched(b *testing.B) {
	p := compile(b, everything)
	obj := map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{
		"name": "web", "namespace": "web", "annotations": map[string]any{"a": strings.Repeat(`{"x": "some text" }, `, 50)},
	}, "spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": "x", "env": strings.Repeat("env and more, ", 100)}}}}}}
	raw := []byte(encode(b, obj))
	s := subjectOf(b, "deployments.apps", obj)
	if p.Wants(s, raw) {
		b.Fatal("wanted")
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		p.Wants(s, raw)
	}
}

// TestConcurrent runs one pipeline from many goroutines; the race detector judges.
func TestConcurrent(t *testing.T) {
	p, err := load(t, `{images: {"a*": "b*"}, modifiers: [{resources: [deploy], condition: "has(object.spec)", strategicMergePatch: "spec: {template: {spec: {containers: [{name: new}]}}}"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for range 50 {
				obj, raw := decode(t, deployment)
				s := subjectOf(t, "deployments.apps", obj)
				if !p.Wants(s, raw) {
					t.Error("not wanted")
				}
				if _, err := p.Apply(t.Context(), s, obj); err != nil {
					return err
				}
				p.Unused()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
