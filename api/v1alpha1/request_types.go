package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RequestPhase is where a request stands.
// +kubebuilder:validation:Enum=InProgress;Waiting;Done;Failed
type RequestPhase string

// The phases of a request. The last two are final.
const (
	RequestInProgress RequestPhase = "InProgress"
	// RequestWaiting: it will be done when something outside has ended; the message says what.
	RequestWaiting RequestPhase = "Waiting"
	RequestDone    RequestPhase = "Done"
	RequestFailed  RequestPhase = "Failed"
)

// DeleteBackupRequestSpec says which backup is deleted.
type DeleteBackupRequestSpec struct {
	// BackupName names the Backup object.
	BackupName string `json:"backupName"`
	// BackupUID is the archive's uid (status.archiveUID): a name alone could come to stand for another backup.
	BackupUID string `json:"backupUID"`
	// Force deletes also what is held, or cannot be read, and leaves snapshots that another cluster keeps, or a place that refuses access.
	// +optional
	Force bool `json:"force,omitempty"`
}

// DeleteBackupRequestStatus says what became of a deletion.
type DeleteBackupRequestStatus struct {
	Phase   RequestPhase `json:"phase,omitempty"`
	Message string       `json:"message,omitempty"`
	// StartTime is when the deletion was begun. From then on it is carried through.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// CompletionTime is when it ended; the request is removed an hour later.
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=kedge
// +kubebuilder:printcolumn:name="Backup",type=string,JSONPath=`.spec.backupName`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`

// DeleteBackupRequest asks the server to delete a backup with all its data. Deleting a Backup object alone deletes no data.
type DeleteBackupRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DeleteBackupRequestSpec   `json:"spec"`
	Status DeleteBackupRequestStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// DeleteBackupRequestList is a list of deletion requests.
type DeleteBackupRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DeleteBackupRequest `json:"items"`
}

// DownloadTarget is what a DownloadRequest asks for.
// +kubebuilder:validation:Enum=BackupLog;BackupReport;BackupItems;BackupItem;BackupVolumes;BackupVerify;RestoreLog;RestoreReport
type DownloadTarget string

// The targets of a download.
const (
	// DownloadBackupLog is the log of a backup, JSON lines.
	DownloadBackupLog DownloadTarget = "BackupLog"
	// DownloadBackupReport is the report of a backup, JSON.
	DownloadBackupReport DownloadTarget = "BackupReport"
	// DownloadBackupItems are the rows of the objects in a backup that the selection matches, JSON lines, without their contents.
	DownloadBackupItems DownloadTarget = "BackupItems"
	// DownloadBackupItem is one object of a backup, JSON.
	DownloadBackupItem DownloadTarget = "BackupItem"
	// DownloadBackupVolumes says where the data of a backup's volumes is, JSON lines.
	DownloadBackupVolumes DownloadTarget = "BackupVolumes"
	// DownloadBackupVerify is the result of a verification, JSON; it is begun by the request.
	DownloadBackupVerify DownloadTarget = "BackupVerify"
	// DownloadRestoreLog is the log of a restore, JSON lines.
	DownloadRestoreLog DownloadTarget = "RestoreLog"
	// DownloadRestoreReport is the report of a restore, JSON.
	DownloadRestoreReport DownloadTarget = "RestoreReport"
)

// DownloadRequestSpec says what is asked for, and who shall be able to read the answer.
// +kubebuilder:validation:XValidation:rule="(self.target == 'BackupItem') == has(self.item)",message="item names the object of target BackupItem, and of no other"
// +kubebuilder:validation:XValidation:rule="!has(self.selection) || self.target == 'BackupItems'",message="selection is for target BackupItems"
type DownloadRequestSpec struct {
	Target DownloadTarget `json:"target"`
	// +kubebuilder:validation:MinLength=1
	// Name is the Backup's or the Restore's.
	Name string `json:"name"`
	// Recipient ("age1…") is what the answer is encrypted to: whoever may read requests, or etcd, learns nothing from it.
	// +kubebuilder:validation:Pattern=`^age1[02-9ac-hj-np-z]{58}$`
	Recipient string `json:"recipient"`
	// Offset is where in the answer, in bytes before compression, to begin; an answer that is too large for one request is had in several.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Offset int64 `json:"offset,omitempty"`
	// Selection says which objects BackupItems lists.
	// +optional
	Selection *Selection `json:"selection,omitempty"`
	// Item is the object that BackupItem shows.
	// +optional
	Item *ItemReference `json:"item,omitempty"`
	// Deep has BackupVerify check every byte.
	// +optional
	Deep bool `json:"deep,omitempty"`
}

// ItemReference names one archived object.
type ItemReference struct {
	// +optional
	Group string `json:"group,omitempty"`
	// Version may be empty where the backup holds only one.
	// +optional
	Version  string `json:"version,omitempty"`
	Resource string `json:"resource"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// DownloadRequestStatus is the answer.
type DownloadRequestStatus struct {
	Phase   RequestPhase `json:"phase,omitempty"`
	Message string       `json:"message,omitempty"`
	// Data is a part of the answer: zstd, in age encryption to the recipient.
	Data []byte `json:"data,omitempty"`
	// NextOffset is where the rest begins; unset where this is the end.
	NextOffset *int64 `json:"nextOffset,omitempty"`
	// CompletionTime is when it ended; the request is removed some minutes later.
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=kedge
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.target`
// +kubebuilder:printcolumn:name="Name",type=string,JSONPath=`.spec.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`

// DownloadRequest asks the server for something that a location holds. Whoever may create one in Kedge's namespace may read every
// backup that the server can open.
type DownloadRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DownloadRequestSpec   `json:"spec"`
	Status DownloadRequestStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// DownloadRequestList is a list of download requests.
type DownloadRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DownloadRequest `json:"items"`
}
