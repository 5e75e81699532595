// Package deploy holds what is installed in a cluster: the definitions of Kedge's kinds.
package deploy

import "embed"

// CRDs are the CustomResourceDefinitions, one file for each kind, below "crds".
//
//go:embed crds/*.yaml
var CRDs embed.FS
