package actions

import (
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// volume lets a volume wait for the claim of its name, without the old claim's uid, keeps what it stands for from another cluster, and
// turns in-tree EBS volumes into those of the CSI driver.
func volume(opts Options) plugins.Action {
	return &rule{
		name:    "PersistentVolume",
		matches: on("persistentvolumes"),
		apply: func(item *plugins.Item) plugins.Decision {
			spec := tree.Map(item.Object, "spec")
			phase := tree.Text(tree.Map(item.Object, "status"), "phase")
			released := phase == "Released" || phase == "Failed"
			if released && tree.Text(spec, "persistentVolumeReclaimPolicy") == "Delete" {
				return skip(ReasonBeingDeleted, "its claim was deleted and so was it about to be (%s, reclaim policy Delete); restored, it would be deleted in the target with its data", phase)
			}
			tree.DropAnnotations(item.Object, "pv.kubernetes.io/bound-by-controller", "pv.kubernetes.io/migrated-to")
			if released {
				// Its claim is gone. With the old uid it stays released; without, a new claim of that name would get its data.
				item.Remark(ReasonChanged, "its claim was deleted before the backup; it stays released, as it was, until its claimRef is removed")
			} else {
				tree.Drop(tree.Map(spec, "claimRef"), "uid", "resourceVersion")
			}
			if opts.MadeNew == nil || !opts.MadeNew(item.Ref.Name) {
				retain(opts, item, spec, "persistentVolumeReclaimPolicy", "volume")
			}
			translateVolume(opts, item, spec)
			return goOn
		},
	}
}

// retain sees to it that two clusters that share a volume or a snapshot do not delete it for each other: the source may still need it.
// A policy other than Delete and Retain is Recycle, which deletes what is in the volume.
func retain(opts Options, item *plugins.Item, spec map[string]any, field, what string) {
	if old := tree.Text(spec, field); opts.OtherCluster && old != "" && old != "Retain" {
		spec[field] = "Retain"
		item.Remark(ReasonChanged, "%s %s became Retain: it is the %s of the cluster that was backed up, which may still need it", field, old, what)
	}
}
