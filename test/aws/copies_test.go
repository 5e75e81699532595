package aws_test

import (
	"context"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"kedge.dev/kedge/test/aws"
)

const vault = "444455556666"

// completed takes a snapshot of a new volume with the key and sees it completed.
func completed(t *testing.T, c *aws.Cloud, key string) string {
	t.Helper()
	volume := c.CreateVolume(aws.VolumeSpec{KMSKeyID: key})
	client := ec2Client(c)
	snap := must[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume}))
	must[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{}))
	return *snap.SnapshotId
}

func share(ctx context.Context, client *ec2.Client, id string, in types.OperationType) error {
	_, err := client.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{
		SnapshotId: &id, Attribute: types.SnapshotAttributeNameCreateVolumePermission, OperationType: in, UserIds: []string{vault},
	})
	return err
}

// look gives a snapshot's state.
func look(t *testing.T, client *ec2.Client, id string) types.Snapshot {
	t.Helper()
	return must[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})).Snapshots[0]
}

func TestConcurrentCopies(t *testing.T) {
	c := aws.New(t, aws.Options{SnapshotPolls: 1})
	id := completed(t, c, "")
	look(t, ec2Client(c), id)
	far, farther := ec2.NewFromConfig(c.Config("us-east-1")), ec2.NewFromConfig(c.Config("us-west-2"))
	in := &ec2.CopySnapshotInput{SourceRegion: sdk.String(c.Region()), SourceSnapshotId: &id}
	var last string
	for range 20 {
		last = *must[*ec2.CopySnapshotOutput](t)(far.CopySnapshot(t.Context(), in)).SnapshotId
	}
	_, err := far.CopySnapshot(t.Context(), in)
	wantCode(t, err, "ResourceLimitExceeded")
	must[*ec2.CopySnapshotOutput](t)(farther.CopySnapshot(t.Context(), in))
	if s := look(t, far, last); s.State != types.SnapshotStatePending {
		t.Errorf("the copy is %s at once", s.State)
	}
	if s := look(t, far, last); s.State != types.SnapshotStateCompleted || *s.OwnerId != aws.HomeAccount {
		t.Errorf("the copy is %+v", s)
	}
	must[*ec2.CopySnapshotOutput](t)(far.CopySnapshot(t.Context(), in))
}

// TestCopiesOfAccounts shares a snapshot with another account, which copies it under a key of its own.
func TestCopiesOfAccounts(t *testing.T) {
	c := aws.New(t, aws.Options{})
	region := c.Region()
	home := ec2Client(c)
	id := completed(t, c, c.CreateKeyIn(region, aws.HomeAccount, vault))
	cfg := c.Config("eu-central-1")
	role := c.CreateRoleIn(vault, "copies", "secret")
	cfg.Credentials = stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) { o.ExternalID = sdk.String("secret") })
	there := ec2.NewFromConfig(cfg)
	own := c.CreateKeyIn("eu-central-1", vault)
	in := &ec2.CopySnapshotInput{SourceRegion: &region, SourceSnapshotId: &id, Encrypted: sdk.Bool(true), KmsKeyId: &own}
	_, err := there.CopySnapshot(t.Context(), in)
	wantCode(t, err, "InvalidSnapshot.NotFound")
	if err := share(t.Context(), home, id, types.OperationTypeAdd); err != nil {
		t.Fatal(err)
	}
	visible := func(in *ec2.DescribeSnapshotsInput) int {
		return len(must[*ec2.DescribeSnapshotsOutput](t)(ec2.NewFromConfig(c.ConfigOf(vault, region)).DescribeSnapshots(t.Context(), in)).Snapshots)
	}
	if n := visible(&ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}}); n != 0 {
		t.Errorf("the other account owns %d snapshots", n)
	}
	if n := visible(&ec2.DescribeSnapshotsInput{RestorableByUserIds: []string{"self"}}); n != 1 {
		t.Errorf("the other account can restore %d snapshots", n)
	}
	copied := look(t, there, *must[*ec2.CopySnapshotOutput](t)(there.CopySnapshot(t.Context(), in)).SnapshotId)
	if copied.State != types.SnapshotStateCompleted || *copied.OwnerId != vault || *copied.KmsKeyId != own {
		t.Errorf("the copy is %+v", copied)
	}
	in.KmsKeyId = sdk.String(c.CreateKeyIn("eu-central-1", aws.HomeAccount))
	if s := look(t, there, *must[*ec2.CopySnapshotOutput](t)(there.CopySnapshot(t.Context(), in)).SnapshotId); s.State != types.SnapshotStateError {
		t.Errorf("with a key of another account the copy is %+v", s)
	}
	if err := share(t.Context(), home, id, types.OperationTypeRemove); err != nil || visible(&ec2.DescribeSnapshotsInput{}) != 0 {
		t.Errorf("the snapshot is still shared: %v", err)
	}
}

// TestKeysThatCannotBeShared: the default key keeps a snapshot from being shared, a key of one's own that the other may not use from being copied.
func TestKeysThatCannotBeShared(t *testing.T) {
	c := aws.New(t, aws.Options{})
	region := c.Region()
	there := ec2.NewFromConfig(c.ConfigOf(vault, region))
	locked := completed(t, c, c.CreateKey())
	if err := share(t.Context(), ec2Client(c), locked, types.OperationTypeAdd); err != nil {
		t.Fatal(err)
	}
	out := must[*ec2.CopySnapshotOutput](t)(there.CopySnapshot(t.Context(), &ec2.CopySnapshotInput{SourceRegion: &region, SourceSnapshotId: &locked}))
	if s := look(t, there, *out.SnapshotId); s.State != types.SnapshotStateError {
		t.Errorf("the copy is %+v", s)
	}
	plain := completed(t, c, "")
	again := must[*ec2.CopySnapshotOutput](t)(ec2Client(c).CopySnapshot(t.Context(), &ec2.CopySnapshotInput{SourceRegion: &region, SourceSnapshotId: &plain, Encrypted: sdk.Bool(true)}))
	wantCode(t, share(t.Context(), ec2Client(c), *again.SnapshotId, types.OperationTypeAdd), "OperationNotPermitted")
}
