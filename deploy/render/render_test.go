package render_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/deploy/render"
)

// image is the one value that has no default.
func image() map[string]any {
	return map[string]any{"image": map[string]any{"repository": "registry.example/kedge"}}
}

func objects(t *testing.T, minor int, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	made, err := render.Objects(deploy.Chart, render.Options{
		Release: "kedge", Namespace: "kedge", APIVersions: render.VersionsOf(minor), Values: render.Merge(image(), values),
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func find(made []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	for _, o := range made {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	return nil
}

func TestObjects(t *testing.T) {
	for minor, want := range map[int]string{24: "v1beta2", 27: "v1beta3", 31: "v1", 36: "v1"} {
		made := objects(t, minor, nil)
		level := find(made, "PriorityLevelConfiguration", "kedge")
		if level == nil || level.GetAPIVersion() != "flowcontrol.apiserver.k8s.io/"+want {
			t.Errorf("1.%d: the priority level is %v, want version %s", minor, level, want)
		}
		position := map[string]int{}
		for n, o := range made {
			position[o.GetKind()] = n
		}
		if position["CustomResourceDefinition"] > position["Deployment"] || position["ServiceAccount"] > position["Deployment"] {
			t.Errorf("1.%d: the Deployment comes before what it needs", minor)
		}
	}
}

func TestKindsAreKept(t *testing.T) {
	n := 0
	for _, o := range objects(t, 36, nil) {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		n++
		if o.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
			t.Errorf("an uninstall with Helm would delete %s, and with it every object of that kind", o.GetName())
		}
		source, err := fs.ReadFile(deploy.CRDs, "crds/kedge.dev_"+strings.TrimSuffix(o.GetName(), ".kedge.dev")+".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]any
		if err := yaml.Unmarshal(source, &want); err != nil {
			t.Fatal(err)
		}
		got, err := yaml.Marshal(o.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := yaml.Marshal(want["spec"])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(wanted), string(got)); diff != "" {
			t.Errorf("%s is not what was generated: %s", o.GetName(), diff)
		}
	}
	if n < 6 {
		t.Errorf("the chart defines %d kinds", n)
	}
}

func TestValuesOfLocationsAndSchedules(t *testing.T) {
	values := map[string]any{
		"locations": []any{map[string]any{"name": "main", "labels": map[string]any{"team": "a"}, "spec": map[string]any{"default": true, "s3": map[string]any{"bucket": "b"}}}},
		"schedules": []any{map[string]any{"name": "daily", "spec": map[string]any{"schedule": "@daily"}}},
	}
	made := objects(t, 36, values)
	location := find(made, "BackupStorageLocation", "main")
	if location == nil || location.GetNamespace() != "kedge" || location.GetLabels()["team"] != "a" {
		t.Errorf("the location is %v", location)
	}
	if made[len(made)-1].GetKind() != "Schedule" {
		t.Error("objects of Kedge's kinds do not come last")
	}
}

func TestRefusedValues(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]any
		want   string
		is     error
	}{
		"no image":         {map[string]any{"image": map[string]any{"repository": ""}}, "image.repository", render.ErrRequired},
		"unknown":          {map[string]any{"image": map[string]any{"repo": "x"}}, "image.repo", render.ErrValues},
		"wrong type":       {map[string]any{"replicas": "two"}, "replicas", render.ErrValues},
		"out of range":     {map[string]any{"replicas": int64(11)}, "replicas", render.ErrValues},
		"bad digest":       {map[string]any{"image": map[string]any{"digest": "sha256:1"}}, "image.digest", render.ErrValues},
		"annotation":       {map[string]any{"podAnnotations": map[string]any{"a": true}}, "podAnnotations", render.ErrValues},
		"no account":       {map[string]any{"serviceAccount": map[string]any{"create": false}}, "serviceAccount.name", render.ErrRequired},
		"location unnamed": {map[string]any{"locations": []any{map[string]any{"spec": map[string]any{}}}}, "locations", render.ErrValues},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := render.Objects(deploy.Chart, render.Options{Release: "kedge", Namespace: "kedge", Values: render.Merge(image(), c.values)})
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one that names %s", err, c.want)
			}
		})
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct {
		assignment string
		text       bool
		want       map[string]any
		err        string
	}{
		{"a=1", false, map[string]any{"a": int64(1)}, ""},
		{"a=1", true, map[string]any{"a": "1"}, ""},
		{"a=007", false, map[string]any{"a": "007"}, ""},
		{"a.b=true", false, map[string]any{"a": map[string]any{"b": true}}, ""},
		{"a.b=null", false, map[string]any{"a": map[string]any{"b": nil}}, ""},
		{`a.eks\.x/role-arn=arn:aws:iam::1:role/k`, false, map[string]any{"a": map[string]any{"eks.x/role-arn": "arn:aws:iam::1:role/k"}}, ""},
		{"a[0].b=x=y,z", false, map[string]any{"a": []any{map[string]any{"b": "x=y,z"}}}, ""},
		{"a={x, 2}", false, map[string]any{"a": []any{"x", int64(2)}}, ""},
		{"a={}", false, map[string]any{"a": []any{}}, ""},
		{"a=", false, map[string]any{"a": ""}, ""},
		{"a", false, nil, "key=value"},
		{"=a", false, nil, "key=value"},
		{"a..b=1", false, nil, "empty"},
		{"a[1]=1", false, nil, "next place is 0"},
		{"a[x]=1", false, nil, "no place"},
		{"a[0=1", false, nil, "no place"},
		{"old.b=1", false, nil, "holds no names"},
		{"old[0]=1", false, nil, "no list"},
	} {
		values := map[string]any{"old": "x"}
		err := render.Set(values, c.assignment, c.text)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, render.ErrValues) {
				t.Errorf("%s: the error is %v, want %q", c.assignment, err, c.err)
			}
			continue
		}
		want := maps.Clone(c.want)
		want["old"] = "x"
		if diff := cmp.Diff(want, values); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.assignment, err, diff)
		}
	}
}

