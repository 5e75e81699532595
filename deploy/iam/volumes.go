package iam

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Volumes says what backups take of volumes.
type Volumes string

// What a policy allows for volumes.
const (
	NoVolumes       Volumes = ""
	VolumeSnapshots Volumes = "snapshot"
	VolumeCopies    Volumes = "copy" // which are read from snapshots
)

// ParseVolumes reads "none", "snapshot" or "copy".
func ParseVolumes(text string) (Volumes, bool) {
	switch v := Volumes(text); v {
	case VolumeSnapshots, VolumeCopies:
		return v, true
	case NoVolumes, "none":
		return NoVolumes, true
	}
	return NoVolumes, false
}

// tokenTag is on every snapshot, volume and access point that Kedge makes, from the moment it is made (ebs.TokenTag, efs.TokenTag).
const tokenTag = "kedge.dev/token" //nolint:gosec // the name of a tag

// VolumeCalls is the table of plugins/ebs and plugins/efs ("Actions, resources, and condition keys" of Amazon EC2, Amazon Elastic Block Store, Amazon
// Elastic File System and AWS KMS in the Service Authorization Reference; "Required permissions" of Amazon EBS encryption, EBS User Guide).
var VolumeCalls = []Call{
	{"ec2 DescribeVolumes", "what volumes are like, and whether they can be used", []Right{{"ec2:DescribeVolumes", Account, Snapshots, false}}},
	{"ec2 DescribeInstances", "which volumes a machine has, to take them at one moment", []Right{{"ec2:DescribeInstances", Account, Snapshots, true}}},
	{"ec2 DescribeSnapshots", "how far snapshots are, and finding them by tag", []Right{{"ec2:DescribeSnapshots", Account, Snapshots, false}}},
	{"ec2 CreateSnapshot", "a volume's snapshot", []Right{
		{"ec2:CreateSnapshot", AnyVolume, Snapshots, true}, {"ec2:CreateSnapshot", NewSnapshot, Snapshots, true}, {"ec2:CreateTags", TagSnapshot, Snapshots, true},
	}},
	{"ec2 CreateSnapshots", "the snapshots of a machine's volumes", []Right{
		{"ec2:CreateSnapshots", AnyInstance, Snapshots, true}, {"ec2:CreateSnapshots", AnyVolume, Snapshots, true},
		{"ec2:CreateSnapshots", NewSnapshot, Snapshots, true}, {"ec2:CreateTags", TagSnapshot, Snapshots, true},
	}},
	{"ec2 CreateTags", "what differs between the snapshots of one call", []Right{{"ec2:CreateTags", OwnSnapshot, Snapshots, true}}},
	{"ec2 DeleteSnapshot", "deleting; temporary snapshots of restores", []Right{{"ec2:DeleteSnapshot", OwnSnapshot, Snapshots, false}}},
	{"ec2 CreateVolume", "a restored volume", []Right{
		{"ec2:CreateVolume", NewVolume, Snapshots, false}, {"ec2:CreateVolume", AnySnapshot, Snapshots, false}, {"ec2:CreateTags", TagVolume, Snapshots, false},
		{"kms:CreateGrant", VolumeGrant, Snapshots, false}, {"kms:DescribeKey", VolumeKey, Snapshots, false}, {"kms:Decrypt", VolumeKey, Snapshots, false},
		{"kms:GenerateDataKeyWithoutPlaintext", VolumeKey, Snapshots, false}, {"kms:ReEncryptFrom", VolumeKey, Snapshots, false}, {"kms:ReEncryptTo", VolumeKey, Snapshots, false},
	}},
	{"ec2 CopySnapshot", "copies of snapshots in other regions and accounts", []Right{
		{"ec2:CopySnapshot", OwnSnapshot, OtherRegions, true}, {"ec2:CopySnapshot", NewSnapshot, OtherRegions, true}, {"ec2:CreateTags", TagCopy, OtherRegions, true},
		{"kms:CreateGrant", CopyGrant, OtherRegions, true}, {"kms:DescribeKey", CopyKey, OtherRegions, true}, {"kms:Decrypt", CopyKey, OtherRegions, true},
		{"kms:GenerateDataKeyWithoutPlaintext", CopyKey, OtherRegions, true}, {"kms:ReEncryptFrom", CopyKey, OtherRegions, true}, {"kms:ReEncryptTo", CopyKey, OtherRegions, true},
	}},
	{"ec2 ModifySnapshotAttribute", "sharing a snapshot with another account while it is copied there, as a role of that account", []Right{
		{"ec2:ModifySnapshotAttribute", OwnSnapshot, OtherAccounts, true}, {"sts:AssumeRole", CopyRole, OtherAccounts, true},
	}},
	{"ec2 DeleteVolume", "restored volumes that nothing uses", []Right{{"ec2:DeleteVolume", OwnVolume, Snapshots, false}}},
	{"ebs ListSnapshotBlocks", "copying all of a volume", []Right{{"ebs:ListSnapshotBlocks", OwnSnapshot, Copies, true}}},
	{"ebs ListChangedBlocks", "copying what changed", []Right{{"ebs:ListChangedBlocks", OwnSnapshot, Copies, true}}},
	{"ebs GetSnapshotBlock", "copying", []Right{{"ebs:GetSnapshotBlock", OwnSnapshot, Copies, true}, {"kms:Decrypt", VolumeKey, Copies, true}}},
	{"ebs StartSnapshot", "restoring a copy", []Right{
		{"ebs:StartSnapshot", NewSnapshot, Copies, false}, {"kms:DescribeKey", VolumeKey, Copies, false}, {"kms:GenerateDataKeyWithoutPlaintext", VolumeKey, Copies, false},
	}},
	{"ebs PutSnapshotBlock", "restoring a copy", []Right{{"ebs:PutSnapshotBlock", OwnSnapshot, Copies, false}, {"kms:Decrypt", VolumeKey, Copies, false}}},
	{"ebs CompleteSnapshot", "restoring a copy", []Right{{"ebs:CompleteSnapshot", OwnSnapshot, Copies, false}}},
	{"efs DescribeAccessPoints", "what EFS volumes are mounted by", []Right{
		{"elasticfilesystem:DescribeAccessPoints", FileSystem, Copies, false}, {"elasticfilesystem:DescribeAccessPoints", AccessPoint, Copies, false},
	}},
	{"efs CreateAccessPoint", "an access point like one that is gone, or on another file system", []Right{
		{"elasticfilesystem:CreateAccessPoint", NewAccessPoint, Copies, false}, {"elasticfilesystem:TagResource", TagAccessPoint, Copies, false},
	}},
}

