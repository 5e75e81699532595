package aws_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"kedge.dev/kedge/test/aws"
)

const blockSize = 512 << 10

func ebsClient(c *aws.Cloud) *ebs.Client { return ebs.NewFromConfig(c.Config(c.Region())) }

// wantReason fails the test unless err is a ValidationException for the reason.
func wantReason(t *testing.T, err error, reason ebstypes.ValidationExceptionReason) {
	t.Helper()
	var e *ebstypes.ValidationException
	if !errors.As(err, &e) || e.Reason != reason {
		t.Errorf("got %v, want the reason %s", err, reason)
	}
}

// snapshot takes one that is completed.
func snapshot(t *testing.T, c *aws.Cloud, volume string) string {
	t.Helper()
	out := must[*ec2.CreateSnapshotOutput](t)(ec2Client(c).CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume}))
	must[*ec2.DescribeSnapshotsOutput](t)(ec2Client(c).DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*out.SnapshotId}}))
	return *out.SnapshotId
}

// blocks are the indexes of a snapshot.
func blocks(t *testing.T, c *aws.Cloud, id string) (found []int32) {
	t.Helper()
	pages := ebs.NewListSnapshotBlocksPaginator(ebsClient(c), &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: sdk.Int32(100)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.Blocks {
			found = append(found, *b.BlockIndex)
		}
	}
	return found
}

func TestBlocksOfSparseVolumes(t *testing.T) {
	c := aws.New(t, aws.Options{PageSize: 2})
	volume := c.CreateVolume(aws.VolumeSpec{})
	write(t, c, volume, 0, []byte("x"))
	write(t, c, volume, 3*blockSize-1, []byte("xy")) // over two blocks
	write(t, c, volume, 1<<30-1, []byte("z"))
	first := snapshot(t, c, volume)
	if got := blocks(t, c, first); !slices.Equal(got, []int32{0, 2, 3, 2047}) {
		t.Errorf("blocks %v", got)
	}
	write(t, c, volume, 5*blockSize, []byte("new"))
	write(t, c, volume, 2*blockSize, []byte("changed"))
	second := snapshot(t, c, volume)
	changed, empty := changes(t, c, first, second)
	if !slices.Equal(changed, []int32{2, 5}) || empty == 0 {
		t.Errorf("changed blocks %v, %d empty pages", changed, empty)
	}
	other := snapshot(t, c, c.CreateVolume(aws.VolumeSpec{}))
	_, err := ebsClient(c).ListChangedBlocks(t.Context(), &ebs.ListChangedBlocksInput{FirstSnapshotId: &first, SecondSnapshotId: &other})
	wantReason(t, err, "UNRELATED_SNAPSHOTS")
	_, err = ebsClient(c).ListSnapshotBlocks(t.Context(), &ebs.ListSnapshotBlocksInput{SnapshotId: &first, MaxResults: sdk.Int32(99)})
	wantReason(t, err, "INVALID_PARAMETER_VALUE")
	_, err = ebsClient(c).ListSnapshotBlocks(t.Context(), &ebs.ListSnapshotBlocksInput{SnapshotId: &first, NextToken: sdk.String("abcd")})
	wantReason(t, err, "INVALID_PAGE_TOKEN")
}

func changes(t *testing.T, c *aws.Cloud, first, second string) (found []int32, empty int) {
	t.Helper()
	pages := ebs.NewListChangedBlocksPaginator(ebsClient(c), &ebs.ListChangedBlocksInput{FirstSnapshotId: &first, SecondSnapshotId: &second})
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(out.ChangedBlocks) == 0 {
			empty++
		}
		for _, b := range out.ChangedBlocks {
			found = append(found, *b.BlockIndex)
		}
	}
	return found, empty
}

func TestGetSnapshotBlock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := aws.New(t, aws.Options{Now: func() time.Time { return now }, TokenTime: time.Hour})
	volume := c.CreateVolume(aws.VolumeSpec{})
	write(t, c, volume, blockSize, []byte("data"))
	id := snapshot(t, c, volume)
	client := ebsClient(c)
	list := must[*ebs.ListSnapshotBlocksOutput](t)(client.ListSnapshotBlocks(t.Context(), &ebs.ListSnapshotBlocksInput{SnapshotId: &id}))
	if !list.ExpiryTime.Equal(now.Add(time.Hour)) || *list.BlockSize != blockSize || *list.VolumeSize != 1 {
		t.Errorf("%+v", list)
	}
	in := &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: sdk.Int32(1), BlockToken: list.Blocks[0].BlockToken}
	out := must[*ebs.GetSnapshotBlockOutput](t)(client.GetSnapshotBlock(t.Context(), in))
	data, err := io.ReadAll(out.BlockData)
	if err != nil || len(data) != blockSize || !bytes.HasPrefix(data, []byte("data")) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if sum := sha256.Sum256(data); *out.Checksum != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("checksum %s", *out.Checksum)
	}
	now = now.Add(2 * time.Hour)
	_, err = client.GetSnapshotBlock(t.Context(), in)
	wantReason(t, err, "INVALID_BLOCK_TOKEN")
	if u := c.Usage(); u.BlockBytesRead != blockSize || u.Calls["GetSnapshotBlock"] != 2 {
		t.Errorf("%+v", u)
	}
}

func TestIncompleteSnapshotsAreNotRead(t *testing.T) {
	c := aws.New(t, aws.Options{SnapshotPolls: 100, BlocksLag: 0})
	volume := c.CreateVolume(aws.VolumeSpec{})
	id := snapshot(t, c, volume)
	_, err := ebsClient(c).ListSnapshotBlocks(t.Context(), &ebs.ListSnapshotBlocksInput{SnapshotId: &id})
	var e *ebstypes.ResourceNotFoundException
	if !errors.As(err, &e) || e.Reason != ebstypes.ResourceNotFoundExceptionReasonSnapshotNotFound {
		t.Errorf("got %v", err)
	}
}