func TestMerge(t *testing.T) {
	under := map[string]any{"a": map[string]any{"b": 1, "c": 2}, "l": []any{1}}
	over := map[string]any{"a": map[string]any{"b": 3}, "l": []any{2}}
	got := render.Merge(under, over)
	if diff := cmp.Diff(map[string]any{"a": map[string]any{"b": 3, "c": 2}, "l": []any{2}}, got); diff != "" {
		t.Error(diff)
	}
	if under["a"].(map[string]any)["b"] != 1 {
		t.Error("the lower values were changed")
	}
}

// TestSchemaKnowsEveryValue holds values.yaml and values.schema.json against each other.
func TestSchemaKnowsEveryValue(t *testing.T) {
	var values, schema map[string]any
	for name, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		data, err := fs.ReadFile(deploy.Chart, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, into); err != nil {
			t.Fatal(err)
		}
	}
	var walk func(where string, values, schema map[string]any)
	walk = func(where string, values, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		for name := range properties {
			if _, ok := values[name]; !ok && name != "global" {
				t.Errorf("values.yaml lacks %s%s, which the schema knows", where, name)
			}
		}
		for name, value := range values {
			below, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("the schema lacks %s%s", where, name)
				continue
			}
			if inner, ok := value.(map[string]any); ok && below["properties"] != nil {
				walk(where+name+".", inner, below)
			}
		}
	}
	walk("", values, schema)
}