// volumeScopes are the frames of what is allowed for volumes: the resource after the partition, the name of the statement, its condition.
var volumeScopes = []struct {
	scope         Scope
	sid, resource string
	condition     map[string]map[string][]string
}{
	{Account, "KedgeDescribeVolumes", "*", nil}, // they know no resources
	{AnyVolume, "KedgeVolumes", "ec2:*:*:volume/*", nil},
	{AnyInstance, "KedgeInstances", "ec2:*:*:instance/*", nil},
	{AnySnapshot, "KedgeSnapshots", "ec2:*::snapshot/*", nil},
	{NewSnapshot, "KedgeNewSnapshots", "ec2:*::snapshot/*", tagged("aws:RequestTag/")},
	{NewVolume, "KedgeNewVolumes", "ec2:*:*:volume/*", tagged("aws:RequestTag/")},
	{TagSnapshot, "KedgeTagNewSnapshots", "ec2:*::snapshot/*", during("CreateSnapshot", "CreateSnapshots")},
	{TagCopy, "KedgeTagNewCopies", "ec2:*::snapshot/*", during("CopySnapshot")},
	{TagVolume, "KedgeTagNewVolumes", "ec2:*:*:volume/*", during("CreateVolume")},
	{OwnSnapshot, "KedgeOwnSnapshots", "ec2:*::snapshot/*", ownTags()},
	{OwnVolume, "KedgeOwnVolumes", "ec2:*:*:volume/*", tagged("aws:ResourceTag/")},
	{FileSystem, "KedgeFileSystems", "elasticfilesystem:*:*:file-system/*", nil},
	{AccessPoint, "KedgeAccessPoints", "elasticfilesystem:*:*:access-point/*", nil},
	{NewAccessPoint, "KedgeNewAccessPoints", "elasticfilesystem:*:*:file-system/*", tagged("aws:RequestTag/")},
	{TagAccessPoint, "KedgeTagNewAccessPoints", "elasticfilesystem:*:*:access-point/*", map[string]map[string][]string{
		"StringEquals": {"elasticfilesystem:CreateAction": {"CreateAccessPoint"}},
	}},
}

