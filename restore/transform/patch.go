package transform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
)

// maxCopied bounds what the copy operations of one patch may add to an object, in bytes.
const maxCopied = 8 << 20

// compilePatch compiles the one patch that the modifier has.
func compilePatch(field string, spec v1alpha1.ResourceModifier) (patch, error) {
	var set []string
	var out patch
	var err error
	for _, c := range []struct {
		name    string
		set     bool
		compile func() (patch, error)
	}{
		{"jsonPatch", len(spec.JSONPatch) > 0, func() (patch, error) { return compileJSONPatch(field+".jsonPatch", spec.JSONPatch) }},
		{"mergePatch", spec.MergePatch != "", func() (patch, error) { return compileMergePatch(field+".mergePatch", spec.MergePatch) }},
		{"strategicMergePatch", spec.StrategicMergePatch != "", func() (patch, error) {
			return compileStrategicPatch(field+".strategicMergePatch", spec.StrategicMergePatch)
		}},
		{"expression", spec.Expression != "", func() (patch, error) { return compileReplacement(field+".expression", spec.Expression) }},
	} {
		if c.set {
			set = append(set, c.name)
			out, err = c.compile()
		}
	}
	switch len(set) {
	case 0:
		return nil, fmt.Errorf("%s: says no change: set one of jsonPatch, mergePatch, strategicMergePatch, expression", field)
	case 1:
		return out, err
	}
	return nil, fmt.Errorf("%s: has %s: keep one of them and write another modifier for each of the others", field, strings.Join(set, " and "))
}

// identityPointers are the fields that a modifier may not change.
var identityPointers = map[string]bool{"/apiVersion": true, "/kind": true, "/metadata/name": true, "/metadata/namespace": true, "": true, "/metadata": true}

// compileJSONPatch checks a patch of RFC 6902 and compiles it.
func compileJSONPatch(field string, ops []v1alpha1.JSONPatchOperation) (patch, error) {
	var errs []error
	doc := make([]map[string]any, 0, len(ops))
	for i, op := range ops {
		encoded, err := encodeOperation(fmt.Sprintf("%s[%d]", field, i), op)
		errs = append(errs, err)
		doc = append(doc, encoded)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	compiled, err := jsonpatch.DecodePatch(data)
	if err != nil {
		return nil, fmt.Errorf("%s: is no JSON patch: %w", field, err)
	}
	opts := jsonpatch.NewApplyOptions()
	opts.SupportNegativeIndices = false
	opts.AccumulatedCopySizeLimit = maxCopied
	return func(_ context.Context, obj map[string]any) (map[string]any, error) {
		return throughText(obj, func(text []byte) ([]byte, error) {
			out, err := compiled.ApplyWithOptions(text, opts)
			if err != nil {
				return nil, fmt.Errorf("jsonPatch: %w: select only objects that have the field, with condition: has(object.…)", err)
			}
			return out, nil
		})
	}, nil
}

// encodeOperation checks one operation and gives it as the patch document has it.
func encodeOperation(field string, op v1alpha1.JSONPatchOperation) (map[string]any, error) {
	out := map[string]any{"op": op.Op, "path": op.Path}
	if err := checkPointer(op.Path); err != nil {
		return nil, fmt.Errorf("%s.path: %w", field, err)
	}
	if identityPointers[op.Path] && op.Op != "test" {
		return nil, fmt.Errorf("%s.path: %q is, or holds, what the object is known by, which a modifier may not change: use a longer path, or namespaceMapping", field, op.Path)
	}
	var err error
	switch op.Op {
	case "add", "replace", "test":
		err = checkValue(field, op)
		out["value"] = json.RawMessage(op.Value)
	case "move", "copy":
		err = checkFrom(field, op)
		out["from"] = op.From
	case "remove":
		if op.From != "" || op.Value != "" {
			err = fmt.Errorf("%s: \"remove\" takes a path alone: remove from and value", field)
		}
	default:
		err = fmt.Errorf("%s.op: %q is none of add, remove, replace, move, copy, test", field, op.Op)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func checkValue(field string, op v1alpha1.JSONPatchOperation) error {
	if op.From != "" {
		return fmt.Errorf("%s.from: %q takes none: remove it", field, op.Op)
	}
	if !json.Valid([]byte(op.Value)) {
		return fmt.Errorf("%s.value: is not JSON text: write 3, true, {\"a\":1}, and strings with their quotes: '\"text\"'", field)
	}
	return nil
}

func checkFrom(field string, op v1alpha1.JSONPatchOperation) error {
	if err := checkPointer(op.From); err != nil {
		return fmt.Errorf("%s.from: %w", field, err)
	}
	if op.Value != "" {
		return fmt.Errorf("%s.value: %q takes none: remove it", field, op.Op)
	}
	if op.Op == "move" && identityPointers[op.From] {
		return fmt.Errorf("%s.from: %q is, or holds, what the object is known by, which a modifier may not change: copy it", field, op.From)
	}
	return nil
}

// checkPointer checks a JSON pointer (RFC 6901).
func checkPointer(s string) error {
	if s != "" && !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%q does not begin with \"/\": write /spec/replicas", s)
	}
	for i := range len(s) {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return fmt.Errorf("%q has a \"~\" alone: write ~1 for a slash within a key, and ~0 for \"~\"", s)
		}
	}
	return nil
}

