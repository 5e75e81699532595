package convert

import (
	"encoding/json"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// What is not of the shape that a version defines is passed over here; the API server that is sent the result then says
// what is wrong with it.

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
