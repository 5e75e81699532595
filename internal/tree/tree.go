// Package tree reads and changes decoded JSON objects of any shape: what is not of the shape asked for counts as absent,
// so that nothing panics on what an archive holds. Values are as k8s.io/apimachinery/pkg/util/json decodes them.
package tree

// Map is the map under key; where there is none, an empty map that is not part of o.
func Map(o map[string]any, key string) map[string]any {
	if m, ok := o[key].(map[string]any); ok && m != nil {
		return m
	}
	return map[string]any{}
}

// In is the map under a path of keys; where there is none, an empty map that is not part of o.
func In(o map[string]any, path ...string) map[string]any {
	for _, key := range path {
		o = Map(o, key)
	}
	return o
}

// Has says whether there is a map under key.
func Has(o map[string]any, key string) bool {
	m, ok := o[key].(map[string]any)
	return ok && m != nil
}

// Ensure is the map under key, put there if there was nothing. Where something else is there it is an empty map that is
// not part of o.
func Ensure(o map[string]any, key string) map[string]any {
	if o[key] == nil {
		o[key] = map[string]any{}
	}
	return Map(o, key)
}

// Each calls fn for every map in the list under key.
func Each(o map[string]any, key string, fn func(map[string]any)) {
	list, _ := o[key].([]any)
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			fn(m)
		}
	}
}

// Keep filters the list under key in place; entries that are no maps stay. The key goes with the last entry. It says how
// many went.
func Keep(o map[string]any, key string, keep func(map[string]any) bool) (dropped int) {
	list, ok := o[key].([]any)
	if !ok {
		return 0
	}
	kept := make([]any, 0, len(list))
	for _, e := range list {
		if m, ok := e.(map[string]any); !ok || keep(m) {
			kept = append(kept, e)
		}
	}
	dropped = len(list) - len(kept)
	switch {
	case dropped == 0:
	case len(kept) == 0:
		delete(o, key)
	default:
		o[key] = kept
	}
	return dropped
}

// Text is the string under key, or "".
func Text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}

// Drop removes keys and says whether one was there.
func Drop(o map[string]any, keys ...string) bool {
	found := false
	for _, key := range keys {
		if _, ok := o[key]; ok {
			delete(o, key)
			found = true
		}
	}
	return found
}

// Copy copies JSON wholly.
func Copy(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = Copy(e)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = Copy(e)
		}
		return out
	}
	return v
}

// Empty says whether a value is missing, or a map or list without entries.
func Empty(v any) bool {
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

// Annotation is the value of an object's annotation.
func Annotation(o map[string]any, key string) (string, bool) {
	s, ok := In(o, "metadata", "annotations")[key].(string)
	return s, ok
}

// SetAnnotation sets it.
func SetAnnotation(o map[string]any, key, value string) {
	Ensure(Ensure(o, "metadata"), "annotations")[key] = value
}

// DropAnnotations removes them, and the map of annotations if that is then empty. It says whether one was there.
func DropAnnotations(o map[string]any, keys ...string) bool {
	return dropFrom(o, "annotations", keys)
}

// DropLabels does the same to labels.
func DropLabels(o map[string]any, keys ...string) bool {
	return dropFrom(o, "labels", keys)
}

func dropFrom(o map[string]any, field string, keys []string) bool {
	meta := Map(o, "metadata")
	m := Map(meta, field)
	if !Drop(m, keys...) {
		return false
	}
	if len(m) == 0 {
		delete(meta, field)
	}
	return true
}
