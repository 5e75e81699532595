package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Selection says which objects take part. Its fields mean what they mean to users of Velero; patterns are globs
// ("*", "?", "[a-z]"), and an exclusion always wins over an inclusion.
//
// Resources are written as kubectl takes them: "deployments", "deploy", "Deployment", "deployments.apps",
// "deployments.v1.apps", "*.cert-manager.io". A name without a group means the resource in every group that has it.
type Selection struct {
	// IncludedNamespaces are the namespaces whose objects take part. Empty, or "*", means all.
	// +optional
	IncludedNamespaces []string `json:"includedNamespaces,omitempty"`
	// ExcludedNamespaces are left out.
	// +optional
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`

	// IncludedResources are the resources of any scope that take part. Empty, or "*", means all. It cannot be combined with
	// the four fields that name resources of one scope.
	// +optional
	IncludedResources []string `json:"includedResources,omitempty"`
	// ExcludedResources are left out.
	// +optional
	ExcludedResources []string `json:"excludedResources,omitempty"`
	// IncludeClusterResources: true takes all cluster-scoped objects, false none; unset takes all of them when all
	// namespaces are selected (of these, as of all objects, those that the selectors match), else those that the selected objects need.
	// +optional
	IncludeClusterResources *bool `json:"includeClusterResources,omitempty"`

	// IncludedClusterScopedResources are the cluster-scoped resources of which all objects take part.
	// +optional
	IncludedClusterScopedResources []string `json:"includedClusterScopedResources,omitempty"`
	// ExcludedClusterScopedResources are left out, needed by selected objects or not.
	// +optional
	ExcludedClusterScopedResources []string `json:"excludedClusterScopedResources,omitempty"`
	// IncludedNamespaceScopedResources are the namespaced resources that take part. Empty, or "*", means all.
	// +optional
	IncludedNamespaceScopedResources []string `json:"includedNamespaceScopedResources,omitempty"`
	// ExcludedNamespaceScopedResources are left out.
	// +optional
	ExcludedNamespaceScopedResources []string `json:"excludedNamespaceScopedResources,omitempty"`

	// LabelSelector selects objects by label. It cannot be combined with OrLabelSelectors.
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// OrLabelSelectors select the objects that match at least one of them.
	// +optional
	OrLabelSelectors []*metav1.LabelSelector `json:"orLabelSelectors,omitempty"`

	// FieldSelector selects objects by metadata.name and metadata.namespace ("metadata.namespace!=default,metadata.name=web"),
	// the fields that every resource has.
	// +optional
	FieldSelector string `json:"fieldSelector,omitempty"`
	// Expression is a CEL expression over the variable "object" that is true for the objects that take part:
	// "object.kind != 'Secret' || object.type != 'helm.sh/release.v1'".
	// +optional
	Expression string `json:"expression,omitempty"`
}
