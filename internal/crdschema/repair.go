package crdschema

import (
	"maps"
	"slices"

	"kedge.dev/kedge/internal/tree"
)

// forbidden are fields of a schema that v1 never allows. Without them the schema accepts more, never less.
var forbidden = []string{"$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems"}

// outsideOnly are fields that may not be said within allOf, anyOf, oneOf and not.
var outsideOnly = []string{
	"type", "default", "nullable", "additionalProperties", preserve, "x-kubernetes-embedded-resource",
	"x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-validations",
}

// repairer collects what validation a schema lost.
type repairer struct{ places []string }

func (r *repairer) lost(path, key string) { r.places = append(r.places, path+"."+key) }

// repair makes a node of a schema and all below it structural where that loses nothing but validation, and makes every
// object in it keep unknown fields. The order matters: junctors may describe new properties, which are then repaired.
func (r *repairer) repair(node map[string]any, path string, root bool) {
	for _, key := range forbidden {
		if _, ok := node[key]; ok {
			delete(node, key)
			r.lost(path, key)
		}
	}
	if intOrString(node) {
		node["x-kubernetes-int-or-string"] = true
		delete(node, "type")
		delete(node, preserve)
	}
	r.junctors(node, path)
	inferType(node, root)
	dropFalse(node)
	r.children(node, path, root)
	if kind := tree.Text(node, "type"); kind == "object" || kind == "" && node["x-kubernetes-int-or-string"] != true {
		node[preserve] = true
	}
}

// children repairs what is below a node.
func (r *repairer) children(node map[string]any, path string, root bool) {
	if items, ok := node["items"].(map[string]any); ok {
		r.repair(items, path+".items", false)
	} else if tree.Text(node, "type") == "array" || node["items"] != nil {
		node["items"] = map[string]any{preserve: true}
	}
	if extra, ok := node["additionalProperties"].(map[string]any); ok && !root {
		r.repair(extra, path+".additionalProperties", false)
	} else if root {
		delete(node, "additionalProperties")
	}
	top := root || node["x-kubernetes-embedded-resource"] == true
	properties, _ := node["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property, ok := properties[name].(map[string]any)
		switch {
		case !ok:
			properties[name] = map[string]any{preserve: true}
		case top && name == "metadata":
			properties[name] = r.metadata(property, path)
		case top && (name == "kind" || name == "apiVersion"):
			property["type"] = "string"
			r.repair(property, path+"."+name, false)
		default:
			r.repair(property, path+"."+name, false)
		}
	}
}

// metadata keeps what v1 lets a schema say of an object's metadata: how its name looks.
func (r *repairer) metadata(node map[string]any, path string) map[string]any {
	names := map[string]any{}
	for _, name := range []string{"name", "generateName"} {
		if property, ok := tree.Map(node, "properties")[name].(map[string]any); ok {
			property["type"] = "string"
			r.repair(property, path+".metadata."+name, false)
			names[name] = property
		}
	}
	if len(names) < len(tree.Map(node, "properties")) || node["required"] != nil {
		r.lost(path, "metadata")
	}
	if len(names) == 0 {
		return map[string]any{"type": "object"}
	}
	return map[string]any{"type": "object", "properties": names}
}

// inferType sets the type that structural schemas ask for where the rest of the node shows it. Where it does not, the
// mark to keep unknown fields stands for any type.
func inferType(node map[string]any, root bool) {
	if root {
		node["type"] = "object"
		return
	}
	if tree.Text(node, "type") != "" || node["x-kubernetes-int-or-string"] == true {
		return
	}
	delete(node, "type")
	switch {
	case node["properties"] != nil || node["additionalProperties"] != nil || node["x-kubernetes-embedded-resource"] == true:
		node["type"] = "object"
	case node["items"] != nil:
		node["type"] = "array"
	}
}

// dropFalse removes marks that v1 allows only as true, and additionalProperties where it says the same as nothing.
func dropFalse(node map[string]any) {
	if node[preserve] == false {
		delete(node, preserve)
	}
	if _, isBool := node["additionalProperties"].(bool); isBool || node["properties"] != nil {
		delete(node, "additionalProperties")
	}
}

// intOrString finds what v1beta1 wrote for a field that takes both.
func intOrString(node map[string]any) bool {
	if tree.Text(node, "format") == "int-or-string" {
		delete(node, "format")
		return true
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		list, _ := node[key].([]any)
		if len(list) != 2 {
			continue
		}
		types := map[string]bool{}
		for _, e := range list {
			branch, _ := e.(map[string]any)
			if len(branch) == 1 {
				types[tree.Text(branch, "type")] = true
			}
		}
		if types["string"] && (types["integer"] || types["number"]) {
			delete(node, key)
			return true
		}
	}
	return false
}

// junctors keeps allOf, anyOf, oneOf and not only where they are pure validations of fields described outside of them, as
// v1 wants them. Taking single words out of a branch could make the whole stricter (not: {type: x} would become not: {}),
// so a junctor with more in it goes as a whole, which can only accept more.
func (r *repairer) junctors(node map[string]any, path string) {
	for _, key := range []string{"allOf", "anyOf", "oneOf", "not"} {
		branches := branchesOf(node[key])
		if len(branches) == 0 {
			continue
		}
		pure := true
		for _, branch := range branches {
			pure = pure && isPure(branch)
		}
		if !pure {
			delete(node, key)
			r.lost(path, key)
			continue
		}
		for _, branch := range branches {
			describe(branch, node)
		}
	}
}

// branchesOf are the schemas of a junctor.
func branchesOf(v any) []map[string]any {
	switch x := v.(type) {
	case map[string]any:
		return []map[string]any{x}
	case []any:
		var out []map[string]any
		for _, e := range x {
			if m, ok := e.(map[string]any); ok {
				out = append(out, m)
			}
		}
		return out
	}
	return nil
}

// isPure says whether a branch only validates, and drops its titles and descriptions, which say nothing to the server.
func isPure(branch map[string]any) bool {
	delete(branch, "title")
	delete(branch, "description")
	for _, keys := range [][]string{forbidden, outsideOnly} {
		for _, key := range keys {
			if _, ok := branch[key]; ok {
				return false
			}
		}
	}
	properties, _ := branch["properties"].(map[string]any)
	if _, ok := properties["metadata"]; ok {
		return false
	}
	var below []map[string]any
	for _, p := range properties {
		below = append(below, branchesOf(p)...)
	}
	for _, key := range []string{"items", "allOf", "anyOf", "oneOf", "not"} {
		below = append(below, branchesOf(branch[key])...)
	}
	for _, b := range below {
		if !isPure(b) {
			return false
		}
	}
	return true
}

// describe gives every property and item that a branch speaks of a place in the schema outside of it.
func describe(branch, outside map[string]any) {
	properties, _ := branch["properties"].(map[string]any)
	for name, p := range properties {
		property, ok := p.(map[string]any)
		if !ok {
			continue
		}
		all, ok := outside["properties"].(map[string]any)
		if !ok {
			all = map[string]any{}
			outside["properties"] = all
			delete(outside, "additionalProperties")
		}
		if _, ok := all[name].(map[string]any); !ok {
			all[name] = map[string]any{}
		}
		described, _ := all[name].(map[string]any)
		describe(property, described)
	}
	if items, ok := branch["items"].(map[string]any); ok {
		if _, ok := outside["items"].(map[string]any); !ok {
			outside["items"] = map[string]any{}
		}
		described, _ := outside["items"].(map[string]any)
		describe(items, described)
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf", "not"} {
		for _, b := range branchesOf(branch[key]) {
			describe(b, outside)
		}
	}
}
