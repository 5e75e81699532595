package transform

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/plugins"
)

// decode reads a YAML document as an item is decoded.
func decode(t testing.TB, doc string) (map[string]any, []byte) {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(raw, &obj); err != nil {
		t.Fatal(err)
	}
	return obj, raw
}

// subjectOf makes the subject of an object from its resource, "deployments.apps".
func subjectOf(t testing.TB, gr string, obj map[string]any) Subject {
	t.Helper()
	res := parseResource(gr)
	meta := object(obj, "metadata")
	_, version, _ := strings.Cut(text(obj, "apiVersion"), "/")
	if version == "" {
		version = "v1"
	}
	return Subject{
		Ref:  plugins.Ref{Group: res.group, Version: version, Resource: res.name, Namespace: text(meta, "namespace"), Name: text(meta, "name")},
		Kind: text(obj, "kind"),
	}
}

// example is an object before and after.
type example struct {
	name     string
	resource string
	in       string
	want     string   // empty: as in
	remarks  []string // what each remark contains, in order
}

func run(t *testing.T, p *Pipeline, examples []example) {
	t.Helper()
	for _, c := range examples {
		t.Run(c.name, func(t *testing.T) {
			obj, raw := decode(t, c.in)
			s := subjectOf(t, c.resource, obj)
			want, _ := decode(t, c.in)
			if c.want != "" {
				want, _ = decode(t, c.want)
			}
			if (c.want != "" || len(c.remarks) > 0) && !p.Wants(s, raw) {
				t.Error("Wants is false")
			}
			res, err := p.Apply(t.Context(), s, obj)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, res.Object); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if res.Changed != (c.want != "") {
				t.Errorf("Changed is %v", res.Changed)
			}
			compareRemarks(t, res.Remarks, c.remarks)
		})
	}
}

func compareRemarks(t *testing.T, got []plugins.Remark, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("remarks are %q, want %d that contain %q", got, len(want), want)
	}
	for i, w := range want {
		if !strings.Contains(got[i].Reason+": "+got[i].Message, w) {
			t.Errorf("remark %q does not contain %q", got[i], w)
		}
	}
}

func compile(t testing.TB, opts Options) *Pipeline {
	t.Helper()
	p, err := Compile(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func encode(t testing.TB, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
