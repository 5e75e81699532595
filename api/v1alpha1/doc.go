// Package v1alpha1 holds the kinds of the kedge.dev/v1alpha1 API: what a user asks for and what Kedge answers.
//
// +kubebuilder:object:generate=true
// +groupName=kedge.dev
package v1alpha1

import "k8s.io/apimachinery/pkg/runtime/schema"

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "kedge.dev", Version: "v1alpha1"}
