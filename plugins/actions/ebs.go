package actions

import (
	"fmt"
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// CSI drivers of EBS.
const (
	DefaultEBSDriver  = "ebs.csi.aws.com"
	AutoModeEBSDriver = "ebs.csi.eks.amazonaws.com"
)

const (
	inTreeEBS     = "kubernetes.io/aws-ebs"
	driverZone    = "topology.ebs.csi.aws.com/zone" // what the CSI driver labels nodes with beside the standard label
	standardZone  = "topology.kubernetes.io/zone"
	betaZone      = "failure-domain.beta.kubernetes.io/zone"
	betaRegion    = "failure-domain.beta.kubernetes.io/region"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

func ebsDriver(opts Options) string {
	if opts.EBSDriver == "" {
		return DefaultEBSDriver
	}
	return opts.EBSDriver
}

// zoneKey is the topology key of a driver's volumes. EKS Auto Mode's nodes have the standard one only.
func zoneKey(driver string) string {
	if driver == DefaultEBSDriver {
		return driverZone
	}
	return standardZone
}

// translateVolume turns an in-tree EBS volume into the driver's, and one CSI driver's into another's where asked.
func translateVolume(opts Options, item *plugins.Item, spec map[string]any) {
	driver := ebsDriver(opts)
	switch csi := tree.Map(spec, "csi"); {
	case tree.Has(spec, "awsElasticBlockStore"):
		if opts.keepsInTree() || !fromInTree(item, spec, driver) {
			return
		}
	case opts.EBSDriver != "" && isEBSDriver(tree.Text(csi, "driver")) && tree.Text(csi, "driver") != driver:
		item.Remark(ReasonChanged, "the CSI driver %s became %s", tree.Text(csi, "driver"), driver)
		csi["driver"] = driver
	default:
		return
	}
	if _, ok := tree.Annotation(item.Object, provisionedBy); ok {
		tree.SetAnnotation(item.Object, provisionedBy, driver) // who deletes the volume in the end
	}
	renameTopology(tree.In(spec, "nodeAffinity", "required"), zoneKey(driver))
}

func isEBSDriver(name string) bool { return name == DefaultEBSDriver || name == AutoModeEBSDriver }

// fromInTree follows the translation that Kubernetes' own CSI migration makes.
func fromInTree(item *plugins.Item, spec map[string]any, driver string) bool {
	source := tree.Map(spec, "awsElasticBlockStore")
	handle, ok := ebsVolumeID(tree.Text(source, "volumeID"))
	if !ok {
		item.Remark(ReasonChanged, "volume id %q is not one of EBS (vol-…); the volume stays an in-tree one", tree.Text(source, "volumeID"))
		return false
	}
	csi := map[string]any{"driver": driver, "volumeHandle": handle}
	for _, key := range []string{"fsType", "readOnly"} {
		if v, ok := source[key]; ok {
			csi[key] = v
		}
	}
	if partition, ok := source["partition"].(int64); ok && partition != 0 {
		csi["volumeAttributes"] = map[string]any{"partition": fmt.Sprint(partition)}
	}
	delete(spec, "awsElasticBlockStore")
	spec["csi"] = csi
	zoneOfLabels(item.Object, spec, zoneKey(driver))
	item.Remark(ReasonChanged, "the in-tree EBS volume became one of the CSI driver %s", driver)
	return true
}

// ebsVolumeID takes the forms aws://<zone>/<id>, aws:///<id> and <id>.
func ebsVolumeID(id string) (string, bool) {
	if rest, ok := strings.CutPrefix(id, "aws://"); ok {
		id = rest[strings.LastIndexByte(rest, '/')+1:]
	}
	return id, strings.HasPrefix(id, "vol-") && !strings.Contains(id, "/")
}

// zoneOfLabels makes a node affinity from the zone label, where a volume from before there were affinities has none.
func zoneOfLabels(obj, spec map[string]any, key string) {
	if !tree.Empty(tree.In(spec, "nodeAffinity", "required")["nodeSelectorTerms"]) {
		return
	}
	labels := tree.In(obj, "metadata", "labels")
	zone := tree.Text(labels, standardZone)
	if zone == "" {
		zone = tree.Text(labels, betaZone)
	}
	if zone == "" {
		return
	}
	// A volume of several zones is written a__b.
	var zones []any
	for z := range strings.SplitSeq(zone, "__") {
		zones = append(zones, z)
	}
	spec["nodeAffinity"] = map[string]any{"required": map[string]any{"nodeSelectorTerms": []any{
		map[string]any{"matchExpressions": []any{map[string]any{"key": key, "operator": "In", "values": zones}}},
	}}}
}

// renameTopology writes zones in a volume's node selector with the driver's key, and drops regions, which it knows not.
func renameTopology(required map[string]any, key string) {
	tree.Each(required, "nodeSelectorTerms", func(term map[string]any) {
		tree.Keep(term, "matchExpressions", func(e map[string]any) bool {
			return tree.Text(e, "key") != betaRegion
		})
		tree.Each(term, "matchExpressions", func(e map[string]any) {
			switch tree.Text(e, "key") {
			case betaZone, standardZone, driverZone:
				e["key"] = key
			}
		})
	})
}
