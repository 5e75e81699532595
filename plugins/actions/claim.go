package actions

import (
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// bindAnnotations are the marks of a finished binding. They never come along, not even with the volume: a volume loses
// its claim's old uid, and a claim that says it is bound to a volume that does not know it is declared lost.
var bindAnnotations = []string{
	"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
	"volume.kubernetes.io/selected-node", "volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/storage-resizer",
}

// claim binds a claim to its volume by name where that volume is restored or there, and no other claim has it; else it asks for a new
// one.
func claim(opts Options) plugins.Action {
	return &rule{
		name: "PersistentVolumeClaim",
		matches: on("persistentvolumeclaims", `"volumeName"`, "pv.kubernetes.io/", "volume.kubernetes.io/",
			"volume.beta.kubernetes.io/", `"dataSource"`, `"dataSourceRef"`),
		apply: func(item *plugins.Item) plugins.Decision {
			tree.DropAnnotations(item.Object, bindAnnotations...)
			spec := tree.Map(item.Object, "spec")
			meta := tree.Map(item.Object, "metadata")
			name := tree.Text(spec, "volumeName")
			if called := opts.volumeName(name); called != name {
				spec["volumeName"] = called
				return goOn
			}
			taken := opts.takenBy(name, tree.Text(meta, "namespace"), tree.Text(meta, "name"))
			if taken == "" && opts.restored("", "persistentvolumes", "", name) {
				return goOn
			}
			delete(spec, "volumeName")
			if dropSource(opts, item, spec) {
				return goOn
			}
			switch {
			case name == "", tree.Has(spec, "dataSource"), tree.Has(spec, "dataSourceRef"):
			case taken != "":
				item.Remark(ReasonEmptyVolume, "its volume %s is that of the target's claim %s; the claim gets a new, empty one", name, taken)
			default:
				item.Remark(ReasonEmptyVolume, "its volume %s is not restored; the claim gets a new, empty one", name)
			}
			return goOn
		},
	}
}

// sourceResources are the groups of the kinds that a claim can be filled from, with their plural names.
var sourceResources = map[string][2]string{
	"VolumeSnapshot":        {"snapshot.storage.k8s.io", "volumesnapshots"},
	"PersistentVolumeClaim": {"", "persistentvolumeclaims"},
}

// dropSource drops where a claim was filled from if that is not restored: the claim would wait for it for ever. Sources
// of other kinds are kept, since their populators are not known here.
func dropSource(opts Options, item *plugins.Item, spec map[string]any) (dropped bool) {
	for _, key := range []string{"dataSource", "dataSourceRef"} {
		source := tree.Map(spec, key)
		resource, known := sourceResources[tree.Text(source, "kind")]
		if !known {
			continue
		}
		namespace := tree.Text(source, "namespace")
		if namespace == "" {
			namespace = tree.Text(tree.Map(item.Object, "metadata"), "namespace")
		}
		name := tree.Text(source, "name")
		if opts.restored(resource[0], resource[1], namespace, name) {
			continue
		}
		delete(spec, key)
		if !dropped {
			item.Remark(ReasonEmptyVolume, "neither its volume nor its %s %s/%s is restored; the claim gets a new, empty volume",
				strings.ToLower(tree.Text(source, "kind")), namespace, name)
		}
		dropped = true
	}
	return dropped
}
