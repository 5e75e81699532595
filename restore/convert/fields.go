package convert

import (
	"encoding/json"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// The functions below read JSON of any shape. What is not of the shape that a version defines is passed over; the API
// server that is sent the result then says what is wrong with it.

// child is the map under key; where there is none, an empty map that is not part of o.
func child(o map[string]any, key string) map[string]any {
	if m, ok := o[key].(map[string]any); ok && m != nil {
		return m
	}
	return map[string]any{}
}

// has says whether there is a map under key.
func has(o map[string]any, key string) bool {
	m, ok := o[key].(map[string]any)
	return ok && m != nil
}

// ensure is the map under key, put there if there was nothing. Where something else is there it is an empty map that is
// not part of o.
func ensure(o map[string]any, key string) map[string]any {
	if o[key] == nil {
		o[key] = map[string]any{}
	}
	return child(o, key)
}

// each calls fn for every map in the list under key.
func each(o map[string]any, key string, fn func(map[string]any)) {
	list, _ := o[key].([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			fn(m)
		}
	}
}

// text is the string under key, or "".
func text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}

// fill sets key where it is missing or null.
func fill(o map[string]any, key string, value any) {
	if o[key] == nil {
		o[key] = value
	}
}

// fillText sets key where it is missing, null or the empty string, which the API servers treat alike.
func fillText(o map[string]any, key, value string) {
	if s, ok := o[key].(string); o[key] == nil || ok && s == "" {
		o[key] = value
	}
}

// move renames a field, if it is there.
func move(o map[string]any, from, to string) {
	if v, ok := o[from]; ok {
		delete(o, from)
		if v != nil {
			o[to] = v
		}
	}
}

// zero says whether a number is missing or 0.
func zero(v any) bool {
	switch n := v.(type) {
	case nil:
		return true
	case int64:
		return n == 0
	case float64:
		return n == 0
	}
	return false
}

// empty says whether a value is missing, or a map or list without entries.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(x) == 0
	case []any:
		return len(x) == 0
	}
	return false
}

// copyOf copies JSON wholly.
func copyOf(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = copyOf(e)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = copyOf(e)
		}
		return out
	}
	return v
}

// annotation is the annotation's value.
func annotation(o map[string]any, key string) (string, bool) {
	s, ok := child(child(o, "metadata"), "annotations")[key].(string)
	return s, ok
}

// dropAnnotation removes it, and the map of annotations if that is then empty.
func dropAnnotation(o map[string]any, key string) {
	meta := child(o, "metadata")
	annotations := child(meta, "annotations")
	if _, ok := annotations[key]; !ok {
		return
	}
	delete(annotations, key)
	if len(annotations) == 0 {
		delete(meta, "annotations")
	}
}

func setAnnotation(o map[string]any, key, value string) {
	ensure(ensure(o, "metadata"), "annotations")[key] = value
}

// decode reads JSON that an annotation holds.
func decode(s string, into any) bool { return utiljson.Unmarshal([]byte(s), into) == nil }

// encode writes JSON for an annotation.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null" // cannot happen: v was decoded from JSON
	}
	return string(b)
}