// put writes one block.
func put(t *testing.T, client *ebs.Client, id string, index int32, fill byte, change func(*ebs.PutSnapshotBlockInput)) error {
	t.Helper()
	data := bytes.Repeat([]byte{fill}, blockSize)
	sum := sha256.Sum256(data)
	in := &ebs.PutSnapshotBlockInput{
		SnapshotId: &id, BlockIndex: &index, BlockData: bytes.NewReader(data), DataLength: sdk.Int32(blockSize),
		Checksum: sdk.String(base64.StdEncoding.EncodeToString(sum[:])), ChecksumAlgorithm: "SHA256",
	}
	if change != nil {
		change(in)
	}
	_, err := client.PutSnapshotBlock(t.Context(), in)
	return err
}

func TestWriteSnapshots(t *testing.T) {
	c := aws.New(t, aws.Options{})
	client := ebsClient(c)
	in := &ebs.StartSnapshotInput{VolumeSize: sdk.Int64(1), ClientToken: sdk.String("token"), Tags: []ebstypes.Tag{{Key: sdk.String("a"), Value: sdk.String("b")}}}
	started := must[*ebs.StartSnapshotOutput](t)(client.StartSnapshot(t.Context(), in))
	again := must[*ebs.StartSnapshotOutput](t)(client.StartSnapshot(t.Context(), in))
	id := *started.SnapshotId
	if *again.SnapshotId != id || started.Status != "pending" || *started.BlockSize != blockSize || len(started.Tags) != 1 {
		t.Errorf("%+v, %+v", started, again)
	}
	in.VolumeSize = sdk.Int64(2)
	_, err := client.StartSnapshot(t.Context(), in)
	wantCode(t, err, "ConflictException")
	for _, index := range []int32{4, 0, 4} {
		if err := put(t, client, id, index, byte(index)+1, nil); err != nil {
			t.Fatal(err)
		}
	}
	wantReason(t, put(t, client, id, 2048, 1, nil), "INVALID_BLOCK")
	wantReason(t, put(t, client, id, 1, 1, func(in *ebs.PutSnapshotBlockInput) { in.Checksum = sdk.String(strings.Repeat("A", 43) + "=") }), "INVALID_PARAMETER_VALUE")
	_, err = client.CompleteSnapshot(t.Context(), &ebs.CompleteSnapshotInput{SnapshotId: &id, ChangedBlocksCount: sdk.Int32(3)})
	wantReason(t, err, "INVALID_PARAMETER_VALUE")
	must[*ebs.CompleteSnapshotOutput](t)(client.CompleteSnapshot(t.Context(), &ebs.CompleteSnapshotInput{SnapshotId: &id, ChangedBlocksCount: sdk.Int32(2)}))
	wantReason(t, put(t, client, id, 1, 1, nil), "INVALID_SNAPSHOT_ID")
	if got := blocks(t, c, id); !slices.Equal(got, []int32{0, 4}) {
		t.Errorf("blocks %v", got)
	}
	// A child has its parent's blocks, and can be compared with it.
	child := must[*ebs.StartSnapshotOutput](t)(client.StartSnapshot(t.Context(), &ebs.StartSnapshotInput{VolumeSize: sdk.Int64(1), ParentSnapshotId: &id}))
	if err := put(t, client, *child.SnapshotId, 7, 9, nil); err != nil {
		t.Fatal(err)
	}
	must[*ebs.CompleteSnapshotOutput](t)(client.CompleteSnapshot(t.Context(), &ebs.CompleteSnapshotInput{SnapshotId: child.SnapshotId, ChangedBlocksCount: sdk.Int32(1)}))
	if got, _ := changes(t, c, id, *child.SnapshotId); !slices.Equal(got, []int32{7}) {
		t.Errorf("changed blocks %v", got)
	}
	if got := blocks(t, c, *child.SnapshotId); !slices.Equal(got, []int32{0, 4, 7}) {
		t.Errorf("blocks %v", got)
	}
}

func TestFaultsAndRates(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := aws.New(t, aws.Options{Now: func() time.Time { return now }, Rates: map[string]aws.Rate{"DescribeVolumes": {Burst: 1, PerSecond: 1}}})
	client := ec2.NewFromConfig(c.Config(c.Region()), func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
	volume := c.CreateVolume(aws.VolumeSpec{})
	describe := func() error {
		_, err := client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
		return err
	}
	if err := describe(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, describe(), "RequestLimitExceeded")
	now = now.Add(time.Second)
	if err := describe(); err != nil {
		t.Fatal(err)
	}
	create := func() error {
		_, err := client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume})
		return err
	}
	c.Inject(aws.Fault{Op: "CreateSnapshot", Code: "InternalError", Status: 500})
	wantCode(t, create(), "InternalError")
	c.Inject(aws.Fault{Op: "CreateSnapshot", LoseReply: true})
	if err := create(); err == nil || len(c.Snapshots()) != 1 {
		t.Errorf("a lost reply: %v, snapshots %v", err, c.Snapshots())
	}
	c.Inject(aws.Fault{Op: "CreateSnapshot", Drop: true})
	if err := create(); err == nil || len(c.Snapshots()) != 1 {
		t.Errorf("a dropped call: %v, snapshots %v", err, c.Snapshots())
	}
	if u := c.Usage(); u.Throttled != 1 || u.Calls["CreateSnapshot"] != 3 {
		t.Errorf("%+v", u)
	}
}
