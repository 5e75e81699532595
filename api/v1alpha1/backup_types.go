package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ExcludeLabel keeps an object out of every backup where its value is "true".
const ExcludeLabel = "kedge.dev/exclude-from-backup"

// ArchiveUIDAnnotation marks a Backup object that shows an archive which was found in a location, by the archive's uid. The server makes no
// backup for such an object, and removes it when the archive is gone.
const ArchiveUIDAnnotation = "kedge.dev/archive-uid"

// BackupSpec says what a backup holds and where it goes.
// +kubebuilder:validation:XValidation:rule="!has(self.labelSelector) || !has(self.orLabelSelectors) || size(self.orLabelSelectors) == 0",message="labelSelector and orLabelSelectors exclude each other: put both into orLabelSelectors"
// +kubebuilder:validation:XValidation:rule="!(has(self.includedResources) || has(self.excludedResources) || has(self.includeClusterResources)) || !(has(self.includedClusterScopedResources) || has(self.excludedClusterScopedResources) || has(self.includedNamespaceScopedResources) || has(self.excludedNamespaceScopedResources))",message="includedResources, excludedResources and includeClusterResources cannot be combined with the fields that name resources of one scope"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="cancel cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.ttl) || duration(self.ttl) >= duration('0s')",message="ttl is negative"
type BackupSpec struct {
	// Selection says which objects the backup holds.
	Selection `json:",inline"`

	// StorageLocation names the BackupStorageLocation. Empty means the default one.
	// +optional
	StorageLocation string `json:"storageLocation,omitempty"`
	// TTL is how long the backup is kept. Zero keeps it until it is deleted.
	// +optional
	TTL metav1.Duration `json:"ttl,omitempty"`
	// Volumes says what is done with the data of the claims that the backup holds. Where unset, the backup has no data of volumes.
	// +optional
	Volumes *VolumeSelection `json:"volumes,omitempty"`
	// Hooks are commands that run in pods around the taking of their volumes' data. Annotations of a pod win over them.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Hooks []BackupHook `json:"hooks,omitempty"`
	// AlsoVersions are served versions that are archived beside the one that Kedge chooses, for targets that will not serve
	// that one: "ingresses.v1beta1.extensions", "*.v1beta1.*".
	// +optional
	AlsoVersions []string `json:"alsoVersions,omitempty"`

	// ServiceAccountName is the account, in the namespace of this object, as which the server reads the cluster. Empty means
	// the server's own, unless the server requires one.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Cancel stops the backup while it is being made; nothing of it stays. It cannot be taken back.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// Phase is where a backup or a restore stands.
// +kubebuilder:validation:Enum=Queued;InProgress;Completed;PartiallyFailed;Failed;Cancelled
type Phase string

// The phases. The last four are final; an object without a phase has not been looked at yet.
const (
	// PhaseQueued: accepted, and waiting for its turn.
	PhaseQueued     Phase = "Queued"
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

// Final says whether a phase is never left.
func (p Phase) Final() bool {
	switch p {
	case PhaseCompleted, PhasePartiallyFailed, PhaseFailed, PhaseCancelled:
		return true
	case PhaseQueued, PhaseInProgress:
	}
	return false
}

// Usable says whether there is a result that can be restored from.
func (p Phase) Usable() bool { return p == PhaseCompleted || p == PhasePartiallyFailed }

// Progress is how far a run is.
type Progress struct {
	// Stage is what is being done: "list", "write", or a step of a restore.
	Stage string `json:"stage,omitempty"`
	// Done of Total objects; Total is 0 while unknown.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"`
	// Bytes of JSON that were read or written.
	Bytes int64 `json:"bytes,omitempty"`
	// VolumesDone of Volumes are taken, of a backup that takes any.
	VolumesDone int `json:"volumesDone,omitempty"`
	Volumes     int `json:"volumes,omitempty"`
	// VolumeBytes of VolumeTotalBytes are read for copies of blocks; the second grows while the service lists what there is to copy.
	VolumeBytes      int64 `json:"volumeBytes,omitempty"`
	VolumeTotalBytes int64 `json:"volumeTotalBytes,omitempty"`
	// SnapshotCopiesDone of SnapshotCopies in other regions and accounts are made; all of them are SnapshotCopyPercent made, on average.
	SnapshotCopiesDone  int `json:"snapshotCopiesDone,omitempty"`
	SnapshotCopies      int `json:"snapshotCopies,omitempty"`
	SnapshotCopyPercent int `json:"snapshotCopyPercent,omitempty"`
}

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
	// Volumes is how many volumes' data is in the result.
	Volumes int `json:"volumes,omitempty"`
	// Snapshots is of how many of them the provider may keep a snapshot, for the backup or to compare the next copy with.
	Snapshots int `json:"snapshots,omitempty"`
	// ClusterSnapshots is how many of these are VolumeSnapshots of CSI drivers, which only the cluster that made them can delete.
	ClusterSnapshots int `json:"clusterSnapshots,omitempty"`
	// VolumeBytes is the size of these volumes.
	VolumeBytes int64 `json:"volumeBytes,omitempty"`
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

// BackupStatus says what became of a backup. Its condition is Ready: True where it can be restored from.
type BackupStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ArchiveUID identifies the backup in its location. It is the uid of the Backup object that it was made for, which is not
	// this object where this one was made from what the location holds.
	ArchiveUID string `json:"archiveUID,omitempty"`
	// StorageLocation is the location that holds the backup: the spec's, or the default one when the backup was begun.
	StorageLocation string `json:"storageLocation,omitempty"`
	// Schedule is the Schedule that made the backup, by that one's own account. The label kedge.dev/schedule, which anybody may write who may create a
	// Backup, goes into the archive only where it says the same.
	Schedule string `json:"schedule,omitempty"`
	// Attempts is how often a server began to make the backup; waiting for its turn is no attempt.
	Attempts int `json:"attempts,omitempty"`
	// Failures is how many of the attempts failed; one that ended with its server did not. After three the backup has failed.
	Failures int `json:"failures,omitempty"`
	// Stops is how many of the attempts were ended by a server that was stopped in order. The others, that did not fail, ended with their server.
	Stops int `json:"stops,omitempty"`
	// RefusedSince is since when the backup could not be begun; unset once it is queued, or tried again after an attempt.
	RefusedSince *metav1.Time `json:"refusedSince,omitempty"`
	// Progress is there while the backup is being made.
	Progress *Progress `json:"progress,omitempty"`
	// Held says that retention passes the backup over until the hold is ended.
	Held bool `json:"held,omitempty"`

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
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kb,categories=kedge
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Items",type=integer,JSONPath=`.status.counts.items`
// +kubebuilder:printcolumn:name="Errors",type=integer,JSONPath=`.status.counts.errors`
// +kubebuilder:printcolumn:name="Location",type=string,JSONPath=`.spec.storageLocation`
// +kubebuilder:printcolumn:name="Started",type=date,JSONPath=`.status.startTime`
// +kubebuilder:printcolumn:name="Expires",type=string,format=date-time,JSONPath=`.status.expiration`
// +kubebuilder:printcolumn:name="Cluster",type=string,priority=1,JSONPath=`.status.cluster.name`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`

// Backup is one point in time of a cluster, kept in a location.
type Backup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BackupSpec   `json:"spec,omitempty"`
	Status BackupStatus `json:"status,omitzero"`
}

// ArchiveUID is the uid of the archive that the object shows, or will become.
func (b *Backup) ArchiveUID() string {
	if uid := b.Annotations[ArchiveUIDAnnotation]; uid != "" {
		return uid
	}
	if b.Status.ArchiveUID != "" {
		return b.Status.ArchiveUID
	}
	return string(b.UID)
}

// +kubebuilder:object:root=true

// BackupList is a list of backups.
type BackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Backup `json:"items"`
}
