package aws_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"kedge.dev/kedge/test/aws"
)

func ec2Client(c *aws.Cloud) *ec2.Client { return ec2.NewFromConfig(c.Config(c.Region())) }

// wantCode fails the test unless err is a refusal with the code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func must[T any](t *testing.T) func(out T, err error) T {
	t.Helper()
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func tagSpec(kind types.ResourceType, tags ...string) []types.TagSpecification {
	spec := types.TagSpecification{ResourceType: kind}
	for i := 0; i < len(tags); i += 2 {
		spec.Tags = append(spec.Tags, types.Tag{Key: &tags[i], Value: &tags[i+1]})
	}
	return []types.TagSpecification{spec}
}

// write puts bytes into a volume's file.
func write(t *testing.T, c *aws.Cloud, volume string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(c.VolumeFile(volume), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *aws.Cloud, volume string, offset int64, n int) []byte {
	t.Helper()
	f, err := os.Open(c.VolumeFile(volume))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, n)
	if _, err := f.ReadAt(data, offset); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSnapshotAndRestore(t *testing.T) {
	c := aws.New(t, aws.Options{SnapshotPolls: 2, VolumePolls: 1, DescribeLag: 1})
	client := ec2Client(c)
	volume := c.CreateVolume(aws.VolumeSpec{})
	write(t, c, volume, 700<<10, []byte("hello"))
	snap := must[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume, TagSpecifications: tagSpec("snapshot", "a", "b")}))
	write(t, c, volume, 700<<10, []byte("later"))
	byID := &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}
	_, err := client.DescribeSnapshots(t.Context(), byID)
	wantCode(t, err, "InvalidSnapshot.NotFound") // not seen yet
	var states []types.SnapshotState
	for range 4 {
		out := must[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), byID))
		states = append(states, out.Snapshots[0].State)
		if tags := out.Snapshots[0].Tags; len(tags) != 1 || *tags[0].Key != "a" || *tags[0].Value != "b" {
			t.Errorf("tags %v", tags)
		}
	}
	if !slices.Equal(states, []types.SnapshotState{"pending", "pending", "completed", "completed"}) {
		t.Errorf("states %v", states)
	}
	zone := c.Region() + "b"
	in := &ec2.CreateVolumeInput{AvailabilityZone: &zone, SnapshotId: snap.SnapshotId, ClientToken: sdk.String("t"), VolumeType: "gp3", TagSpecifications: tagSpec("volume", "x", "y")}
	made := must[*ec2.CreateVolumeOutput](t)(client.CreateVolume(t.Context(), in))
	again := must[*ec2.CreateVolumeOutput](t)(client.CreateVolume(t.Context(), in))
	if *made.VolumeId != *again.VolumeId || made.State != "creating" || *made.Iops != 3000 {
		t.Errorf("%+v, %+v", made, again)
	}
	in.Size = sdk.Int32(5)
	_, err = client.CreateVolume(t.Context(), in)
	wantCode(t, err, "IdempotentParameterMismatch")
	if got := read(t, c, *made.VolumeId, 700<<10, 5); !bytes.Equal(got, []byte("hello")) {
		t.Errorf("the restored volume has %q", got)
	}
}

func TestVolumeRules(t *testing.T) {
	c := aws.New(t, aws.Options{MaxVolumes: 3})
	client := ec2Client(c)
	volume := c.CreateVolume(aws.VolumeSpec{GiB: 2})
	snap := must[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume}))
	zone := c.Region() + "a"
	for code, in := range map[string]*ec2.CreateVolumeInput{
		"MissingParameter":            {},
		"InvalidZone.NotFound":        {AvailabilityZone: sdk.String("eu-west-9z"), Size: sdk.Int32(1)},
		"InvalidParameterCombination": {Size: sdk.Int32(1), VolumeType: "gp2", Iops: sdk.Int32(3000)},
		"InvalidParameterDependency":  {Size: sdk.Int32(1), KmsKeyId: sdk.String("k")},
		"InvalidParameterValue":       {Size: sdk.Int32(1), SnapshotId: snap.SnapshotId},
		"InvalidSnapshot.NotFound":    {SnapshotId: sdk.String("snap-00000000000000fff")},
		"IncorrectState":              {SnapshotId: snap.SnapshotId},
	} {
		if in.AvailabilityZone == nil {
			in.AvailabilityZone = &zone
		}
		_, err := client.CreateVolume(t.Context(), in)
		wantCode(t, err, code)
	}
	for range 2 {
		must[*ec2.CreateVolumeOutput](t)(client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: &zone, Size: sdk.Int32(1)}))
	}
	_, err := client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: &zone, Size: sdk.Int32(1)})
	wantCode(t, err, "VolumeLimitExceeded")
}

