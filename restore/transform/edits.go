package transform

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"kedge.dev/kedge/plugins"
)

// resource is a group and its resource, as tables are keyed by them.
type resource struct{ group, name string }

func resourceOf(ref plugins.Ref) resource { return resource{ref.Group, ref.Resource} }

// parseResource reads "deployments.apps".
func parseResource(s string) resource {
	name, group, _ := strings.Cut(s, ".")
	return resource{group, name}
}

// custom says that the resource is none of Kubernetes' own: what its fields mean is known of a few kinds only.
func (r resource) custom() bool {
	return strings.Contains(r.group, ".") && !strings.HasSuffix(r.group, ".k8s.io")
}

// step is one step into a document: a key, or where that is empty and index is not negative, an element.
type step struct {
	key   string
	index int
}

// trail is a place in one document.
type trail []step

// String writes the place as users write paths: spec.rules[0].host, data["app.conf"].
func (t trail) String() string {
	var b strings.Builder
	for _, s := range t {
		switch {
		case s.index >= 0:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case s.key == "" || strings.ContainsAny(s.key, "./[]\" "):
			b.WriteString("[" + strconv.Quote(s.key) + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.key)
		}
	}
	return b.String()
}

// find gives what stands there in a document, nil where nothing does.
func (t trail) find(v any) any {
	for _, s := range t {
		switch at := v.(type) {
		case map[string]any:
			if s.index >= 0 {
				return nil
			}
			v = at[s.key]
		case []any:
			if s.index < 0 || s.index >= len(at) {
				return nil
			}
			v = at[s.index]
		default:
			return nil
		}
	}
	return v
}

// place names fields of documents of one shape: keys, "[]" for every element of a list, "{}" for every value of an object.
type place []string

// at makes a place of its words: at("spec containers [] image").
func at(words string) place { return strings.Fields(words) }

// form rewrites the value of a field; what it does not understand it gives back.
type form func(e *edits, v any) any

// edits is one object on its way through the rules.
type edits struct {
	subject  Subject
	resource resource
	obj      map[string]any
	trail    trail // where the running form is
	changed  bool
	remarks  []plugins.Remark
	kept     []kept
}

func (e *edits) remark(reason, message string) {
	e.remarks = append(e.remarks, plugins.Remark{Reason: reason, Message: message})
}

// edit applies the form to every field that the place names below v, which stands at the current trail, and gives v back,
// or what the form made of it.
func (e *edits) edit(v any, p place, f form) any {
	if len(p) == 0 {
		return f(e, v)
	}
	switch in := v.(type) {
	case []any:
		if p[0] != "[]" {
			return v
		}
		for i := range in {
			in[i] = e.below(step{index: i}, in[i], p[1:], f)
		}
	case map[string]any:
		if p[0] == "{}" {
			for k, child := range in {
				in[k] = e.below(step{key: k, index: -1}, child, p[1:], f)
			}
		} else if child, ok := in[p[0]]; ok {
			in[p[0]] = e.below(step{key: p[0], index: -1}, child, p[1:], f)
		}
	}
	return v
}

func (e *edits) below(s step, v any, p place, f form) any {
	e.trail = append(e.trail, s)
	v = e.edit(v, p, f)
	e.trail = e.trail[:len(e.trail)-1]
	return v
}

// each applies the form at several places of the object.
func (e *edits) each(f form, places ...place) {
	for _, p := range places {
		e.edit(e.obj, p, f)
	}
}

// inside makes a form of a function of objects that changes them in place.
func inside(f func(e *edits, m map[string]any)) form {
	return func(e *edits, v any) any {
		if m, ok := v.(map[string]any); ok {
			f(e, m)
		}
		return v
	}
}

// value makes a form that maps strings.
func (m *mapping) value() form {
	return func(e *edits, v any) any {
		s, ok := v.(string)
		if !ok {
			return v
		}
		to, ok := m.lookup(s)
		if !ok {
			return v
		}
		e.changed = true
		return to
	}
}

// set makes a form that maps the strings of a list and keeps one of those that become equal, as lists that are sets demand.
func (m *mapping) set() form {
	one := m.value()
	return func(e *edits, v any) any {
		list, ok := v.([]any)
		if !ok {
			return v
		}
		before := e.changed
		e.changed = false
		for i := range list {
			list[i] = one(e, list[i])
		}
		if e.changed {
			list = unique(list)
		}
		e.changed = e.changed || before
		return list
	}
}

// unique drops strings that stand earlier in the list.
func unique(list []any) []any {
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(v any) bool {
		s, ok := v.(string)
		again := ok && seen[s]
		if ok {
			seen[s] = true
		}
		return again
	})
}

// text reads a string field.
func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

// object reads a field that is an object; nil where it is none.
func object(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	return o
}

// encodeObject writes an object as JSON for libraries that work on text.
func encodeObject(obj map[string]any) ([]byte, error) { return json.Marshal(obj) }
