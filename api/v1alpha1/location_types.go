package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BackupStorageLocationSpec says where backups are kept and how they are protected. Exactly one provider is set.
// +kubebuilder:validation:XValidation:rule="has(self.s3) != has(self.file)",message="exactly one of s3 and file must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.objectLock) || !self.objectLock || has(self.s3)",message="objectLock needs a bucket: a folder cannot retain objects"
// +kubebuilder:validation:XValidation:rule="!has(self.syncPeriod) || duration(self.syncPeriod) >= duration('1s')",message="syncPeriod is shorter than a second"
type BackupStorageLocationSpec struct {
	// S3 keeps backups in a bucket of Amazon S3 or of anything that speaks its API.
	// +optional
	S3 *S3Location `json:"s3,omitempty"`
	// File keeps backups in a folder.
	// +optional
	File *FileLocation `json:"file,omitempty"`

	// ReadOnly refuses every write: restores only.
	// +optional
	ReadOnly bool `json:"readOnly,omitempty"`
	// Default makes this the location of backups and restores that name none.
	// +optional
	Default bool `json:"default,omitempty"`
	// PublicKey ("age1…") is what backups are encrypted to. It is pinned here so that who writes the bucket cannot replace it.
	// +optional
	// +kubebuilder:validation:Pattern=`^age1[02-9ac-hj-np-z]{58}$`
	PublicKey string `json:"publicKey,omitempty"`
	// KMSKeyID names the AWS KMS key, if one wraps the location's private key.
	// +optional
	KMSKeyID string `json:"kmsKeyID,omitempty"`
	// TrustedKeys are Ed25519 public keys in PEM (SPKI) whose signatures on backups are accepted.
	// +optional
	TrustedKeys []string `json:"trustedKeys,omitempty"`
	// ObjectLock asks the bucket to retain each object of a backup until the backup expires.
	// +optional
	ObjectLock bool `json:"objectLock,omitempty"`

	// AgeRecipients ("age1…") are who opens the location, beside the KMS key, when the server makes an empty bucket a location.
	// +optional
	AgeRecipients []string `json:"ageRecipients,omitempty"`
	// AgeIdentitySecret names the Secret, beside this object, with the age identity that the server opens backups with. Backups
	// are written without it; restores, and what the command line shows of a backup through the server, need it or the KMS key.
	// +optional
	AgeIdentitySecret *SecretKeyReference `json:"ageIdentitySecret,omitempty"`
	// SigningKeySecret names the Secret with an Ed25519 private key (PKCS #8 PEM) that signs the backups which the server makes.
	// +optional
	SigningKeySecret *SecretKeyReference `json:"signingKeySecret,omitempty"`
	// SyncPeriod is how often the server looks for backups that others have written or deleted. Unset means a minute.
	// +optional
	SyncPeriod *metav1.Duration `json:"syncPeriod,omitempty"`
}

// SecretKeyReference names one key of a Secret in the same namespace.
type SecretKeyReference struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// +kubebuilder:validation:MinLength=1
	Key string `json:"key"`
}

// BackupStorageLocationStatus says what the server knows of a location. Its conditions are Ready (the bucket answers, has Kedge's
// layout and the pinned key), Synced (its backups are shown as Backup objects), Retained (what retention asks for is done) and, where it
// has copies of volumes, Maintained (their repository is tidied up).
type BackupStorageLocationStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase sums the conditions up.
	Phase LocationPhase `json:"phase,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// URL is where the backups are, for people: "s3://bucket/prefix".
	URL string `json:"url,omitempty"`
	// PublicKey is the bucket's; it is what spec.publicKey should pin.
	PublicKey string `json:"publicKey,omitempty"`
	// ID is the location's uuid, made with it.
	ID string `json:"id,omitempty"`
	// LastValidationTime is when the bucket last answered.
	LastValidationTime *metav1.Time `json:"lastValidationTime,omitempty"`
	// LastSyncTime is when the bucket was last listed to its end.
	LastSyncTime *metav1.Time `json:"lastSyncTime,omitempty"`
	// Backups is how many the location holds, of all clusters.
	Backups int `json:"backups,omitempty"`
}

// LocationPhase is where a location stands.
// +kubebuilder:validation:Enum=Available;Unavailable
type LocationPhase string

// The phases of a location.
const (
	LocationAvailable   LocationPhase = "Available"
	LocationUnavailable LocationPhase = "Unavailable"
)

// S3Location is a bucket and how to reach it.
// +kubebuilder:validation:XValidation:rule="!has(self.externalID) || has(self.roleARN)",message="externalID goes with roleARN, which is not set"
// +kubebuilder:validation:XValidation:rule="!has(self.credentialsFile) || !has(self.credentialsSecret)",message="credentialsFile and credentialsSecret exclude each other"
// +kubebuilder:validation:XValidation:rule="!has(self.sseKMSKeyID) || (has(self.serverSideEncryption) && self.serverSideEncryption.startsWith('aws:kms'))",message="sseKMSKeyID goes with serverSideEncryption aws:kms"
type S3Location struct {
	// +kubebuilder:validation:MinLength=1
	Bucket string `json:"bucket"`
	// Prefix is a folder within the bucket, without leading or trailing slash.
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// Region is the bucket's; empty means the SDK's default chain.
	// +optional
	Region string `json:"region,omitempty"`
	// Endpoint is the URL of another service than Amazon's.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// PathStyle addresses the bucket in the path and not in the host name.
	// +optional
	PathStyle bool `json:"pathStyle,omitempty"`
	// CABundle holds certificates in PEM that are trusted beside the system's.
	// +optional
	CABundle string `json:"caBundle,omitempty"`
	// CredentialsFile is an AWS shared credentials file; empty means the SDK's default chain.
	// +optional
	CredentialsFile string `json:"credentialsFile,omitempty"`
	// CredentialsSecret names the Secret, beside this object, with an AWS shared credentials file. Only a server reads it.
	// +optional
	CredentialsSecret *SecretKeyReference `json:"credentialsSecret,omitempty"`
	// Profile is a profile of the shared configuration.
	// +optional
	Profile string `json:"profile,omitempty"`
	// RoleARN is assumed with the credentials found.
	// +optional
	RoleARN string `json:"roleARN,omitempty"`
	// ExternalID goes with RoleARN.
	// +optional
	ExternalID string `json:"externalID,omitempty"`
	// ServerSideEncryption is "AES256" (SSE-S3) or "aws:kms" (SSE-KMS); empty leaves it to the bucket.
	// +optional
	// +kubebuilder:validation:Enum=AES256;"aws:kms"
	ServerSideEncryption string `json:"serverSideEncryption,omitempty"`
	// SSEKMSKeyID is the KMS key of "aws:kms".
	// +optional
	SSEKMSKeyID string `json:"sseKMSKeyID,omitempty"`
}

// FileLocation is a folder.
type FileLocation struct {
	// Path is absolute.
	// +kubebuilder:validation:Pattern=`^/`
	Path string `json:"path"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=bsl,categories=kedge
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`
// +kubebuilder:printcolumn:name="Backups",type=integer,JSONPath=`.status.backups`
// +kubebuilder:printcolumn:name="Synced",type=date,JSONPath=`.status.lastSyncTime`
// +kubebuilder:printcolumn:name="Default",type=boolean,JSONPath=`.spec.default`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// BackupStorageLocation is a place that holds backups.
type BackupStorageLocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BackupStorageLocationSpec   `json:"spec,omitempty"`
	Status BackupStorageLocationStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// BackupStorageLocationList is a list of locations.
type BackupStorageLocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupStorageLocation `json:"items"`
}
