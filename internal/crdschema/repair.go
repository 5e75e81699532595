package crdschema

// forbidden are fields of a schema that v1 never allows. Without them the schema accepts more, never less.
var forbidden = []string{"$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems"}

// outsideOnly are fields that may not be said within allOf, anyOf, oneOf and not.
var outsideOnly = []string{
	"type", "default", "title", "description", "nullable", "additionalProperties", preserve, "x-kubernetes-embedded-resource",
	"x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-validations",
}

// repair makes a node of a schema and all below it structural where that loses nothing but validation, and makes every
// object in it keep unknown fields.
func repair(node map[string]any, root bool) {
	for _, key := range forbidden {
		delete(node, key)
	}
	if intOrString(node) {
		node["x-kubernetes-int-or-string"] = true
		delete(node, "type")
	}
	inferType(node, root)
	dropFalse(node)
	if items, ok := node["items"].(map[string]any); ok {
		repair(items, false)
	} else if text(node, "type") == "array" {
		node["items"] = map[string]any{preserve: true}
	}
	if extra, ok := node["additionalProperties"].(map[string]any); ok && !root {
		repair(extra, false)
	} else if root {
		delete(node, "additionalProperties")
	}
	junctors(node)
	properties, _ := node["properties"].(map[string]any)
	for name, p := range properties {
		property, ok := p.(map[string]any)
		switch {
		case !ok:
		case root && name == "metadata":
			properties[name] = map[string]any{"type": "object"}
		case root && (name == "kind" || name == "apiVersion"):
			properties[name] = map[string]any{"type": "string"}
		default:
			repair(property, false)
		}
	}
	if kind := text(node, "type"); kind == "object" || kind == "" && node["x-kubernetes-int-or-string"] != true {
		node[preserve] = true
	}
}

// inferType sets the type that structural schemas ask for where the rest of the node shows it. Where it does not, the
// mark to keep unknown fields stands for any type.
func inferType(node map[string]any, root bool) {
	if root {
		node["type"] = "object"
		return
	}
	if text(node, "type") != "" || node["x-kubernetes-int-or-string"] == true {
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
	if text(node, "format") == "int-or-string" {
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
				types[text(branch, "type")] = true
			}
		}
		if types["string"] && (types["integer"] || types["number"]) {
			delete(node, key)
			return true
		}
	}
	return false
}

// junctors removes from the branches of allOf, anyOf, oneOf and not what may only stand outside of them. Every property
// and item that they speak of gets a place outside.
func junctors(node map[string]any) {
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := node[key].([]any)
		for _, e := range list {
			if branch, ok := e.(map[string]any); ok {
				clean(branch, node)
			}
		}
	}
	if branch, ok := node["not"].(map[string]any); ok {
		clean(branch, node)
	}
}

// clean makes branch a pure validation of what outside describes.
func clean(branch, outside map[string]any) {
	for _, keys := range [][]string{forbidden, outsideOnly} {
		for _, key := range keys {
			delete(branch, key)
		}
	}
	properties, _ := branch["properties"].(map[string]any)
	delete(properties, "metadata")
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
		clean(property, described)
	}
	if items, ok := branch["items"].(map[string]any); ok {
		if _, ok := outside["items"].(map[string]any); !ok {
			outside["items"] = map[string]any{}
		}
		described, _ := outside["items"].(map[string]any)
		clean(items, described)
	}
	nested(branch, outside)
}

// nested cleans the junctors within a branch.
func nested(branch, outside map[string]any) {
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := branch[key].([]any)
		for _, e := range list {
			if b, ok := e.(map[string]any); ok {
				clean(b, outside)
			}
		}
	}
	if b, ok := branch["not"].(map[string]any); ok {
		clean(b, outside)
	}
}

func text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}
