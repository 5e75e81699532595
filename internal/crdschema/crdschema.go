// Package crdschema rewrites the schemas of custom resource definitions that were made before apiextensions.k8s.io/v1
// asked for structural ones, so that v1 accepts them and they go on accepting what they accepted.
//
// A definition of those days kept fields that its schema does not name (spec.preserveUnknownFields, true by default). In
// v1 a schema says so itself, at every place, with x-kubernetes-preserve-unknown-fields.
package crdschema

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kedge.dev/kedge/internal/tree"
)

const preserve = "x-kubernetes-preserve-unknown-fields"

// Upgrade rewrites the spec of a definition in the shape of apiextensions.k8s.io/v1, in place, if it says
// preserveUnknownFields: true or if a version has no schema; else it changes nothing. It warns where a version's schema
// cannot be made structural and was replaced by one that accepts any object.
func Upgrade(spec map[string]any) (changed bool, warnings []string) {
	keep, _ := spec["preserveUnknownFields"].(bool)
	if _, ok := spec["preserveUnknownFields"]; ok {
		delete(spec, "preserveUnknownFields") // false is v1's only value, and its default
		changed = true
	}
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok {
			continue
		}
		validation, _ := version["schema"].(map[string]any)
		root, _ := validation["openAPIV3Schema"].(map[string]any)
		if root != nil && !keep {
			continue
		}
		changed = true
		upgraded, warning := upgradeSchema(root)
		if warning != "" {
			warnings = append(warnings, fmt.Sprintf("version %v: %s", version["name"], warning))
		}
		version["schema"] = map[string]any{"openAPIV3Schema": upgraded}
	}
	return changed, warnings
}

// upgradeSchema gives a structural schema that keeps unknown fields, and says what validation was lost.
func upgradeSchema(root map[string]any) (upgraded map[string]any, warning string) {
	if root == nil {
		return anything(), ""
	}
	r := &repairer{}
	r.repair(root, "", true)
	if err := check(root); err != nil {
		return anything(), fmt.Sprintf("the schema cannot be made structural (%v); it was replaced by one that accepts any object", err)
	}
	if len(r.places) == 0 {
		return root, ""
	}
	return root, fmt.Sprintf("the schema validates less than before, because structural schemas cannot say: %s", some(r.places))
}

// some lists the first few places.
func some(places []string) string {
	const most = 5
	if len(places) <= most {
		return strings.Join(places, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(places[:most], ", "), len(places)-most)
}

func anything() map[string]any { return map[string]any{"type": "object", preserve: true} }

// check says what the API server would say about the schema's structure.
func check(root map[string]any) error {
	raw, err := json.Marshal(root)
	if err != nil {
		return err
	}
	var v1 apiextensionsv1.JSONSchemaProps
	if err := json.Unmarshal(raw, &v1); err != nil {
		return err
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &internal, nil); err != nil {
		return err
	}
	structural, err := schema.NewStructural(&internal)
	if err != nil {
		return err
	}
	return schema.ValidateStructural(field.NewPath("openAPIV3Schema"), structural).ToAggregate()
}

// approval is the annotation that v1 asks of definitions in the groups of the Kubernetes project.
const approval = "api-approved.kubernetes.io"

// Approve adds the annotation without which a create refuses a definition in a protected group, and says so.
func Approve(definition map[string]any) (warning string) {
	group := tree.Text(tree.Map(definition, "spec"), "group")
	protected := group == "k8s.io" || group == "kubernetes.io" || strings.HasSuffix(group, ".k8s.io") || strings.HasSuffix(group, ".kubernetes.io")
	if _, ok := tree.Annotation(definition, approval); ok || !protected {
		return ""
	}
	tree.SetAnnotation(definition, approval, "unapproved, it was made before this annotation was asked for")
	return fmt.Sprintf("annotation %s was added: the API server asks for it in group %s", approval, group)
}
