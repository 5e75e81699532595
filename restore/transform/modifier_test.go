package transform

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func reader(s string) io.Reader { return strings.NewReader(s) }

// load compiles a document of transforms.
func load(t testing.TB, doc string) (*Pipeline, error) {
	t.Helper()
	tr, err := Load(reader(doc))
	if err != nil {
		return nil, err
	}
	return Compile(Options{Transforms: tr})
}

const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop, labels: {app: cart}},
  spec: {replicas: 3, template: {spec: {containers: [{name: cart, image: a}, {name: side, image: b}]}}}}`

func TestPatches(t *testing.T) {
	for _, c := range []struct{ name, doc, want string }{
		{
			"JSON patch", `{modifiers: [{resources: [deployments], jsonPatch: [{op: test, path: /spec/replicas, value: "3"}, {op: replace, path: /spec/replicas, value: "1"},
			  {op: add, path: /metadata/labels/a~1b, value: '"x"'}, {op: copy, from: /spec/replicas, path: /spec/m}, {op: remove, path: /spec/template/spec/containers/1}]}]}`,
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop, labels: {app: cart, a/b: x}}, spec: {replicas: 1, m: 1, template: {spec: {containers: [{name: cart, image: a}]}}}}`,
		},
		{
			"merge patch", `{modifiers: [{mergePatch: "spec: {replicas: null, paused: true, template: {spec: {containers: []}}}"}]}`,
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop, labels: {app: cart}}, spec: {paused: true, template: {spec: {containers: []}}}}`,
		},
		{
			"strategic merge patch", `{modifiers: [{resources: [deploy], strategicMergePatch: "spec: {template: {spec: {containers: [{name: side, image: c}, {name: new, image: d}]}}}"}]}`,
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop, labels: {app: cart}},
			  spec: {replicas: 3, template: {spec: {containers: [{name: side, image: c}, {name: new, image: d}, {name: cart, image: a}]}}}}`,
		},
		{
			"expression", `{modifiers: [{expression: "object.transformMap(k, v, k != 'spec' ? v : v.transformMap(k2, v2, k2 == 'replicas' ? dyn(1) : v2))"}]}`,
			strings.Replace(deployment, "replicas: 3", "replicas: 1", 1),
		},
		{
			"in order, on what the one before made", `{modifiers: [{mergePatch: "spec: {replicas: 5}"}, {condition: "object.spec.replicas == 5", mergePatch: "spec: {replicas: 6}"}]}`,
			strings.Replace(deployment, "replicas: 3", "replicas: 6", 1),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, c.doc)
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "strategic merge patch" {
				strategic(t, p)
				return
			}
			run(t, p, []example{{"", "deployments.apps", deployment, c.want, nil}})
			if u := p.Unused(); len(u) > 0 {
				t.Errorf("unused: %q", u)
			}
		})
	}
}

// strategic looks at containers by name, for the order of those that a patch adds is not the patch's.
func strategic(t *testing.T, p *Pipeline) {
	t.Helper()
	for range 2 { // the patch itself is not used up
		obj, _ := decode(t, deployment)
		res, err := p.Apply(t.Context(), subjectOf(t, "deployments.apps", obj), obj)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		(&edits{}).edit(res.Object, at("spec template spec containers []"), inside(func(_ *edits, c map[string]any) { got[text(c, "name")] = text(c, "image") }))
		if encode(t, got) != `{"cart":"a","new":"d","side":"c"}` || !res.Changed {
			t.Errorf("got %v", got)
		}
	}
}