// TestDocumentedValues holds the table of docs/install.md against values.yaml.
func TestDocumentedValues(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "## Values")
	if !ok {
		t.Fatal("the page has no table of values")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| ((?:`[A-Za-z.]+`(?:, )?)+) \\|").FindAllStringSubmatch(table, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			documented[strings.Trim(name, "`")] = true
		}
	}
	data, err := fs.ReadFile(deploy.Chart, "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var walk func(where string, value any)
	walk = func(where string, value any) {
		known[where] = true
		below, _ := value.(map[string]any)
		if documented[where] || len(below) == 0 { // a map may be documented as a whole
			if !documented[where] {
				t.Errorf("the page does not explain %s", where)
			}
			return
		}
		for _, name := range slices.Sorted(maps.Keys(below)) {
			walk(where+"."+name, below[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		walk(name, values[name])
	}
	for name := range documented {
		if !known[name] {
			t.Errorf("the page explains %s, which the chart does not have", name)
		}
	}
}

// TestBadTemplates shows that what is wrong with a chart is said.
func TestBadTemplates(t *testing.T) {
	for name, c := range map[string]struct{ template, want string }{
		"syntax":   {"{{ if }}", "missing value"},
		"function": {"{{ tpl .Values.a . }}", "tpl"},
		"yaml":     {"a: b: c", "no YAML"},
		"no name":  {"apiVersion: v1\nkind: Secret\n", "no name"},
		"no kind":  {"metadata: {name: a}", "Kind"},
		"number":   {"apiVersion: v1\nkind: Secret\nmetadata: {name: {{ int64 .Chart.Name }}}", "no number"},
	} {
		t.Run(name, func(t *testing.T) {
			chart := fstest.MapFS{
				"Chart.yaml": {Data: []byte("name: x\nversion: 1.0.0\n")}, "values.yaml": {Data: []byte("a: b\n")},
				"values.schema.json": {Data: []byte(`{"type":"object"}`)}, "templates/x.yaml": {Data: []byte(c.template)},
			}
			_, err := render.Objects(chart, render.Options{Release: "r", Namespace: "n"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
		})
	}
}

// TestAdmissionPolicy: the policy for tenants is there where it is asked for and can be, and knows the server by its account.
func TestAdmissionPolicy(t *testing.T) {
	if find(objects(t, 36, nil), "ValidatingAdmissionPolicy", "kedge-accounts") != nil {
		t.Error("there is a policy without being asked for")
	}
	values := map[string]any{"admissionPolicy": map[string]any{"enabled": true}, "serviceAccount": map[string]any{"name": "other"}}
	made := objects(t, 30, values)
	policy := find(made, "ValidatingAdmissionPolicy", "kedge-accounts")
	if policy == nil || find(made, "ValidatingAdmissionPolicyBinding", "kedge-accounts") == nil {
		t.Fatal("there is no policy, or no binding")
	}
	text, err := render.YAML([]*unstructured.Unstructured{policy})
	if err != nil || !strings.Contains(string(text), "'system:serviceaccount:kedge:other'") || !strings.Contains(string(text), "request.namespace == 'kedge'") {
		t.Errorf("the policy is %s, %v", text, err)
	}
	_, err = render.Objects(deploy.Chart, render.Options{Release: "kedge", Namespace: "kedge", APIVersions: render.VersionsOf(29), Values: render.Merge(image(), values)})
	if !errors.Is(err, render.ErrRequired) || !strings.Contains(err.Error(), "1.30 and later") {
		t.Errorf("for Kubernetes 1.29: %v", err)
	}
}

// TestMovers: with a namespace for movers the server is told of it and may run Jobs there, and not without.
func TestMovers(t *testing.T) {
	args := func(made []*unstructured.Unstructured) string {
		containers, _, err := unstructured.NestedSlice(find(made, "Deployment", "kedge").Object, "spec", "template", "spec", "containers")
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, " ")
	}
	without := objects(t, 36, nil)
	if find(without, "Role", "kedge-movers") != nil || strings.Contains(args(without), "--mover") {
		t.Error("movers are set up without being asked for")
	}
	with := objects(t, 36, map[string]any{"movers": map[string]any{"namespace": "kedge-movers", "serviceAccountName": "mover"}})
	role, binding := find(with, "Role", "kedge-movers"), find(with, "RoleBinding", "kedge-movers")
	if role == nil || binding == nil || role.GetNamespace() != "kedge-movers" || binding.GetNamespace() != "kedge-movers" {
		t.Errorf("the role of movers is %v, its binding %v", role, binding)
	}
	const want = "--mover-namespace=kedge-movers --mover-image=registry.example/kedge:"
	if got := args(with); !strings.Contains(got, want) || !strings.Contains(got, " --mover-secret=kedge-location --mover-service-account=mover") {
		t.Errorf("the server's arguments are %s", got)
	}
}
