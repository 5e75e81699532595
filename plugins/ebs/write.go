package ebs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsebs "github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"kedge.dev/kedge/plugins"
)

// startTimeout in minutes is how long after its last block EBS gives a snapshot up that is not completed: long enough for a mover that has to
// find another node.
const startTimeout = 240

// target writes the blocks of one snapshot.
type target struct {
	p      *Provider
	id     string
	blocks int64 // of the volume
	pool   sync.Pool

	sealed atomic.Bool // completed before, by another holder of the token
}

// StartBlocks begins a snapshot (StartSnapshot, with a client token). Of the attributes, kmsKeyId (an ARN) and encrypted count, and only where
// there is no parent: a child is encrypted as its parent.
func (p *Provider) StartBlocks(ctx context.Context, req plugins.VolumeRequest) (plugins.BlockTarget, error) {
	req.Attributes = p.here(req.Attributes)
	t, err := p.startBlocks(ctx, req)
	if err != nil {
		return nil, p.fail(ctx, "start snapshot", "", err)
	}
	return t, nil
}

func (p *Provider) startBlocks(ctx context.Context, req plugins.VolumeRequest) (*target, error) {
	in, err := p.startInput(ctx, req)
	if err != nil {
		return nil, err
	}
	out, err := p.start(ctx, in)
	if err != nil {
		return nil, err
	}
	t := &target{p: p, id: aws.ToString(out.SnapshotId), blocks: aws.ToInt64(in.VolumeSize) * (gib / plugins.BlockSize)}
	t.pool.New = func() any { return new([plugins.BlockSize]byte) }
	// The answer to a repeated call is the first one's, whatever became of the snapshot.
	found, err := p.DescribeSnapshots(ctx, []string{t.id})
	if err != nil {
		return nil, err
	}
	switch s := found[t.id]; s.State {
	case plugins.SnapshotFailed:
		return nil, failed(s, "delete it and start with another token")
	case plugins.SnapshotCompleted:
		t.sealed.Store(true)
	case plugins.SnapshotPending: // or not to be seen yet
	}
	return t, nil
}

// start calls StartSnapshot; it may not know a parent yet that was completed a moment ago.
func (p *Provider) start(ctx context.Context, in *awsebs.StartSnapshotInput) (*awsebs.StartSnapshotOutput, error) {
	for look := 0; ; look++ {
		out, err := p.direct.StartSnapshot(ctx, in)
		if !notFound(err) || in.ParentSnapshotId == nil || look == settleLooks {
			return out, err
		}
		if err := p.pause(ctx, look); err != nil {
			return nil, err
		}
	}
}

func (p *Provider) startInput(ctx context.Context, req plugins.VolumeRequest) (*awsebs.StartSnapshotInput, error) {
	tags, err := withToken(req.Token, req.Tags)
	if err != nil {
		return nil, err
	}
	in := &awsebs.StartSnapshotInput{ClientToken: clientToken(req.Token), Description: description(req.Token), Timeout: aws.Int32(startTimeout)}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(name), Value: aws.String(tags[name])})
	}
	size := req.SizeBytes
	if req.SnapshotID != "" {
		found, err := p.DescribeSnapshots(ctx, []string{req.SnapshotID})
		if err != nil {
			return nil, err
		}
		parent, ok := found[req.SnapshotID]
		if !ok {
			return nil, fmt.Errorf("%w: the parent %s is not in %s", plugins.ErrVolumeGone, req.SnapshotID, p.region)
		}
		size = max(size, parent.SizeBytes)
		in.ParentSnapshotId = &req.SnapshotID
	} else {
		if err := setFlag(&in.Encrypted, orFalse(req.Attributes[attrEncrypted])); err != nil {
			return nil, configured("", "attribute %s: %w", attrEncrypted, err)
		}
		if key := req.Attributes[attrKey]; key != "" {
			in.KmsKeyArn, in.Encrypted = &key, aws.Bool(true)
		}
	}
	if size <= 0 {
		return nil, configured("", "a snapshot without a parent needs a size")
	}
	in.VolumeSize = aws.Int64(gibibytes(size))
	return in, nil
}

func orFalse(text string) string {
	if text == "" {
		return "false"
	}
	return text
}

// SnapshotID is the new snapshot's.
func (t *target) SnapshotID() string { return t.id }

// WriteBlock stores a block (PutSnapshotBlock); EBS refuses bytes that do not have the checksum that goes with them. A shorter last block is filled
// with zeros.
func (t *target) WriteBlock(ctx context.Context, index int64, data []byte) error {
	return t.p.fail(ctx, "write block", fmt.Sprintf("%d of snapshot %s", index, t.id), t.writeBlock(ctx, index, data))
}