func TestModifierSelection(t *testing.T) {
	const patch = `mergePatch: "spec: {x: 1}"`
	for _, c := range []struct {
		name, selects string
		want          bool
	}{
		{"everything", ``, true},
		{"resource", `resources: [deployments.apps]`, true},
		{"kind", `resources: [Deployment]`, true},
		{"short name", `resources: [deploy]`, true},
		{"glob of groups", `resources: ["*.apps"]`, true},
		{"another version", `resources: [deployments.v1beta1.apps]`, false},
		{"another resource", `resources: [statefulsets]`, false},
		{"namespace glob", `namespaces: ["sh*"]`, true},
		{"another namespace", `namespaces: [web]`, false},
		{"name", `nameRegex: "^ca"`, true},
		{"another name", `nameRegex: "^x"`, false},
		{"label", `labelSelector: {matchLabels: {app: cart}}`, true},
		{"another label", `labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [cart]}]}`, false},
		{"all", `resources: [deployments], namespaces: [shop], nameRegex: cart, labelSelector: {matchLabels: {app: cart}}, condition: "object.spec.replicas == 3"`, true},
		{"condition", `condition: "object.spec.replicas > 3"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			selects := c.selects
			if selects != "" {
				selects += ", "
			}
			p, err := load(t, `{modifiers: [{`+selects+patch+`}]}`)
			if err != nil {
				t.Fatal(err)
			}
			obj, raw := decode(t, deployment)
			s := subjectOf(t, "deployments.apps", obj)
			wants := p.Wants(s, raw)
			res, err := p.Apply(t.Context(), s, obj)
			if err != nil {
				t.Fatal(err)
			}
			if res.Changed != c.want || wants != c.want && c.name != "condition" {
				t.Errorf("changed is %v, wants is %v", res.Changed, wants)
			}
			if unused := len(p.Unused()) == 1; unused == c.want {
				t.Errorf("unused is %v", unused)
			}
		})
	}
}

func TestModifierSelectsByScope(t *testing.T) {
	p, err := load(t, `{modifiers: [{namespaces: [shop], mergePatch: "metadata: {labels: {x: y}}"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p, []example{
		{"cluster-scoped objects are in no namespace", "clusterroles.rbac.authorization.k8s.io", `{metadata: {name: shop}}`, "", nil},
		{"a Namespace is in itself", "namespaces", `{metadata: {name: shop}}`, `{metadata: {name: shop, labels: {x: y}}}`, nil},
	})
	p, err = load(t, `{modifiers: [{resources: [deployments.apps], mergePatch: "metadata: {labels: {x: y}}"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p, []example{{
		"a resource's old group", "deployments.extensions", `{metadata: {name: d, namespace: a}}`, `{metadata: {name: d, namespace: a, labels: {x: y}}}`, nil,
	}})
}

func TestModifierErrors(t *testing.T) {
	var copies []string
	for i := range 40 {
		copies = append(copies, fmt.Sprintf("{op: copy, from: /spec, path: /spec/x%d}", i))
	}
	for _, c := range []struct{ name, modifier, want string }{
		{"name", `mergePatch: "metadata: {name: x}"`, `apply transforms.modifiers[1] to deployments.apps shop/cart: changes metadata.name from "cart" to "x", which a modifier may not: only namespaces`},
		{"namespace", `mergePatch: "metadata: {namespace: null}"`, `changes metadata.namespace from "shop" to nothing, which a modifier may not: use namespaceMapping`},
		{"kind", `expression: "{'kind': 'X', 'apiVersion': 'apps/v1', 'metadata': object.metadata}"`, `changes kind from "Deployment" to "X"`},
		{"apiVersion", `strategicMergePatch: "apiVersion: apps/v2"`, "changes apiVersion"},
		{"missing path", `jsonPatch: [{op: remove, path: /spec/none}]`, "jsonPatch: "},
		{"failed test", `jsonPatch: [{op: test, path: /spec/replicas, value: "4"}]`, "select only objects that have the field"},
		{"condition on a missing field", `condition: "object.spec.none == 1", mergePatch: "{}"`, "condition: no such key: none: guard optional fields with has()"},
		{"condition of another type", `condition: "object.spec.replicas", mergePatch: "{}"`, "condition: gave a int: it must give true or false"},
		{"expression of another type", `expression: "object.spec.replicas"`, "expression: gave a int"},
		{"keys that are numbers", `expression: "{1: 2}"`, "keys are strings"},
		{"no end", `expression: "{'a': [1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, [1,2,3,4,5,6,7,8,9,10].map(d, [1,2,3,4,5,6,7,8,9,10].map(e, [1,2,3,4,5,6,7,8,9,10].map(f, f))))))}"`, "cost limit"},
		{"copies without end", `jsonPatch: [` + strings.Join(copies, ", ") + `]`, "jsonPatch: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, `{modifiers: [{namespaces: [none], mergePatch: "{}"}, {`+c.modifier+`}]}`)
			if err != nil {
				t.Fatal(err)
			}
			obj, _ := decode(t, deployment)
			_, err = p.Apply(t.Context(), subjectOf(t, "deployments.apps", obj), obj)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "apply transforms.modifiers[1] to deployments.apps shop/cart: ") {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
	p, err := load(t, `{modifiers: [{strategicMergePatch: "spec: {}"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	obj, _ := decode(t, `{apiVersion: x.io/v1, kind: Thing, metadata: {name: a}}`)
	if _, err = p.Apply(t.Context(), subjectOf(t, "things.x.io", obj), obj); err == nil || !strings.Contains(err.Error(), `how lists of "x.io/v1" "Thing" are merged is not known: use mergePatch`) {
		t.Errorf("error is %v", err)
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{`{modifiers: [{resources: [x]}]}`, "transforms.modifiers[0]: says no change: set one of"},
		{`{modifiers: [{mergePatch: "{}"}, {mergePatch: "{}", expression: object}]}`, "transforms.modifiers[1]: has mergePatch and expression: keep one"},
		{`{modifiers: [{mergePatch: "{}", resources: ["a", ""]}]}`, "transforms.modifiers[0].resources[1]: is empty"},
		{`{modifiers: [{mergePatch: "{}", resources: ["a", "*"]}]}`, `transforms.modifiers[0].resources: holds "*" and more`},
		{`{modifiers: [{mergePatch: "{}", namespaces: ["A_"]}]}`, "transforms.modifiers[0].namespaces[0]:"},
		{`{modifiers: [{mergePatch: "{}", nameRegex: "("}]}`, "transforms.modifiers[0].nameRegex: is no RE2"},
		{`{modifiers: [{mergePatch: "{}", labelSelector: {matchExpressions: [{key: a, operator: Is}]}}]}`, "transforms.modifiers[0].labelSelector:"},
		{`{modifiers: [{mergePatch: "{}", condition: "1 +"}]}`, "transforms.modifiers[0].condition: is not a CEL"},
		{`{modifiers: [{mergePatch: "{}", condition: "'a'"}]}`, "transforms.modifiers[0].condition: gives a string: it must give true or false"},
		{`{modifiers: [{expression: "1"}]}`, "transforms.modifiers[0].expression: gives a int: it must give the whole object, a map"},
		{`{modifiers: [{mergePatch: "[1]"}]}`, "transforms.modifiers[0].mergePatch: is no object"},
		{`{modifiers: [{mergePatch: "{a: 1, a: 2}"}]}`, "transforms.modifiers[0].mergePatch: is neither YAML nor JSON"},
		{`{modifiers: [{strategicMergePatch: "x"}]}`, "transforms.modifiers[0].strategicMergePatch: is no object"},
		{`{modifiers: [{jsonPatch: [{op: add, path: spec, value: "1"}]}]}`, `transforms.modifiers[0].jsonPatch[0].path: "spec" does not begin with "/"`},
		{`{modifiers: [{jsonPatch: [{op: add, path: /a~b, value: "1"}]}]}`, "jsonPatch[0].path: \"/a~b\" has a \"~\" alone"},
		{`{modifiers: [{jsonPatch: [{op: add, path: /a, value: three}]}]}`, "jsonPatch[0].value: is not JSON text"},
		{`{modifiers: [{jsonPatch: [{op: add, path: /a}]}]}`, "jsonPatch[0].value: is not JSON text"},
		{`{modifiers: [{jsonPatch: [{op: put, path: /a}]}]}`, `jsonPatch[0].op: "put" is none of`},
		{`{modifiers: [{jsonPatch: [{op: remove, path: /a, value: "1"}]}]}`, "takes a path alone"},
		{`{modifiers: [{jsonPatch: [{op: move, from: a, path: /a}]}]}`, "jsonPatch[0].from:"},
		{`{modifiers: [{jsonPatch: [{op: replace, path: /metadata/name, value: '"a"'}]}]}`, "which a modifier may not change"},
		{`{modifiers: [{jsonPatch: [{op: move, from: /kind, path: /a}]}]}`, "copy it"},
		{`{storageClasses: {"a*": b}}`, `transforms.storageClasses["a*"]: holds a "*"`},
		{`{storageClasses: {"a": ""}}`, `transforms.storageClasses["a"]: the new value is empty`},
		{`{storageClasses: {"": "a"}}`, `the old value is empty`},
		{`{storageClasses: {"A B": "a"}}`, `is no name of a StorageClass`},
		{`{images: {"a": "b*"}}`, `end both in "*"`},
		{`{images: {"a*b": "b"}}`, `before its end`},
		{`{images: {"https://a/*": "b/*"}}`, `without a scheme`},
		{`{nodeSelectors: {"a": "b=c"}}`, `"a" is not "key=value"`},
		{`{nodeSelectors: {"a=b": "c/d/e=f"}}`, `is no label`},
		{`{zones: {"a b": "c"}}`, `is no zone`},
		{`{roleARNs: {"app": "arn:aws:iam::1:role/x"}}`, `is no ARN`},
		{`{loadBalancerValues: {"*": "x"}}`, `stands for every value`},
	} {
		if _, err := load(t, c.doc); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", c.doc, err, c.want)
		}
	}
	_, err := Compile(Options{NamespaceMapping: map[string]string{"a": "B", "": "x", "c": "d"}})
	for _, want := range []string{`namespaceMapping["a"]: "B" is no name of a namespace`, `namespaceMapping[""]: the old value is empty`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{"modifiers: [{mergepatch: x}]", `unknown field "modifiers[0].mergepatch"`},
		{"storageclasses: {}", `unknown field "storageclasses"`},
		{"zones: {a: b, a: c}", `already set`},
		{"modifiers: [{jsonPatch: [{op: add, path: /a, value: 3}]}]", `value: "3"`},
		{"[1]", "cannot unmarshal"},
		{"a: [", "read transforms: "},
		{strings.Repeat(" ", maxDocument+1), "larger than 1048576 bytes"},
	} {
		if _, err := Load(reader(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: error is %v, want %q", c.doc, err, c.want)
		}
	}
	for _, doc := range []string{"", "{}", "# nothing\n", "null"} {
		tr, err := Load(reader(doc))
		if err != nil || tr == nil {
			t.Errorf("%q: %v, %v", doc, tr, err)
			continue
		}
		p, err := Compile(Options{Transforms: tr})
		if err != nil || !p.Empty() {
			t.Errorf("%q: empty is %v, %v", doc, p.Empty(), err)
		}
	}
}
