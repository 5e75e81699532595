package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ExcludeLabel keeps an object out of every backup where its value is "true".
const ExcludeLabel = "kedge.dev/exclude-from-backup"

// BackupSpec says what a backup holds and where it goes.
type BackupSpec struct {
	// Selection says which objects the backup holds.
	Selection `json:",inline"`

	// StorageLocation names the BackupStorageLocation. Empty means the default one.
	// +optional
	StorageLocation string `json:"storageLocation,omitempty"`
	// TTL is how long the backup is kept. Zero keeps it until it is deleted.
	// +optional
	TTL metav1.Duration `json:"ttl,omitempty"`
	// AlsoVersions are served versions that are archived beside the one that Kedge chooses, for targets that will not serve
	// that one: "ingresses.v1beta1.extensions", "*.v1beta1.*".
	// +optional
	AlsoVersions []string `json:"alsoVersions,omitempty"`
}

// Phase is where a backup or a restore stands.
type Phase string

// The phases. The last four are final.
const (
	PhaseInProgress Phase = "InProgress"
	// PhaseCompleted: every selected object is in the result.
	PhaseCompleted Phase = "Completed"
	// PhasePartiallyFailed: the result holds what it could; each object that it could not take is named in the report.
	PhasePartiallyFailed Phase = "PartiallyFailed"
	// PhaseFailed: there is no usable result.
	PhaseFailed Phase = "Failed"
	// PhaseCancelled: a person stopped it; the report says what was done until then.
	PhaseCancelled Phase = "Cancelled"
)

// Counts sum up a result; they come from counted outcomes, never from log lines.
type Counts struct {
	// Items is how many objects are in the result.
	Items int `json:"items"`
	// Bytes is their size as JSON.
	Bytes int64 `json:"bytes"`
	// Skipped is how many were left out by a rule that the report names.
	Skipped int `json:"skipped,omitempty"`
	// Warnings is how many remarks the report holds that need no action.
	Warnings int `json:"warnings,omitempty"`
	// Errors is how many objects or resources could not be taken.
	Errors int `json:"errors,omitempty"`
}

// ClusterInfo identifies a cluster.
type ClusterInfo struct {
	// UID is the uid of the cluster's kube-system namespace.
	UID string `json:"uid"`
	// Name is what the kubeconfig or the installer calls it; for people.
	Name string `json:"name,omitempty"`
	// Version is the API server's gitVersion: "v1.36.3".
	Version string `json:"version"`
}

// BackupStatus says what became of a backup.
type BackupStatus struct {
	Phase   Phase        `json:"phase,omitempty"`
	Message string       `json:"message,omitempty"`
	Cluster *ClusterInfo `json:"cluster,omitempty"`
	Counts  Counts       `json:"counts,omitempty"`
	// Revision is the resourceVersion at which every object was read.
	Revision       string       `json:"revision,omitempty"`
	StartTime      *metav1.Time `json:"startTime,omitempty"`
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Expiration is when retention may remove the backup; unset means never.
	Expiration *metav1.Time `json:"expiration,omitempty"`
	// StoredBytes is the size of the archive in the bucket.
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// Signed says whether the commit record carries a signature.
	Signed bool `json:"signed,omitempty"`
}

// +kubebuilder:object:root=true

// Backup is one point in time of a cluster, kept in a location.
type Backup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BackupSpec   `json:"spec,omitempty"`
	Status BackupStatus `json:"status,omitempty"`
}

// +kubebuilder:object:root=true

// BackupList is a list of backups.
type BackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Backup `json:"items"`
}