// tagged asks for our tag, whatever its value.
func tagged(key string) map[string]map[string][]string {
	return map[string]map[string][]string{"Null": {key + tokenTag: {"false"}}}
}

func during(calls ...string) map[string]map[string][]string {
	return map[string]map[string][]string{"StringEquals": {"ec2:CreateAction": calls}}
}

// ownTags also says that what has our tag gets only further ones of ours. A call that sets no tags meets that.
func ownTags() map[string]map[string][]string {
	c := tagged("aws:ResourceTag/")
	c["ForAllValues:StringLike"] = map[string][]string{"aws:TagKeys": {"kedge.dev/*"}}
	return c
}

// volumeStatements are what a policy allows for volumes.
func (l *Location) volumeStatements(calls []Call) []Statement {
	if l.Volumes == NoVolumes {
		return nil
	}
	var out []Statement
	add := func(s Statement, scope Scope) {
		s.Effect, s.Action = "Allow", l.actions(calls, scope)
		if len(s.Action) > 0 {
			out = append(out, s)
		}
	}
	for _, frame := range volumeScopes {
		resource := frame.resource
		if strings.Contains(resource, ":") {
			resource = "arn:" + l.Partition + ":" + resource
		}
		add(Statement{Sid: frame.sid, Resource: resource, Condition: frame.condition}, frame.scope)
	}
	if l.VolumeKey != "" {
		add(Statement{Sid: "KedgeVolumeKey", Resource: l.VolumeKey}, VolumeKey)
		add(Statement{Sid: "KedgeVolumeKeyGrants", Resource: l.VolumeKey, Condition: forServices()}, VolumeGrant)
	}
	for i, key := range l.CopyKeys {
		add(Statement{Sid: fmt.Sprintf("KedgeCopyKey%d", i+1), Resource: key}, CopyKey)
		add(Statement{Sid: fmt.Sprintf("KedgeCopyKeyGrants%d", i+1), Resource: key, Condition: forServices()}, CopyGrant)
	}
	for i, role := range l.CopyRoles {
		add(Statement{Sid: fmt.Sprintf("KedgeCopyRole%d", i+1), Resource: role}, CopyRole)
	}
	return out
}

// forServices asks for grants that are for services of AWS.
func forServices() map[string]map[string][]string {
	return map[string]map[string][]string{"Bool": {"kms:GrantIsForAWSResource": {"true"}}}
}

// copyCalls are what a role calls in the account that copies of snapshots go to.
var copyCalls = []string{"ec2 DescribeSnapshots", "ec2 CopySnapshot", "ec2 DeleteSnapshot"}

// ForCopies gives the least policy of a role in an account that copies of snapshots go to. Keys are the ARNs of the KMS keys of the copies and of
// the volumes that they are copies of; those are of other accounts, whose policies have to allow it too. An empty partition means "aws".
func ForCopies(partition string, keys []string) (*Policy, error) {
	l := Location{Bucket: "none", Partition: cmp.Or(partition, "aws"), Volumes: VolumeSnapshots, SnapshotCopies: true, CopyKeys: keys}
	for _, key := range keys {
		if !keyARN.MatchString(key) {
			return nil, fmt.Errorf("kms-key: %q is no ARN of a key; a policy cannot name keys by alias", key)
		}
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	var calls []Call
	for _, call := range VolumeCalls {
		if slices.Contains(copyCalls, call.Name) {
			calls = append(calls, call)
		}
	}
	// The snapshots that it copies are shared with it: their tags are not seen, so that no condition can tell them from others.
	shared := Statement{Sid: "KedgeSharedSnapshots", Effect: "Allow", Action: []string{"ec2:CopySnapshot"}, Resource: "arn:" + l.Partition + ":ec2:*::snapshot/*"}
	return &Policy{Version: "2012-10-17", Statement: append(l.volumeStatements(calls), shared)}, nil
}