func TestCreateSnapshotsRules(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	instance, root := c.CreateInstance("")
	var data []string
	for range 3 {
		data = append(data, c.CreateVolume(aws.VolumeSpec{Instance: instance}))
	}
	ask := func(spec types.InstanceSpecification) (*ec2.CreateSnapshotsOutput, error) {
		spec.InstanceId = &instance
		return client.CreateSnapshots(t.Context(), &ec2.CreateSnapshotsInput{InstanceSpecification: &spec, TagSpecifications: tagSpec("snapshot", "k", "v")})
	}
	out := must[*ec2.CreateSnapshotsOutput](t)(ask(types.InstanceSpecification{ExcludeBootVolume: sdk.Bool(true), ExcludeDataVolumeIds: data[:1]}))
	var of []string
	for _, s := range out.Snapshots {
		of = append(of, *s.VolumeId)
		if len(s.Tags) != 1 || s.State != "pending" {
			t.Errorf("%+v", s)
		}
	}
	if slices.Sort(of); !slices.Equal(of, data[1:]) {
		t.Errorf("snapshots of %v, want %v", of, data[1:])
	}
	_, err := ask(types.InstanceSpecification{ExcludeDataVolumeIds: []string{root}})
	wantCode(t, err, "InvalidParameterValue")
	_, err = ask(types.InstanceSpecification{ExcludeDataVolumeIds: slices.Repeat(data[:1], 41)})
	wantCode(t, err, "InvalidParameterValue")
	if n := len(must[*ec2.CreateSnapshotsOutput](t)(ask(types.InstanceSpecification{})).Snapshots); n != 4 {
		t.Errorf("%d snapshots of the whole instance", n)
	}
}

func TestAttachAndDetach(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	instance, _ := c.CreateInstance(c.Region() + "b")
	other := c.CreateVolume(aws.VolumeSpec{})
	volume := c.CreateVolume(aws.VolumeSpec{Zone: c.Region() + "b"})
	attach := func(id, device string) error {
		_, err := client.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &instance, Device: &device})
		return err
	}
	wantCode(t, attach(other, "/dev/xvdb"), "InvalidVolume.ZoneMismatch")
	wantCode(t, attach(volume, "/dev/xvda"), "InvalidParameterValue")
	if err := attach(volume, "/dev/xvdb"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, attach(volume, "/dev/xvdc"), "VolumeInUse")
	_, err := client.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &volume})
	wantCode(t, err, "VolumeInUse")
	must[*ec2.DetachVolumeOutput](t)(client.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &volume}))
	must[*ec2.DeleteVolumeOutput](t)(client.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &volume}))
	_, err = client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
	wantCode(t, err, "InvalidVolume.NotFound")
}

func TestFiltersAndPages(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	volume := c.CreateVolume(aws.VolumeSpec{})
	for i := range 12 {
		kind := []string{"odd", "even/x"}[i%2]
		must[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume, TagSpecifications: tagSpec("snapshot", "kind", kind)}))
	}
	for value, want := range map[string]int{"odd": 6, "even*": 6, "*": 12, "even?x": 6, "none": 0} {
		pages := ec2.NewDescribeSnapshotsPaginator(client, &ec2.DescribeSnapshotsInput{
			MaxResults: sdk.Int32(5), OwnerIds: []string{"self"}, Filters: []types.Filter{{Name: sdk.String("tag:kind"), Values: []string{value}}},
		})
		found := 0
		for pages.HasMorePages() {
			out, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			found += len(out.Snapshots)
		}
		if found != want {
			t.Errorf("kind=%s gives %d snapshots, want %d", value, found, want)
		}
	}
	_, err := client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{Filters: []types.Filter{{Name: sdk.String("colour"), Values: []string{"red"}}}})
	wantCode(t, err, "InvalidParameterValue")
}

