package transform

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

var nodeSelectorRules = mappingRules{
	removes: true,
	check: func(s string) string {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return "is not \"key=value\""
		}
		if bad := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(bad) > 0 {
			return "is no label: " + bad[0]
		}
		return ""
	},
	needle: func(from string) string {
		key, _, _ := strings.Cut(from, "=")
		return key
	},
}

// nodeSelectors maps entries of nodeSelector in pod specs and runtime classes. Of node affinity it maps the values where old and new
// entry have one key, and else remarks.
func nodeSelectors(m *mapping) rule {
	runtimeClass := resource{"node.k8s.io", "runtimeclasses"}
	return rule{
		mapping: m,
		reads:   func(r resource) bool { return hasPodSpecs(r) || r == runtimeClass },
		apply: func(e *edits) {
			selector := inside(m.selector)
			if e.resource == runtimeClass {
				e.edit(e.obj, at("scheduling nodeSelector"), selector)
			}
			e.podSpecs(func(e *edits, spec map[string]any) {
				e.edit(spec, place{"nodeSelector"}, selector)
				for _, p := range nodeTerms {
					e.edit(spec, p, inside(m.affinity))
				}
			})
		},
	}
}

// selector maps the entries of one nodeSelector, all of them as they were before.
func (m *mapping) selector(e *edits, labels map[string]any) {
	added := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value, ok := labels[key].(string)
		if !ok {
			continue
		}
		to, ok := m.lookup(key + "=" + value)
		if !ok {
			continue
		}
		delete(labels, key)
		e.changed = true
		if to != "" {
			newKey, newValue, _ := strings.Cut(to, "=")
			added[newKey] = newValue
		}
	}
	for key, value := range added {
		if old, taken := labels[key]; taken && old != value {
			e.remark(reasonConflict, e.trail.String()+" had another value for "+key+"; the one of "+m.field+" is taken")
		}
		labels[key] = value
	}
}

// affinity maps the values of one requirement on a node.
func (m *mapping) affinity(e *edits, req map[string]any) {
	key := text(req, "key")
	values, ok := req["values"].([]any)
	if !ok || key == "" {
		return
	}
	touched := false
	for i, v := range values {
		value, ok := v.(string)
		if !ok {
			continue
		}
		t := m.find(key + "=" + value)
		if t == nil {
			continue
		}
		newKey, newValue, _ := strings.Cut(t.apply(key+"="+value), "=")
		if newKey != key {
			e.remark(reasonKept, e.trail.String()+" asks for "+key+"="+value+", which "+m.field+" maps to another key: change this requirement with a modifier")
			continue
		}
		values[i], touched = newValue, true
	}
	if touched {
		req["values"] = unique(values)
		e.changed = true
	}
}
