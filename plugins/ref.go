// Package plugins defines the contracts between Kedge's engines and everything that can be exchanged: object stores,
// actions on items, and what names an object.
package plugins

import (
	"fmt"
	"strings"
)

// Ref names one Kubernetes object: which API it belongs to, and where it is. Namespace is empty for a cluster-scoped
// object, Group for the core API.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// GroupResource is "<resource>" for the core API and "<resource>.<group>" elsewhere, as kubectl writes it.
func (r Ref) GroupResource() string {
	if r.Group == "" {
		return r.Resource
	}
	return r.Resource + "." + r.Group
}

// APIVersion is the value of an object's apiVersion field: "v1", "apps/v1".
func (r Ref) APIVersion() string {
	if r.Group == "" {
		return r.Version
	}
	return r.Group + "/" + r.Version
}

// String is what messages and reports call the object: "deployments.apps shop/cart", "nodes ip-10-0-0-1".
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.GroupResource())
	b.WriteByte(' ')
	if r.Namespace != "" {
		b.WriteString(r.Namespace)
		b.WriteByte('/')
	}
	b.WriteString(r.Name)
	return b.String()
}

// SplitAPIVersion takes an apiVersion apart into group and version.
func SplitAPIVersion(apiVersion string) (group, version string, err error) {
	group, version, found := strings.Cut(apiVersion, "/")
	switch {
	case !found && group != "":
		return "", group, nil
	case found && group != "" && version != "" && !strings.Contains(version, "/"):
		return group, version, nil
	}
	return "", "", fmt.Errorf("apiVersion %q is neither \"version\" nor \"group/version\"", apiVersion)
}