func TestZonesInstancesAndUnknownParameters(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	first, root := c.CreateInstance(c.Region() + "c")
	c.CreateInstance("")
	out := must[*ec2.DescribeInstancesOutput](t)(client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: sdk.String("instance-id"), Values: []string{first}}}}))
	if len(out.Reservations) != 1 || *out.Reservations[0].Instances[0].BlockDeviceMappings[0].Ebs.VolumeId != root || *out.Reservations[0].Instances[0].Placement.AvailabilityZone != c.Region()+"c" {
		t.Errorf("%+v", out.Reservations)
	}
	zones := must[*ec2.DescribeAvailabilityZonesOutput](t)(client.DescribeAvailabilityZones(t.Context(), &ec2.DescribeAvailabilityZonesInput{}))
	if len(zones.AvailabilityZones) != 3 || zones.AvailabilityZones[0].State != "available" {
		t.Errorf("%+v", zones.AvailabilityZones)
	}
	_, err := client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &root, DryRun: sdk.Bool(true)})
	wantCode(t, err, "DryRunOperation")
	once := ec2.NewFromConfig(c.Config(c.Region()), func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
	_, err = once.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &root, OutpostArn: sdk.String("arn:aws:outposts:x")})
	wantCode(t, err, "UnsupportedParameter")
}

func TestTags(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	volume := c.CreateVolume(aws.VolumeSpec{Tags: map[string]string{"a": "1", "b": "2"}})
	tag := func(key, value string) []types.Tag { return []types.Tag{{Key: &key, Value: &value}} }
	must[*ec2.CreateTagsOutput](t)(client.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{volume}, Tags: tag("a", "3")}))
	must[*ec2.DeleteTagsOutput](t)(client.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{volume}, Tags: tag("b", "other")}))
	if got := c.Tags(volume); len(got) != 2 || got["a"] != "3" || got["b"] != "2" {
		t.Errorf("tags %v", got)
	}
	must[*ec2.DeleteTagsOutput](t)(client.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{volume}, Tags: tag("b", "2")}))
	if got := c.Tags(volume); len(got) != 1 {
		t.Errorf("tags %v", got)
	}
	_, err := client.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{volume}, Tags: tag("aws:x", "")})
	wantCode(t, err, "InvalidParameterValue")
}

func TestCopyBetweenRegionsAndShare(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ec2Client(c)
	key := c.CreateKey()
	volume := c.CreateVolume(aws.VolumeSpec{KMSKeyID: key})
	snap := must[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume}))
	must[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{}))
	far := ec2.NewFromConfig(c.Config("us-east-1"))
	region := c.Region()
	copied := must[*ec2.CopySnapshotOutput](t)(far.CopySnapshot(t.Context(), &ec2.CopySnapshotInput{SourceRegion: &region, SourceSnapshotId: snap.SnapshotId}))
	out := must[*ec2.DescribeSnapshotsOutput](t)(far.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*copied.SnapshotId}}))
	if s := out.Snapshots[0]; !*s.Encrypted || *s.KmsKeyId == key || *s.VolumeId == volume {
		t.Errorf("the copy is %+v", s)
	}
	_, err := client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*copied.SnapshotId}})
	wantCode(t, err, "InvalidSnapshot.NotFound")

	creds := c.Account("444455556666")
	cfg := c.Config(region)
	cfg.Credentials = sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
		return sdk.Credentials{AccessKeyID: creds.AccessKeyID, SecretAccessKey: creds.SecretAccessKey}, nil
	})
	stranger := ec2.NewFromConfig(cfg)
	byID := &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snap.SnapshotId}}
	_, err = stranger.DescribeSnapshots(t.Context(), byID)
	wantCode(t, err, "InvalidSnapshot.NotFound")
	must[*ec2.ModifySnapshotAttributeOutput](t)(client.ModifySnapshotAttribute(t.Context(), &ec2.ModifySnapshotAttributeInput{
		SnapshotId: snap.SnapshotId, CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: []types.CreateVolumePermission{{UserId: sdk.String("444455556666")}}},
	}))
	must[*ec2.DescribeSnapshotsOutput](t)(stranger.DescribeSnapshots(t.Context(), byID))
	_, err = stranger.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	wantCode(t, err, "UnauthorizedOperation")
}
