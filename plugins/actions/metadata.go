package actions

import (
	"strings"

	"kedge.dev/kedge/internal/tree"
)

// ServerMetadata are the fields of metadata that a server writes and that no restore keeps. ownerReferences are not
// among them: they are relinked. Finalizers have their own rule, DropFinalizer.
var ServerMetadata = []string{
	"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "deletionTimestamp",
	"deletionGracePeriodSeconds", "managedFields", "clusterName",
}

// DropServerFields removes ServerMetadata, and the finalizers that DropFinalizer names, from an object. It does not touch
// status: that is dropped where the target keeps it as a subresource, and is the user's data where it does not.
func DropServerFields(obj map[string]any) {
	meta := tree.Map(obj, "metadata")
	tree.Drop(meta, ServerMetadata...)
	list, ok := meta["finalizers"].([]any)
	if !ok {
		return
	}
	kept := make([]any, 0, len(list))
	for _, f := range list {
		if name, ok := f.(string); !ok || !DropFinalizer(name) {
			kept = append(kept, f)
		}
	}
	if len(kept) == 0 {
		delete(meta, "finalizers")
		return
	}
	meta["finalizers"] = kept
}

// transient are finalizers that mark a deletion, or that the controller of that kind adds again to every object that it
// takes up. An object that carries one into a cluster where that controller does not run could never be deleted there.
var transient = map[string]bool{
	"foregroundDeletion": true,
	"orphan":             true,

	"kubernetes.io/pv-protection":                                           true,
	"kubernetes.io/pvc-protection":                                          true,
	"kubernetes.io/vac-protection":                                          true,
	"service.kubernetes.io/load-balancer-cleanup":                           true,
	"batch.kubernetes.io/job-tracking":                                      true,
	"customresourcecleanup.apiextensions.k8s.io":                            true,
	"resource.kubernetes.io/delete-protection":                              true,
	"networking.k8s.io/service-cidr-finalizer":                              true,
	"external-provisioner.volume.kubernetes.io/finalizer":                   true,
	"service.k8s.aws/resources":                                             true,
	"ingress.k8s.aws/resources":                                             true,
	"elbv2.k8s.aws/resources":                                               true,
	"networking.k8s.aws/resources":                                          true,
	"karpenter.sh/termination":                                              true,
	"snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection":    true,
	"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection":        true,
	"snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection": true,
	"snapshot.storage.kubernetes.io/pvc-as-source-protection":               true,
}

// DropFinalizer says whether a restore drops a finalizer: one that marks a deletion, or that its controller adds again.
// All others are kept, as users of Velero expect: they are part of what the user or an operator wrote.
func DropFinalizer(name string) bool {
	return transient[name] || strings.HasPrefix(name, "external-attacher/") || strings.HasPrefix(name, "group.ingress.k8s.aws/")
}

// neverRestored are resources that say something of the old cluster only.
var neverRestored = map[string]string{
	"nodes":                                            "nodes join a cluster by themselves",
	"events":                                           "events are records of the old cluster",
	"events.events.k8s.io":                             "events are records of the old cluster",
	"leases.coordination.k8s.io":                       "leases are held by running processes, which take them anew",
	"leasecandidates.coordination.k8s.io":              "candidates for leases are running processes, which stand anew",
	"csinodes.storage.k8s.io":                          "they belong to nodes, which join a cluster by themselves",
	"volumeattachments.storage.k8s.io":                 "volumes are attached anew when pods are scheduled",
	"csistoragecapacities.storage.k8s.io":              "CSI drivers publish them anew",
	"componentstatuses":                                "they are computed when asked for",
	"bindings":                                         "they are requests and never stored",
	"resourceslices.resource.k8s.io":                   "drivers publish the devices of the target's nodes",
	"podcertificaterequests.certificates.k8s.io":       "they are short-lived requests of nodes",
	"certificatesigningrequests.certificates.k8s.io":   "they are short-lived requests; whoever needs a certificate of the target asks for it there",
	"storageversions.internal.apiserver.k8s.io":        "API servers publish them anew",
	"storageversionmigrations.storagemigration.k8s.io": "every object is written anew in the target's storage version",
	"nodes.metrics.k8s.io":                             "they are measured when asked for",
	"pods.metrics.k8s.io":                              "they are measured when asked for",
	"nodeclaims.karpenter.sh":                          "they stand for machines of the old cluster; Karpenter asks for new ones",
	"cninodes.vpcresources.k8s.aws":                    "they belong to nodes, which join a cluster by themselves",
	"ciliumnodes.cilium.io":                            "they belong to nodes, which join a cluster by themselves",
	"ciliumendpoints.cilium.io":                        "the network plugin makes them anew for each pod",
	"policyendpoints.networking.k8s.aws":               "the network policy controller makes them anew",
}

// NeverRestored says whether objects of a resource, written as Ref.GroupResource does, are left out of every restore, and
// why. It needs no look at the object.
func NeverRestored(groupResource string) (reason string, never bool) {
	reason, never = neverRestored[groupResource]
	return reason, never
}
