package convert

import "k8s.io/apimachinery/pkg/runtime/schema"

const (
	notStored = "it is a request to the API server and is never stored; there is nothing to restore"
	remade    = "the cluster makes such objects by itself; there is nothing to restore"
)

// removedKinds are kinds without a successor in any version.
var removedKinds = map[schema.GroupKind]string{
	{Group: "policy", Kind: "PodSecurityPolicy"}:     podSecurity,
	{Group: "extensions", Kind: "PodSecurityPolicy"}: podSecurity,

	{Group: "settings.k8s.io", Kind: "PodPreset"}: "PodPreset was removed in Kubernetes 1.20; use a MutatingAdmissionPolicy or a mutating webhook to add fields to pods",

	{Group: "extensions", Kind: "ThirdPartyResource"}: "ThirdPartyResource was removed in Kubernetes 1.8; define the kind with a CustomResourceDefinition",

	{Group: "auditregistration.k8s.io", Kind: "AuditSink"}:                              "AuditSink was removed in Kubernetes 1.19; the control plane's audit logs are configured outside the API (on EKS: control plane logging)",
	{Group: "admissionregistration.k8s.io", Kind: "InitializerConfiguration"}:           "initializers were removed in Kubernetes 1.14; use a MutatingWebhookConfiguration",
	{Group: "admissionregistration.k8s.io", Kind: "ExternalAdmissionHookConfiguration"}: "it was replaced in Kubernetes 1.9 by another kind; write a ValidatingWebhookConfiguration",

	{Group: "batch", Kind: "ScheduledJob"}:            "ScheduledJob was replaced in Kubernetes 1.8 by another kind; write a CronJob",
	{Group: "networking.k8s.io", Kind: "ClusterCIDR"}: "ClusterCIDR was removed in Kubernetes 1.29; the ranges of pods are configured in the cloud provider or the CNI plugin",

	{Group: "resource.k8s.io", Kind: "ResourceClass"}:                   classicDevices,
	{Group: "resource.k8s.io", Kind: "ResourceClassParameters"}:         classicDevices,
	{Group: "resource.k8s.io", Kind: "ResourceClaimParameters"}:         classicDevices,
	{Group: "resource.k8s.io", Kind: "PodScheduling"}:                   remade,
	{Group: "resource.k8s.io", Kind: "PodSchedulingContext"}:            remade,
	{Group: "resource.k8s.io", Kind: "ResourcePoolStatusRequest"}:       notStored,
	{Group: "storagemigration.k8s.io", Kind: "StorageVersionMigration"}: "it asks the old cluster to rewrite what it stores; a restore writes every object anew in the target's storage version",
	{Group: "internal.apiserver.k8s.io", Kind: "StorageVersion"}:        remade,

	{Group: "apps", Kind: "DeploymentRollback"}:       notStored,
	{Group: "extensions", Kind: "DeploymentRollback"}: notStored,
	{Group: "apps", Kind: "Scale"}:                    notStored,
	{Group: "extensions", Kind: "Scale"}:              notStored,
	{Group: "autoscaling", Kind: "Scale"}:             notStored,
	{Group: "policy", Kind: "Eviction"}:               notStored,
	{Group: "batch", Kind: "JobTemplate"}:             notStored,

	{Group: "authentication.k8s.io", Kind: "TokenReview"}:             notStored,
	{Group: "authentication.k8s.io", Kind: "SelfSubjectReview"}:       notStored,
	{Group: "authorization.k8s.io", Kind: "SubjectAccessReview"}:      notStored,
	{Group: "authorization.k8s.io", Kind: "SelfSubjectAccessReview"}:  notStored,
	{Group: "authorization.k8s.io", Kind: "SelfSubjectRulesReview"}:   notStored,
	{Group: "authorization.k8s.io", Kind: "LocalSubjectAccessReview"}: notStored,
	{Group: "imagepolicy.k8s.io", Kind: "ImageReview"}:                notStored,
	{Group: "admission.k8s.io", Kind: "AdmissionReview"}:              notStored,
}

// removedVersions are kinds that live on, but not in a shape that this version can be turned into.
var removedVersions = map[schema.GroupVersionKind]string{
	{Group: "resource.k8s.io", Version: "v1alpha1", Kind: "ResourceClaim"}:         classicDevices,
	{Group: "resource.k8s.io", Version: "v1alpha1", Kind: "ResourceClaimTemplate"}: classicDevices,
	{Group: "resource.k8s.io", Version: "v1alpha2", Kind: "ResourceClaim"}:         classicDevices,
	{Group: "resource.k8s.io", Version: "v1alpha2", Kind: "ResourceClaimTemplate"}: classicDevices,
	{Group: "resource.k8s.io", Version: "v1alpha2", Kind: "ResourceSlice"}:         remade,
	{Group: "resource.k8s.io", Version: "v1alpha3", Kind: "ResourceSlice"}:         remade,

	{Group: "discovery.k8s.io", Version: "v1alpha1", Kind: "EndpointSlice"}:            remade,
	{Group: "coordination.k8s.io", Version: "v1alpha1", Kind: "LeaseCandidate"}:        remade,
	{Group: "coordination.k8s.io", Version: "v1alpha2", Kind: "LeaseCandidate"}:        remade,
	{Group: "certificates.k8s.io", Version: "v1alpha1", Kind: "PodCertificateRequest"}: remade,

	{Group: "snapshot.storage.k8s.io", Version: "v1alpha1", Kind: "VolumeSnapshot"}:        oldSnapshots,
	{Group: "snapshot.storage.k8s.io", Version: "v1alpha1", Kind: "VolumeSnapshotClass"}:   oldSnapshots,
	{Group: "snapshot.storage.k8s.io", Version: "v1alpha1", Kind: "VolumeSnapshotContent"}: oldSnapshots,
}

const podSecurity = "PodSecurityPolicy was removed in Kubernetes 1.25; label namespaces for Pod Security admission " +
	"(pod-security.kubernetes.io/enforce: privileged, baseline or restricted), or write a ValidatingAdmissionPolicy for what the levels do not say; " +
	"roles that allow \"use\" of podsecuritypolicies have no effect any more"

const classicDevices = "dynamic resource allocation of Kubernetes 1.26 to 1.30 left its parameters to each driver; " +
	"install a current driver in the target and write its DeviceClass and ResourceClaims"

const oldSnapshots = "snapshot.storage.k8s.io/v1alpha1 names volumes and snapshots in another shape; import the snapshot " +
	"with a VolumeSnapshotContent of v1 that names its handle"
