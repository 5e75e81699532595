package crdschema

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// upgraded runs Upgrade over a spec of one version with this schema.
func upgraded(t *testing.T, schema string) (string, []string) {
	t.Helper()
	var spec map[string]any
	text := `{"preserveUnknownFields":true,"versions":[{"name":"v1","schema":{"openAPIV3Schema":` + schema + `}}]}`
	if err := utiljson.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	changed, warnings := Upgrade(spec)
	if !changed || spec["preserveUnknownFields"] != nil {
		t.Errorf("changed=%v, %v", changed, spec["preserveUnknownFields"])
	}
	version := spec["versions"].([]any)[0].(map[string]any)
	root := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	if err := check(root); err != nil {
		t.Errorf("not structural: %v", err)
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), warnings
}

func TestUpgrade(t *testing.T) {
	const keep = `"x-kubernetes-preserve-unknown-fields":true`
	for _, tt := range []struct{ name, in, want, warning string }{
		{"empty", `{}`, `{"type":"object",` + keep + `}`, ""},
		{"types from contents", `{"properties":{"a":{"items":{"type":"string"}},"b":{"properties":{"c":{"type":"integer"}}},"d":{"additionalProperties":{"type":"string"}}}}`,
			`{"properties":{"a":{"items":{"type":"string"},"type":"array"},"b":{"properties":{"c":{"type":"integer"}},"type":"object",` + keep + `},"d":{"additionalProperties":{"type":"string"},"type":"object",` + keep + `}},"type":"object",` + keep + `}`, ""},
		{"int or string", `{"properties":{"a":{"anyOf":[{"type":"integer"},{"type":"string"}]},"b":{"type":"string","format":"int-or-string"}}}`,
			`{"properties":{"a":{"x-kubernetes-int-or-string":true},"b":{"x-kubernetes-int-or-string":true}},"type":"object",` + keep + `}`, ""},
		{"junctor that only validates", `{"properties":{"spec":{"type":"object","oneOf":[{"required":["a"]},{"required":["b"],"properties":{"b":{"minLength":1}}}]}}}`,
			`{"properties":{"spec":{"oneOf":[{"required":["a"]},{"properties":{"b":{"minLength":1}},"required":["b"]}],"properties":{"b":{` + keep + `}},"type":"object",` + keep + `}},"type":"object",` + keep + `}`, ""},
		{"junctor that says types", `{"properties":{"spec":{"type":"object","not":{"type":"string"}}}}`,
			`{"properties":{"spec":{"type":"object",` + keep + `}},"type":"object",` + keep + `}`, ".spec.not"},
		{"reference", `{"properties":{"spec":{"$ref":"#/definitions/x"}},"definitions":{"x":{"type":"object"}}}`,
			`{"properties":{"spec":{` + keep + `}},"type":"object",` + keep + `}`, ".definitions, .spec.$ref"},
		{"metadata", `{"properties":{"metadata":{"properties":{"name":{"maxLength":20},"labels":{"type":"object"}}},"kind":{"enum":["A"]}}}`,
			`{"properties":{"kind":{"enum":["A"],"type":"string"},"metadata":{"properties":{"name":{"maxLength":20,"type":"string"}},"type":"object"}},"type":"object",` + keep + `}`, ".metadata"},
		{"list of item schemas", `{"properties":{"a":{"type":"array","items":[{"type":"string"},{"type":"integer"}]}}}`,
			`{"properties":{"a":{"items":{` + keep + `},"type":"array"}},"type":"object",` + keep + `}`, ""},
		{"hopeless", `{"type":"object","properties":{"a":{"type":"string","pattern":"("}}}`, `{"type":"object",` + keep + `}`, "replaced"},
		{"not a schema", `{"properties":{"a":{"required":7}}}`, `{"type":"object",` + keep + `}`, "replaced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings := upgraded(t, tt.in)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if all := strings.Join(warnings, "\n"); (all == "") != (tt.warning == "") || !strings.Contains(all, tt.warning) {
				t.Errorf("warnings %q, want one about %q", all, tt.warning)
			}
		})
	}
}

func TestUpgradeLeavesTodaysAlone(t *testing.T) {
	spec := map[string]any{"versions": []any{map[string]any{"name": "v1", "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}}}}
	before, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if changed, warnings := Upgrade(spec); changed || warnings != nil {
		t.Errorf("changed=%v, %v", changed, warnings)
	}
	after, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("%s became %s", before, after)
	}
}

func TestApprove(t *testing.T) {
	for group, asked := range map[string]bool{"example.com": false, "k8s.io": true, "a.k8s.io": true, "x.kubernetes.io": true, "ek8s.io": false} {
		def := map[string]any{"spec": map[string]any{"group": group}}
		if w := Approve(def); (w != "") != asked {
			t.Errorf("%s: %q", group, w)
		}
		if w := Approve(def); w != "" {
			t.Errorf("%s: said twice: %q", group, w)
		}
	}
}

// FuzzUpgrade: whatever a schema is, what comes out is structural.
func FuzzUpgrade(f *testing.F) {
	for _, s := range []string{
		`{"properties":{"a":{"oneOf":[{"type":"string"},{"required":["x"]}]}}}`, `{"items":[{}],"not":{"not":{"properties":{"metadata":{}}}}}`,
		`{"type":"string","additionalProperties":{"type":"array"}}`, `{"properties":{"a":{"x-kubernetes-embedded-resource":true,"properties":{"kind":{}}}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var root map[string]any
		if utiljson.Unmarshal(raw, &root) != nil {
			return
		}
		out, _ := upgradeSchema(root)
		if err := check(out); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	})
}