// readPatch reads a patch document, YAML or JSON, that is an object.
func readPatch(field, doc string) (map[string]any, error) {
	if len(doc) > maxDocument {
		return nil, fmt.Errorf("%s: is larger than %d bytes", field, maxDocument)
	}
	data, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		return nil, fmt.Errorf("%s: is neither YAML nor JSON: %w", field, err)
	}
	var v any
	if err := utiljson.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: is no object: write the fields to change, as in \"spec: {replicas: 1}\"", field)
	}
	return m, nil
}

// compileMergePatch compiles a patch of RFC 7386.
func compileMergePatch(field, doc string) (patch, error) {
	m, err := readPatch(field, doc)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return func(_ context.Context, obj map[string]any) (map[string]any, error) {
		return throughText(obj, func(text []byte) ([]byte, error) {
			out, err := jsonpatch.MergePatch(text, data)
			if err != nil {
				return nil, fmt.Errorf("mergePatch: %w", err)
			}
			return out, nil
		})
	}, nil
}

// compileStrategicPatch compiles a strategic merge patch, which knows how the lists of Kubernetes' own kinds are merged.
func compileStrategicPatch(field, doc string) (patch, error) {
	m, err := readPatch(field, doc)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, obj map[string]any) (map[string]any, error) {
		shape, ok, err := mergingOf(text(obj, "apiVersion"), text(obj, "kind"))
		if err == nil && !ok {
			err = fmt.Errorf("how lists of %s %s are merged is not known: use mergePatch, jsonPatch or expression, or select with resources", show(obj["apiVersion"]), show(obj["kind"]))
		}
		if err != nil {
			return nil, fmt.Errorf("strategicMergePatch: %w", err)
		}
		out, err := strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(obj, runtime.DeepCopyJSON(m), shape)
		if err != nil {
			return nil, fmt.Errorf("strategicMergePatch: %w", err)
		}
		return out, nil
	}, nil
}

// throughText runs what works on JSON text over an object.
func throughText(obj map[string]any, f func(text []byte) ([]byte, error)) (map[string]any, error) {
	in, err := encodeObject(obj)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	data, err := f(in)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := utiljson.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("decode what the patch made: %w", err)
	}
	if out == nil {
		return nil, errors.New("the patch left no object")
	}
	return out, nil
}

func equalJSON(a, b any) bool { return reflect.DeepEqual(a, b) }

// show writes a JSON value for a message.
func show(v any) string {
	if v == nil {
		return "nothing"
	}
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return "something that is no text"
}
