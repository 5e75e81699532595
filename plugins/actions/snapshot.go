package actions

import (
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

const snapshotGroup = "snapshot.storage.k8s.io"

// snapshot points a VolumeSnapshot at its restored content. One that names a claim as its source would take a new
// snapshot, of another time.
func snapshot(opts Options) plugins.Action {
	return &rule{
		name:    "VolumeSnapshot",
		matches: on("volumesnapshots." + snapshotGroup),
		apply: func(item *plugins.Item) plugins.Decision {
			spec, status := tree.Map(item.Object, "spec"), tree.Map(item.Object, "status")
			source := tree.Map(spec, "source")
			content := tree.Text(status, "boundVolumeSnapshotContentName")
			claimName := tree.Text(source, "persistentVolumeClaimName")
			switch {
			case claimName == "":
			case opts.restored(snapshotGroup, "volumesnapshotcontents", "", content):
				spec["source"] = map[string]any{"volumeSnapshotContentName": content}
			default:
				item.Remark(ReasonChanged, "its content %s is not restored: the target takes a new snapshot of claim %s", content, claimName)
			}
			tree.DropAnnotations(item.Object, "snapshot.storage.kubernetes.io/volumesnapshot-being-created")
			return goOn
		},
	}
}

// snapshotContent makes a content stand for the snapshot that there is, and keep it: the old cluster may still have a
// content of the same snapshot. One that was made for a snapshot of a given handle goes on as its user wrote it in the same cluster.
func snapshotContent(opts Options) plugins.Action {
	return &rule{
		name:    "VolumeSnapshotContent",
		matches: on("volumesnapshotcontents." + snapshotGroup),
		apply: func(item *plugins.Item) plugins.Decision {
			spec := tree.Map(item.Object, "spec")
			tree.Drop(tree.Map(spec, "volumeSnapshotRef"), "uid", "resourceVersion")
			tree.DropAnnotations(item.Object, "snapshot.storage.kubernetes.io/volumesnapshot-being-created", "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted")
			source := tree.Map(spec, "source")
			if tree.Text(source, "snapshotHandle") != "" {
				retain(opts, item, spec, "deletionPolicy", "snapshot")
				return goOn
			}
			handle := tree.Text(tree.Map(item.Object, "status"), "snapshotHandle")
			if handle == "" {
				return skip(ReasonChanged, "the snapshot had not been taken yet; the target would take one of a volume that it may not have")
			}
			spec["source"] = map[string]any{"snapshotHandle": handle}
			if tree.Text(spec, "deletionPolicy") == "Delete" {
				spec["deletionPolicy"] = "Retain"
				item.Remark(ReasonChanged, "deletionPolicy became Retain: the cluster that took the snapshot may still need it")
			}
			return goOn
		},
	}
}
