package main

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

// bindSelection binds the flags that select objects, with Velero's names where they mean the same.
func bindSelection(b *binder, s *v1alpha1.Selection) {
	b.list(&s.IncludedNamespaces, "include-namespaces", "namespaces that take part, with globs (default all)")
	b.list(&s.ExcludedNamespaces, "exclude-namespaces", "namespaces left out")
	b.list(&s.IncludedResources, "include-resources", "resources that take part: deployments, deploy, deployments.apps, *.cert-manager.io (default all)")
	b.list(&s.ExcludedResources, "exclude-resources", "resources left out")
	b.tristate(&s.IncludeClusterResources, "include-cluster-resources", "cluster-scoped objects: true all, false none (default: all where everything is selected, else those that selected objects need)")
	b.list(&s.IncludedClusterScopedResources, "include-cluster-scoped-resources", "cluster-scoped resources of which all objects take part")
	b.list(&s.ExcludedClusterScopedResources, "exclude-cluster-scoped-resources", "cluster-scoped resources left out, needed or not")
	b.list(&s.IncludedNamespaceScopedResources, "include-namespace-scoped-resources", "namespaced resources that take part")
	b.list(&s.ExcludedNamespaceScopedResources, "exclude-namespace-scoped-resources", "namespaced resources left out")
	b.add(&boundFlag{kind: "selector", set: func(value string) error {
		selector, err := parseSelector(value)
		s.LabelSelector = selector
		return err
	}}, "selector", "l", "label selector: app=web,tier!=cache")
	b.add(&boundFlag{kind: "selectors", reset: func() { s.OrLabelSelectors = nil }, set: func(value string) error {
		for part := range strings.SplitSeq(value, " or ") {
			selector, err := parseSelector(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			s.OrLabelSelectors = append(s.OrLabelSelectors, selector)
		}
		return nil
	}}, "or-selector", "", `label selectors of which one must match: "app=web or app=api" (repeatable)`)
	b.text(&s.FieldSelector, "field-selector", "selector", "selector over metadata.name and metadata.namespace")
	b.text(&s.Expression, "expression", "cel", `CEL expression over "object" that is true for what takes part`)
}

// parseSelector reads a label selector as kubectl takes it.
func parseSelector(text string) (*metav1.LabelSelector, error) {
	if text == "" {
		return nil, fmt.Errorf("the selector is empty")
	}
	selector, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a label selector: %w", text, err)
	}
	return selector, nil
}
