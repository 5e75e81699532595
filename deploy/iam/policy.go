package iam

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Location is what a policy is for.
type Location struct {
	Bucket string
	Prefix string // without leading or trailing slash; "" is the whole bucket
	// Partition is that of the ARNs: "aws", "aws-cn", "aws-us-gov". Empty means "aws".
	Partition string
	// LocationKey is the ARN of the KMS key that wraps the location's private key, BucketKey that of the bucket's own encryption; "" where
	// there is none.
	LocationKey, BucketKey string
	// ReadOnly: backups are restored from the location, never written to it.
	ReadOnly bool
	// Unversioned: the bucket has no versions, and never will.
	Unversioned bool
	ObjectLock  bool
	// Volumes is what backups take of volumes; VolumeKey the ARN of the KMS key that the volumes are encrypted with, "" where they are not, or with
	// the account's own aws/ebs.
	Volumes   Volumes
	VolumeKey string
	// SnapshotCopies: snapshots are copied to other regions of the account, under the KMS keys CopyKeys (ARNs; none where they have those regions'
	// aws/ebs). CopyRoles are the ARNs of roles of other accounts that they are copied to.
	SnapshotCopies      bool
	CopyKeys, CopyRoles []string
}

// Policy is an IAM policy document.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement allows actions on one resource.
type Statement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  string
	Condition map[string]map[string][]string `json:",omitempty"`
}

// The forms of what goes into ARNs. A bucket's name may hold no wildcard, and no colon.
var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixName = regexp.MustCompile(`^[A-Za-z0-9!_.'()/=+@-]*$`)
	keyARN     = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`)
	roleARN    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]+$`)
	partition  = regexp.MustCompile(`^aws[a-z-]*$`)
)

func (l *Location) check() error {
	switch {
	case !bucketName.MatchString(l.Bucket):
		return fmt.Errorf("bucket: %q is no name of a bucket", l.Bucket)
	case !prefixName.MatchString(l.Prefix) || strings.HasPrefix(l.Prefix, "/") || strings.HasSuffix(l.Prefix, "/"):
		return fmt.Errorf("prefix: %q: write it without slash at either end, and without characters that mean something in a policy", l.Prefix)
	case l.Partition != "" && !partition.MatchString(l.Partition):
		return fmt.Errorf("partition: %q is not aws, aws-cn, aws-us-gov or another", l.Partition)
	case l.LocationKey != "" && !keyARN.MatchString(l.LocationKey):
		return fmt.Errorf("kms-key: %q is no ARN of a key; a policy cannot name keys by alias", l.LocationKey)
	case l.BucketKey != "" && !keyARN.MatchString(l.BucketKey):
		return fmt.Errorf("bucket-kms-key: %q is no ARN of a key; a policy cannot name keys by alias", l.BucketKey)
	case l.VolumeKey != "" && !keyARN.MatchString(l.VolumeKey):
		return fmt.Errorf("volume-kms-key: %q is no ARN of a key; a policy cannot name keys by alias", l.VolumeKey)
	case l.VolumeKey != "" && l.Volumes == NoVolumes:
		return errors.New("volume-kms-key: it is given, but nothing is taken of volumes: add --volumes snapshot or copy")
	case l.ObjectLock && l.Unversioned:
		return errors.New("object-lock: a bucket with object lock has versions")
	}
	return l.checkCopies()
}

// checkCopies checks what is said of copies of snapshots.
func (l *Location) checkCopies() error {
	switch {
	case (l.SnapshotCopies || len(l.CopyRoles) > 0) && l.Volumes == NoVolumes:
		return errors.New("snapshot-copies: nothing is taken of volumes that could be copied: add --volumes snapshot or copy")
	case len(l.CopyKeys) > 0 && !l.SnapshotCopies:
		return errors.New("snapshot-copy-kms-key: it is given without --snapshot-copies; what another account's role needs is printed by \"kedge aws copy-policy\"")
	}
	for _, key := range l.CopyKeys {
		if !keyARN.MatchString(key) {
			return fmt.Errorf("snapshot-copy-kms-key: %q is no ARN of a key; a policy cannot name keys by alias", key)
		}
	}
	for _, role := range l.CopyRoles {
		if !roleARN.MatchString(role) {
			return fmt.Errorf("snapshot-copy-role: %q is no ARN of a role", role)
		}
	}
	return nil
}

// ForLocation gives the least policy that a location needs.
func ForLocation(l Location) (*Policy, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if l.Partition == "" {
		l.Partition = "aws"
	}
	policy := &Policy{Version: "2012-10-17"}
	for _, scope := range []Scope{Bucket, Object, BucketKey, LocationKey} {
		statement := l.statement(scope)
		statement.Action = l.actions(Calls, scope)
		if statement.Resource != "" && len(statement.Action) > 0 {
			policy.Statement = append(policy.Statement, statement)
		}
	}
	policy.Statement = append(policy.Statement, l.volumeStatements(VolumeCalls)...)
	return policy, nil
}

// statement is the frame of what is allowed on a scope; without a resource where the location has no such thing.
func (l *Location) statement(scope Scope) Statement {
	s := Statement{Effect: "Allow"}
	bucket := "arn:" + l.Partition + ":s3:::" + l.Bucket
	switch scope {
	case Bucket:
		s.Sid, s.Resource = "KedgeBucket", bucket
	case Object:
		s.Sid, s.Resource = "KedgeObjects", bucket+"/"+strings.TrimPrefix(l.Prefix+"/*", "/")
	case BucketKey:
		s.Sid, s.Resource = "KedgeBucketKey", l.BucketKey
	case Account, AnyVolume, AnyInstance, AnySnapshot, NewSnapshot, NewVolume, TagSnapshot, TagVolume, OwnSnapshot, OwnVolume,
		FileSystem, AccessPoint, NewAccessPoint, TagAccessPoint, VolumeKey, VolumeGrant, TagCopy, CopyKey, CopyGrant, CopyRole: // of volumes
	case LocationKey:
		s.Sid, s.Resource = "KedgeLocationKey", l.LocationKey
		s.Condition = map[string]map[string][]string{"StringEquals": {"kms:EncryptionContext:kedge.dev/purpose": {"location-key"}}}
	}
	return s
}

// actions are what the calls of a table need on a scope, in its order.
func (l *Location) actions(calls []Call, scope Scope) []string {
	var actions []string
	for _, call := range calls {
		for _, r := range call.Rights {
			if r.Scope == scope && l.needs(r) && !slices.Contains(actions, r.Action) {
				actions = append(actions, r.Action)
			}
		}
	}
	return actions
}

func (l *Location) needs(r Right) bool {
	switch {
	case r.Write && l.ReadOnly:
		return false
	case r.When == Versions:
		return !l.Unversioned
	case r.When == Lock:
		return l.ObjectLock
	case r.When == Snapshots:
		return l.Volumes != NoVolumes
	case r.When == Copies:
		return l.Volumes == VolumeCopies
	case r.When == OtherRegions:
		return l.SnapshotCopies
	case r.When == OtherAccounts:
		return len(l.CopyRoles) > 0
	}
	return true
}

// JSON is the document as AWS takes it.
func (p *Policy) JSON() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	return append(data, '\n'), nil
}
