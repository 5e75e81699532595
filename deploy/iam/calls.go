// Package iam knows which AWS rights Kedge needs, call by call, and writes them as an IAM policy for one location. Tests hold its table
// against the calls in the source, and against those that reach a bucket.
package iam

// Scope is what a right is granted on.
type Scope int

// The scopes.
const (
	Bucket         Scope = iota // the bucket itself
	Object                      // what is below the location's prefix
	BucketKey                   // the KMS key of the bucket's own encryption
	LocationKey                 // the KMS key that wraps the location's private key
	Account                     // what EC2 describes
	AnyVolume                   // volumes of which snapshots are taken
	AnyInstance                 // machines of whose volumes snapshots are taken
	AnySnapshot                 // snapshots of which volumes are made; other accounts may share them, without tags
	NewSnapshot                 // snapshots that are being made, with our tag
	NewVolume                   // volumes that are being made, with our tag
	TagSnapshot                 // the tags of snapshots that are being made
	TagVolume                   // the tags of volumes that are being made
	OwnSnapshot                 // snapshots with our tag
	OwnVolume                   // volumes with our tag
	FileSystem                  // file systems, whose access points are looked up
	AccessPoint                 // access points that are looked up
	NewAccessPoint              // file systems that get an access point, with our tag
	TagAccessPoint              // the tags of access points that are being made
	VolumeKey                   // the KMS key of volumes
	VolumeGrant                 // grants on it that are for EC2 alone
	TagCopy                     // the tags of copies of snapshots that are being made
	CopyKey                     // the KMS keys of copies of snapshots
	CopyGrant                   // grants on these that are for EC2 alone
	CopyRole                    // the roles of the accounts that copies of snapshots go to
)

// When says for which locations a right is needed.
type When int

// The cases.
const (
	Always        When = iota
	Versions           // the bucket keeps versions
	Lock               // the location uses object lock, which brings versions with it
	Snapshots          // the data of volumes is taken, as snapshots or copies
	Copies             // the data of volumes is copied
	OtherRegions       // snapshots are copied to other regions of the account
	OtherAccounts      // snapshots are copied to other accounts
)

// Right is an IAM action on a scope.
type Right struct {
	Action string
	Scope  Scope
	When   When
	// Write: a location that is only restored from does without it.
	Write bool
}

// Call is an operation of the AWS SDK that Kedge uses, and what it takes.
type Call struct {
	// Name is the SDK's: "PutObject"; those of other services are "kms Encrypt", "ec2 CreateVolume", "ebs StartSnapshot", "efs CreateAccessPoint".
	Name   string
	For    string
	Rights []Right
}

// The rights that several calls need.
var (
	getObject        = Right{"s3:GetObject", Object, Always, false}
	getObjectVersion = Right{"s3:GetObjectVersion", Object, Versions, false}
	putObject        = Right{"s3:PutObject", Object, Always, true}
	putRetention     = Right{"s3:PutObjectRetention", Object, Lock, true}
	dataKey          = Right{"kms:GenerateDataKey", BucketKey, Always, true}
	openDataKey      = Right{"kms:Decrypt", BucketKey, Always, false}
)

// Calls is the table: every call of plugins/s3 and plugins/kms ("Actions, resources, and condition keys" of Amazon S3 and AWS KMS in the
// Service Authorization Reference).
var Calls = []Call{
	{"GetBucketVersioning", "once, when the location is opened", []Right{{"s3:GetBucketVersioning", Bucket, Always, false}}},
	{"ListObjectsV2", "lists, without versions; checks", []Right{{"s3:ListBucket", Bucket, Always, false}}},
	{"ListObjectVersions", "lists, lookups and deletions, with versions", []Right{{"s3:ListBucketVersions", Bucket, Versions, false}}},
	{"HeadObject", "lookups, without versions; telling retention from missing rights", []Right{
		getObject, getObjectVersion, {"s3:GetObjectRetention", Object, Lock, false}, {"s3:GetObjectLegalHold", Object, Lock, false},
	}},
	{"GetObject", "reading", []Right{getObject, getObjectVersion, openDataKey}},
	{"PutObject", "writing", []Right{putObject, putRetention, dataKey}},
	{"CreateMultipartUpload", "writing what is large", []Right{putObject, putRetention, dataKey}},
	{"UploadPart", "writing what is large", []Right{putObject, dataKey, openDataKey}},
	{"CompleteMultipartUpload", "writing what is large", []Right{putObject, openDataKey}},
	{"AbortMultipartUpload", "removing the parts of a failed write", []Right{{"s3:AbortMultipartUpload", Object, Always, true}}},
	{"DeleteObject", "deleting", []Right{{"s3:DeleteObject", Object, Always, true}, {"s3:DeleteObjectVersion", Object, Versions, true}}},
	{"PutObjectRetention", "protecting for longer what retention keeps", []Right{putRetention}},
	{"GetObjectLockConfiguration", "before the first retained write; checks", []Right{{"s3:GetBucketObjectLockConfiguration", Bucket, Lock, false}}},
	{"kms Encrypt", "making a location, adding recipients", []Right{{"kms:Encrypt", LocationKey, Always, true}}},
	{"kms Decrypt", "unlocking a location", []Right{{"kms:Decrypt", LocationKey, Always, false}}},
}
