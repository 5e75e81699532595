package restore

import "k8s.io/apimachinery/pkg/util/version"

// inTreeEBSEnd is the version whose servers no longer have code for EBS: its volumes are the CSI driver's alone.
var inTreeEBSEnd = version.MustParseGeneric("1.27.0")

// sameEBS says whether both clusters treat in-tree EBS volumes and classes alike. Where a version cannot be read they do not.
func sameEBS(source, target string) bool {
	from, err := version.ParseGeneric(source)
	if err != nil {
		return false
	}
	to, err := version.ParseGeneric(target)
	if err != nil {
		return false
	}
	return from.AtLeast(inTreeEBSEnd) == to.AtLeast(inTreeEBSEnd)
}
