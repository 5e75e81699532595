package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VolumeMethod is how the data of a claim gets into a backup.
// +kubebuilder:validation:Enum=Snapshot;Copy;Both;Skip
type VolumeMethod string

// The methods.
const (
	// VolumeSnapshot leaves the data with its provider: an EBS snapshot, quick to make and to restore in its region.
	VolumeSnapshot VolumeMethod = "Snapshot"
	// VolumeCopy brings the data into the location: deduplicated, encrypted, restorable in any region and account.
	VolumeCopy VolumeMethod = "Copy"
	// VolumeBoth does both.
	VolumeBoth VolumeMethod = "Both"
	// VolumeSkip leaves the data out.
	VolumeSkip VolumeMethod = "Skip"
)

// Snapshots says whether the provider keeps a snapshot.
func (m VolumeMethod) Snapshots() bool { return m == VolumeSnapshot || m == VolumeBoth }

// Copies says whether the data is copied into the location.
func (m VolumeMethod) Copies() bool { return m == VolumeCopy || m == VolumeBoth }

// VolumeSelection says what a backup does with the data of the claims that it holds.
type VolumeSelection struct {
	// Method is for every claim that no policy is for. Skip where unset.
	// +optional
	Method VolumeMethod `json:"method,omitempty"`
	// Policies are tried in order; the first that a claim matches decides.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Policies []VolumePolicy `json:"policies,omitempty"`
	// SnapshotCopies are other regions and accounts that the snapshots which the backup keeps are copied to, once they are completed.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.region == b.region && (has(a.roleARN) ? a.roleARN : '') == (has(b.roleARN) ? b.roleARN : '')))",message="a region is named twice with the same role"
	SnapshotCopies []SnapshotCopy `json:"snapshotCopies,omitempty"`
}

// SnapshotCopy is a place that snapshots are copied to.
// +kubebuilder:validation:XValidation:rule="!has(self.externalID) || has(self.roleARN)",message="externalID goes with roleARN, which is not set"
// +kubebuilder:validation:XValidation:rule="!has(self.kmsKeyID) || !self.kmsKeyID.startsWith('arn:') || self.kmsKeyID.contains(':kms:' + self.region + ':')",message="kmsKeyID is a key of another region than region"
type SnapshotCopy struct {
	// Region takes the copies: "eu-central-1".
	// +kubebuilder:validation:Pattern=`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`
	// +kubebuilder:validation:MaxLength=32
	Region string `json:"region"`
	// RoleARN is a role of the account that takes the copies; it is assumed to make, see and delete them. Where unset they are in the snapshots' own account.
	// +optional
	// +kubebuilder:validation:Pattern=`^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$`
	// +kubebuilder:validation:MaxLength=256
	RoleARN string `json:"roleARN,omitempty"`
	// ExternalID goes with RoleARN.
	// +optional
	// +kubebuilder:validation:MaxLength=1224
	ExternalID string `json:"externalID,omitempty"`
	// KMSKeyID is the key that encrypts the copies, of their region: an ARN, an id, or "alias/…". Where unset copies of encrypted snapshots have the account's
	// default key of EBS there.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	KMSKeyID string `json:"kmsKeyID,omitempty"`
}

// Snapshots says whether it asks for snapshots, of whatever claims. Nil asks for none.
func (s *VolumeSelection) Snapshots() bool {
	if s == nil {
		return false
	}
	return s.Method.Snapshots() || slices.ContainsFunc(s.Policies, func(p VolumePolicy) bool { return p.Method.Snapshots() })
}

// Copies says whether it asks for copies, of whatever claims. Nil asks for none.
func (s *VolumeSelection) Copies() bool {
	if s == nil {
		return false
	}
	return s.Method.Copies() || slices.ContainsFunc(s.Policies, func(p VolumePolicy) bool { return p.Method.Copies() })
}

// VolumePolicy chooses the method of the claims that match all of its fields; a policy without any matches every claim.
type VolumePolicy struct {
	// Namespaces are names or globs.
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// StorageClasses are names or globs.
	// +optional
	StorageClasses []string `json:"storageClasses,omitempty"`
	// Drivers are names of CSI drivers, or of in-tree plugins ("kubernetes.io/aws-ebs"), or globs.
	// +optional
	Drivers []string `json:"drivers,omitempty"`
	// LabelSelector is for the labels of the claim.
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// MinSize and MaxSize bound the capacity of the volume; both are inclusive. That the one is not larger is checked when a backup begins: an API
	// server estimates a rule about quantities to cost more than it allows for a list.
	// +optional
	MinSize *resource.Quantity `json:"minSize,omitempty"`
	// +optional
	MaxSize *resource.Quantity `json:"maxSize,omitempty"`
	// Method is for the claims that match.
	Method VolumeMethod `json:"method"`
}

// VolumeRestore says what a restore does with the data of the claims that it brings.
// +kubebuilder:validation:Enum=FromBackup;Keep
type VolumeRestore string

// What a restore does with volumes.
const (
	// VolumesFromBackup gives each claim whose data the backup holds a new volume with that data.
	VolumesFromBackup VolumeRestore = "FromBackup"
	// VolumesKeep restores PersistentVolumes as they were archived: they name the volumes that the cluster had then.
	VolumesKeep VolumeRestore = "Keep"
)
