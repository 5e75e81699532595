package convert

import "kedge.dev/kedge/internal/tree"

// budgetLabel is the key with which Kubernetes writes an empty selector of a disruption budget in the version that means
// the opposite by it: policy/v1beta1 selects no pods with {}, policy/v1 all of them.
const budgetLabel = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

func budgetUp(c *conversion) {
	spec := c.spec()
	selector, ok := spec["selector"].(map[string]any)
	switch {
	case !ok:
	case tree.Empty(selector["matchLabels"]) && tree.Empty(selector["matchExpressions"]):
		spec["selector"] = budgetSelector("Exists")
		c.warn("spec.selector was empty, which selects no pods in policy/v1beta1 and all pods in policy/v1; it was rewritten to go on selecting none")
	case isBudgetSelector(selector, "DoesNotExist"):
		spec["selector"] = map[string]any{}
	default:
		stripBudgetLabel(selector)
	}
}

func budgetDown(c *conversion) {
	spec := c.spec()
	selector, ok := spec["selector"].(map[string]any)
	switch {
	case !ok:
	case tree.Empty(selector["matchLabels"]) && tree.Empty(selector["matchExpressions"]):
		spec["selector"] = budgetSelector("DoesNotExist")
		c.warn("spec.selector was empty, which selects all pods in policy/v1 and none in policy/v1beta1; it was rewritten to go on selecting all")
	case isBudgetSelector(selector, "Exists"):
		spec["selector"] = map[string]any{}
	}
}

func budgetSelector(operator string) map[string]any {
	return map[string]any{"matchExpressions": []any{map[string]any{"key": budgetLabel, "operator": operator}}}
}

func isBudgetSelector(selector map[string]any, operator string) bool {
	list, _ := selector["matchExpressions"].([]any)
	if len(list) != 1 || !tree.Empty(selector["matchLabels"]) {
		return false
	}
	e, _ := list[0].(map[string]any)
	return tree.Text(e, "key") == budgetLabel && tree.Text(e, "operator") == operator && tree.Empty(e["values"])
}

func stripBudgetLabel(selector map[string]any) {
	list, ok := selector["matchExpressions"].([]any)
	if !ok {
		return
	}
	kept := make([]any, 0, len(list))
	for _, e := range list {
		if m, _ := e.(map[string]any); tree.Text(m, "key") != budgetLabel {
			kept = append(kept, e)
		}
	}
	selector["matchExpressions"] = kept
	if len(kept) == 0 {
		delete(selector, "matchExpressions")
	}
}

func runtimeClassUp(c *conversion) {
	spec := c.spec()
	c.obj["handler"] = tree.Text(spec, "runtimeHandler")
	for _, key := range []string{"overhead", "scheduling"} {
		if spec[key] != nil {
			c.obj[key] = spec[key]
		}
	}
	delete(c.obj, "spec")
}

func runtimeClassDown(c *conversion) {
	spec := map[string]any{"runtimeHandler": tree.Text(c.obj, "handler")}
	delete(c.obj, "handler")
	for _, key := range []string{"overhead", "scheduling"} {
		if c.obj[key] != nil {
			spec[key] = c.obj[key]
		}
		delete(c.obj, key)
	}
	c.obj["spec"] = spec
}