func (t *target) writeBlock(ctx context.Context, index int64, data []byte) error {
	switch {
	case index < 0 || index >= t.blocks:
		return configured("", "the volume has %d blocks", t.blocks)
	case len(data) == 0 || len(data) > plugins.BlockSize:
		return configured("", "a block has %d bytes, not %d", plugins.BlockSize, len(data))
	case t.sealed.Load():
		return nil
	case len(data) < plugins.BlockSize:
		whole, _ := t.pool.Get().(*[plugins.BlockSize]byte)
		defer t.pool.Put(whole)
		clear(whole[copy(whole[:], data):])
		data = whole[:]
	}
	in := &awsebs.PutSnapshotBlockInput{
		SnapshotId: &t.id, BlockIndex: aws.Int32(int32(index)), DataLength: aws.Int32(plugins.BlockSize),
		Checksum: aws.String(checksum(data)), ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256,
	}
	for attempt := 1; ; attempt++ {
		in.BlockData = bytes.NewReader(data)
		out, err := t.p.direct.PutSnapshotBlock(ctx, in)
		switch again := reason(err); {
		case err == nil && aws.ToString(out.Checksum) != *in.Checksum:
			err = fmt.Errorf("the service stored bytes with the SHA-256 %s, they have %s", aws.ToString(out.Checksum), *in.Checksum)
		case err == nil:
			return nil
		case again == types.ValidationExceptionReasonInvalidSnapshotId:
			return t.become(ctx, err)
		// A snapshot that was started a moment ago may not be known everywhere, and bytes may be damaged on their way.
		case !notFound(err) && again != types.ValidationExceptionReasonInvalidParameterValue:
			return err
		}
		if attempt == attempts {
			return err
		}
		if err := t.p.pause(ctx, attempt-1); err != nil {
			return err
		}
	}
}

// become finds out whether the snapshot takes no blocks because another holder of the token has sealed it; if not, err is why.
func (t *target) become(ctx context.Context, err error) error {
	for look := range settleLooks {
		found, describeErr := t.p.DescribeSnapshots(ctx, []string{t.id})
		if describeErr != nil {
			return describeErr
		}
		s, ok := found[t.id]
		switch {
		case ok && s.State == plugins.SnapshotCompleted:
			t.sealed.Store(true)
			return nil
		case ok && s.State == plugins.SnapshotFailed:
			return failed(s, "delete it and start with another token")
		}
		if pauseErr := t.p.pause(ctx, look); pauseErr != nil {
			return pauseErr
		}
	}
	return err
}

// Complete seals the snapshot (CompleteSnapshot) and waits until EC2 shows it as completed.
func (t *target) Complete(ctx context.Context, blocks int64) (plugins.Snapshot, error) {
	if !t.sealed.Load() {
		if err := t.seal(ctx, blocks); err != nil {
			return plugins.Snapshot{}, t.p.fail(ctx, "complete snapshot", t.id, err)
		}
	}
	s, err := t.wait(ctx)
	return s, t.p.fail(ctx, "wait for snapshot", t.id, err)
}

// seal calls CompleteSnapshot until it is performed. A second call of one that was performed is refused, so a refusal after a lost reply is held
// against the snapshot's state.
func (t *target) seal(ctx context.Context, blocks int64) error {
	if blocks < 0 || blocks > math.MaxInt32 {
		return configured("", "%d blocks cannot have been written", blocks)
	}
	in := &awsebs.CompleteSnapshotInput{SnapshotId: &t.id, ChangedBlocksCount: aws.Int32(int32(blocks))}
	for attempt := 1; ; attempt++ {
		_, err := t.p.direct.CompleteSnapshot(ctx, in, func(o *awsebs.Options) { o.Retryer = t.p.once })
		switch {
		case err == nil:
			return nil
		case reason(err) == types.ValidationExceptionReasonInvalidSnapshotId:
			return t.become(ctx, err)
		case !uncertain(ctx, err) && !notFound(err) || attempt == attempts:
			return err
		}
		if err := t.p.pause(ctx, attempt-1); err != nil {
			return err
		}
	}
}

func (t *target) wait(ctx context.Context) (plugins.Snapshot, error) {
	unseen := 0
	for look := 0; ; look++ {
		found, err := t.p.DescribeSnapshots(ctx, []string{t.id})
		if err != nil {
			return plugins.Snapshot{}, err
		}
		s, ok := found[t.id]
		switch {
		case !ok && unseen == settleLooks:
			return plugins.Snapshot{}, fmt.Errorf("%w: the snapshot is not in %s (any more)", plugins.ErrVolumeGone, t.p.region)
		case !ok:
			unseen++
		case s.State == plugins.SnapshotCompleted:
			return s, nil
		case s.State == plugins.SnapshotFailed:
			return plugins.Snapshot{}, failed(s, "delete it and start with another token")
		}
		if err := t.p.pause(ctx, look); err != nil {
			return plugins.Snapshot{}, err
		}
	}
}
