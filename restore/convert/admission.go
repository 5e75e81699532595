package convert

import (
	"fmt"

	"kedge.dev/kedge/internal/tree"
)

// webhooksUp writes out the defaults of v1beta1, which v1 changed, and replaces what v1 refuses.
func webhooksUp(c *conversion) {
	names := map[string]bool{}
	tree.Each(c.obj, "webhooks", func(hook map[string]any) {
		name := tree.Text(hook, "name")
		fillText(hook, "failurePolicy", "Ignore")
		fillText(hook, "matchPolicy", "Exact")
		fill(hook, "timeoutSeconds", int64(30))
		if tree.Empty(hook["admissionReviewVersions"]) {
			hook["admissionReviewVersions"] = []any{"v1beta1"}
		}
		if effects := tree.Text(hook, "sideEffects"); effects != "None" && effects != "NoneOnDryRun" {
			if effects == "" {
				effects = "Unknown, its default"
			}
			hook["sideEffects"] = "NoneOnDryRun"
			c.warn("webhook %s: sideEffects was %s, which v1 refuses; it is NoneOnDryRun now, so dry-run requests reach the webhook: make sure that it changes nothing then", name, effects)
		}
		if names[name] {
			hook["name"] = unique(name, names)
			c.warn("webhook %s: v1 asks for unique names; the second one is called %s now", name, hook["name"])
		}
		names[tree.Text(hook, "name")] = true
	})
}

func unique(name string, taken map[string]bool) string {
	for i := 2; ; i++ {
		if candidate := fmt.Sprintf("webhook-%d.%s", i, name); !taken[candidate] {
			return candidate
		}
	}
}

// policyBindingFromAlpha writes out what bindings did before they said what to do: deny.
func policyBindingFromAlpha(c *conversion) {
	spec := c.spec()
	if tree.Has(c.obj, "spec") && tree.Empty(spec["validationActions"]) {
		spec["validationActions"] = []any{"Deny"}
	}
	denyWithoutParameters(c)
}

// denyWithoutParameters writes out the alphas' default for parameters that are not found; later versions ask for it.
func denyWithoutParameters(c *conversion) {
	if spec := c.spec(); tree.Has(spec, "paramRef") {
		fill(tree.Map(spec, "paramRef"), "parameterNotFoundAction", "Deny")
	}
}

const rbacGroup = "rbac.authorization.k8s.io"

// bindingUp gives subjects their apiGroup in place of an apiVersion.
func bindingUp(c *conversion) {
	tree.Each(c.obj, "subjects", func(subject map[string]any) {
		apiVersion := tree.Text(subject, "apiVersion")
		delete(subject, "apiVersion")
		switch tree.Text(subject, "kind") {
		case "ServiceAccount":
			delete(subject, "apiGroup")
		case "User", "Group":
			subject["apiGroup"] = rbacGroup
		default:
			if group := parseGroup(apiVersion); group != "" {
				subject["apiGroup"] = group
			}
		}
		if tree.Text(subject, "kind") == "User" && tree.Text(subject, "name") == "*" {
			subject["kind"], subject["name"] = "Group", "system:authenticated"
			c.warn("subject User * was written as Group system:authenticated, which is what v1alpha1 meant by it")
		}
	})
	if ref := tree.Map(c.obj, "roleRef"); len(ref) > 0 {
		fillText(ref, "apiGroup", rbacGroup)
	}
}

func bindingDown(c *conversion) {
	tree.Each(c.obj, "subjects", func(subject map[string]any) {
		group := tree.Text(subject, "apiGroup")
		delete(subject, "apiGroup")
		switch kind := tree.Text(subject, "kind"); {
		case kind == "ServiceAccount":
			subject["apiVersion"] = "v1"
		case group != "":
			subject["apiVersion"] = group + "/v1alpha1"
		}
	})
}
