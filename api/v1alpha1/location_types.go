package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BackupStorageLocationSpec says where backups are kept and how they are protected. Exactly one provider is set.
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
}

// S3Location is a bucket and how to reach it.
type S3Location struct {
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
	ServerSideEncryption string `json:"serverSideEncryption,omitempty"`
	// SSEKMSKeyID is the KMS key of "aws:kms".
	// +optional
	SSEKMSKeyID string `json:"sseKMSKeyID,omitempty"`
}

// FileLocation is a folder.
type FileLocation struct {
	Path string `json:"path"`
}

// +kubebuilder:object:root=true

// BackupStorageLocation is a place that holds backups.
type BackupStorageLocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BackupStorageLocationSpec `json:"spec,omitempty"`
}

// +kubebuilder:object:root=true

// BackupStorageLocationList is a list of locations.
type BackupStorageLocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupStorageLocation `json:"items"`
}
