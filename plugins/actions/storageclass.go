package actions

import (
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// storageClass turns the in-tree provisioner of EBS into the CSI driver, with the same type of volume, and one CSI driver
// of EBS into another where asked.
func storageClass(opts Options) plugins.Action {
	return &rule{
		name:    "StorageClass",
		matches: on("storageclasses.storage.k8s.io", inTreeEBS, DefaultEBSDriver, AutoModeEBSDriver),
		apply: func(item *plugins.Item) plugins.Decision {
			driver, old := ebsDriver(opts), tree.Text(item.Object, "provisioner")
			switch {
			case old == inTreeEBS && !opts.keepsInTree():
				item.Object["provisioner"] = driver
				inTreeParameters(item, zoneKey(driver))
			case opts.EBSDriver != "" && isEBSDriver(old) && old != driver:
				item.Object["provisioner"] = driver
			default:
				return goOn
			}
			tree.Each(item.Object, "allowedTopologies", func(term map[string]any) {
				tree.Each(term, "matchLabelExpressions", func(e map[string]any) {
					switch tree.Text(e, "key") {
					case betaZone, standardZone, driverZone:
						e["key"] = zoneKey(driver)
					}
				})
			})
			item.Remark(ReasonChanged, "the provisioner %s became %s", old, driver)
			return goOn
		},
	}
}

// inTreeParameters writes the parameters of kubernetes.io/aws-ebs as the CSI driver takes them.
func inTreeParameters(item *plugins.Item, key string) {
	parameters := map[string]any{}
	var zones []any
	for name, v := range tree.Map(item.Object, "parameters") {
		value, _ := v.(string)
		switch strings.ToLower(name) {
		case "fstype":
			parameters["csi.storage.k8s.io/fstype"] = value
		case "zone", "zones":
			for z := range strings.SplitSeq(value, ",") {
				zones = append(zones, strings.TrimSpace(z))
			}
		case "iopspergb":
			parameters[name] = value
			parameters["allowautoiopspergbincrease"] = "true" // as the in-tree provisioner did
		default:
			parameters[name] = value
		}
	}
	if _, ok := parameters["type"]; !ok {
		parameters["type"] = "gp2" // the in-tree default; the driver's is gp3
	}
	item.Object["parameters"] = parameters
	if len(zones) > 0 && tree.Empty(item.Object["allowedTopologies"]) {
		item.Object["allowedTopologies"] = []any{map[string]any{"matchLabelExpressions": []any{map[string]any{"key": key, "values": zones}}}}
	}
}
