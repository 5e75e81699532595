package ebs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsebs "github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

const (
	// listSize is how many blocks a page of a list has at most (MaxResults of ListSnapshotBlocks: 100 to 10000).
	listSize = 10_000
	// renewSize is how many tokens are renewed at once: those of the blocks that are likely to be read next.
	renewSize = 1000
	// mostRenewed bounds the tokens that are remembered, about 200 bytes each.
	mostRenewed = 20_000
	// attempts is how often a block is read or written whose bytes do not arrive as they were.
	attempts = 5
)

// source reads the blocks of one snapshot.
type source struct {
	p        *Provider
	id, base string
	size     int64

	mu      sync.Mutex
	renewed map[int64]string // tokens by block
}

// OpenBlocks opens a completed snapshot; a base must be a snapshot of a volume of the same size and lineage, which EBS decides.
func (p *Provider) OpenBlocks(ctx context.Context, snapshotID, base string) (plugins.BlockSource, error) {
	src, err := p.openBlocks(ctx, snapshotID, base)
	if err != nil {
		return nil, p.fail(ctx, "open blocks of snapshot", snapshotID, err)
	}
	return src, nil
}

func (p *Provider) openBlocks(ctx context.Context, snapshotID, base string) (*source, error) {
	ids := []string{snapshotID}
	if base != "" {
		ids = append(ids, base)
	}
	found, err := p.DescribeSnapshots(ctx, ids)
	if err != nil {
		return nil, err
	}
	s, ok := found[snapshotID]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: snapshot %s is not in %s", plugins.ErrVolumeGone, snapshotID, p.region)
	case s.State == plugins.SnapshotFailed:
		return nil, failed(s, "take another snapshot")
	case s.State != plugins.SnapshotCompleted:
		return nil, awsconf.WithRemedy(fmt.Errorf("it is %s, %d %% stored", s.State, s.Progress), "wait until it is completed")
	}
	src := &source{p: p, id: snapshotID, base: base, size: s.SizeBytes, renewed: map[int64]string{}}
	if base != "" {
		b, ok := found[base]
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: the base %s is gone", plugins.ErrNoBase, base)
		case b.State != plugins.SnapshotCompleted:
			return nil, fmt.Errorf("%w: the base %s is %s", plugins.ErrNoBase, base, b.State)
		case b.SizeBytes != s.SizeBytes:
			return nil, fmt.Errorf("%w: the base %s has %d bytes, the snapshot %d", plugins.ErrNoBase, base, b.SizeBytes, s.SizeBytes)
		}
	}
	return src, src.probe(ctx)
}

// probe finds out whether EBS direct lists the snapshot, and compares it with the base. It may not know a snapshot yet that was completed a moment ago.
func (s *source) probe(ctx context.Context) error {
	for look := 0; ; look++ {
		_, err := s.page(ctx, nil, aws.Int32(0), 100)
		switch invalid := reason(err); {
		case err == nil:
			return nil
		case s.base != "" && (invalid == types.ValidationExceptionReasonUnrelatedSnapshots || invalid == types.ValidationExceptionReasonInvalidParameterValue):
			return fmt.Errorf("%w: %w", plugins.ErrNoBase, s.p.words(err))
		case !notFound(err) || look == settleLooks:
			return err
		}
		if err := s.p.pause(ctx, look); err != nil {
			return err
		}
	}
}

// reason is why a ValidationException was thrown, or "".
func reason(err error) types.ValidationExceptionReason {
	if invalid, ok := errors.AsType[*types.ValidationException](err); ok {
		return invalid.Reason
	}
	return ""
}

func notFound(err error) bool {
	_, ok := errors.AsType[*types.ResourceNotFoundException](err)
	return ok
}

// SizeBytes is the volume's size.
func (s *source) SizeBytes() int64 { return s.size }

// Base is the snapshot that Blocks lists the difference to.
func (s *source) Base() string { return s.base }

// listing is a page of either list.
type listing struct {
	blocks []plugins.Block
	next   *string
}

// page asks for a page of the blocks (ListSnapshotBlocks), or of those that differ from the base (ListChangedBlocks).
func (s *source) page(ctx context.Context, token *string, from *int32, size int32) (listing, error) {
	if s.base == "" {
		return s.list(ctx, token, from, size)
	}
	out, err := s.p.direct.ListChangedBlocks(ctx, &awsebs.ListChangedBlocksInput{
		FirstSnapshotId: &s.base, SecondSnapshotId: &s.id, NextToken: token, StartingBlockIndex: from, MaxResults: &size,
	})
	if err != nil {
		return listing{}, err
	}
	found := listing{next: out.NextToken}
	for _, b := range out.ChangedBlocks {
		found.blocks = append(found.blocks, plugins.Block{
			Index: int64(aws.ToInt32(b.BlockIndex)), Token: aws.ToString(b.SecondBlockToken), Gone: b.SecondBlockToken == nil,
		})
	}
	return found, checkSize(out.BlockSize)
}

func (s *source) list(ctx context.Context, token *string, from *int32, size int32) (listing, error) {
	out, err := s.p.direct.ListSnapshotBlocks(ctx, &awsebs.ListSnapshotBlocksInput{SnapshotId: &s.id, NextToken: token, StartingBlockIndex: from, MaxResults: &size})
	if err != nil {
		return listing{}, err
	}
	found := listing{next: out.NextToken}
	for _, b := range out.Blocks {
		found.blocks = append(found.blocks, plugins.Block{Index: int64(aws.ToInt32(b.BlockIndex)), Token: aws.ToString(b.BlockToken)})
	}
	return found, checkSize(out.BlockSize)
}

func checkSize(got *int32) error {
	if got != nil && *got != plugins.BlockSize {
		return fmt.Errorf("blocks of %d bytes: this program knows those of %d only", *got, plugins.BlockSize)
	}
	return nil
}

// Blocks lists the blocks, a page in memory at a time.
func (s *source) Blocks(ctx context.Context, fn func(plugins.Block) error) error {
	last := int64(-1)
	var token *string
	for {
		found, err := s.page(ctx, token, nil, listSize)
		if err != nil {
			return s.p.fail(ctx, "list blocks of snapshot", s.id, err)
		}
		for _, b := range found.blocks {
			if b.Index <= last {
				return s.p.fail(ctx, "list blocks of snapshot", s.id, fmt.Errorf("block %d came after %d", b.Index, last))
			}
			last = b.Index
			if err := fn(b); err != nil {
				return err
			}
		}
		if token = found.next; aws.ToString(token) == "" {
			return nil
		}
	}
}

// ReadBlock reads a block (GetSnapshotBlock), and again where its bytes do not have the checksum that came with them.
func (s *source) ReadBlock(ctx context.Context, b plugins.Block, buf []byte) (int, error) {
	n, _, err := s.ReadSummedBlock(ctx, b, buf)
	return n, err
}

// ReadSummedBlock is ReadBlock, with the checksum.
func (s *source) ReadSummedBlock(ctx context.Context, b plugins.Block, buf []byte) (int, [sha256.Size]byte, error) {
	n, sum, err := s.readBlock(ctx, b, buf)
	if err != nil {
		return 0, sum, s.p.fail(ctx, "read block", fmt.Sprintf("%d of snapshot %s", b.Index, s.id), err)
	}
	return n, sum, nil
}

func (s *source) readBlock(ctx context.Context, b plugins.Block, buf []byte) (n int, sum [sha256.Size]byte, err error) {
	switch {
	case len(buf) < plugins.BlockSize:
		return 0, sum, configured("", "the buffer has %d bytes, a block %d", len(buf), plugins.BlockSize)
	case b.Gone:
		return 0, sum, configured("", "the block is not in the snapshot: it reads as zeros")
	}
	token, renewals := s.token(b), 0
	for attempt := 1; ; attempt++ {
		n, sum, err = s.get(ctx, b.Index, token, buf)
		_, damaged := errors.AsType[*damageError](err)
		switch {
		case err == nil:
			return n, sum, nil
		case reason(err) == types.ValidationExceptionReasonInvalidBlockToken && renewals < 2:
			renewals++
			if token, err = s.renew(ctx, b.Index, token); err != nil {
				return 0, sum, err
			}
			continue
		case !damaged || attempt == attempts:
			return 0, sum, err
		}
		if err := s.p.pause(ctx, attempt-1); err != nil {
			return 0, sum, err
		}
	}
}

// damageError means that the bytes of a block did not arrive as they were sent.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

func (s *source) get(ctx context.Context, index int64, token string, buf []byte) (n int, sum [sha256.Size]byte, err error) {
	out, err := s.p.direct.GetSnapshotBlock(ctx, &awsebs.GetSnapshotBlockInput{SnapshotId: &s.id, BlockIndex: aws.Int32(int32(index)), BlockToken: &token})
	if err != nil {
		return 0, sum, err
	}
	defer out.BlockData.Close()
	n = int(aws.ToInt32(out.DataLength))
	if n <= 0 || n > plugins.BlockSize {
		return 0, sum, fmt.Errorf("the service says that the block has %d bytes", n)
	}
	if _, err := io.ReadFull(out.BlockData, buf[:n]); err != nil {
		return 0, sum, &damageError{fmt.Errorf("read its bytes: %w", err)}
	}
	if out.ChecksumAlgorithm != types.ChecksumAlgorithmChecksumAlgorithmSha256 {
		return 0, sum, fmt.Errorf("its checksum is of the unknown kind %q", out.ChecksumAlgorithm)
	}
	sum = sha256.Sum256(buf[:n])
	if want, have := aws.ToString(out.Checksum), base64.StdEncoding.EncodeToString(sum[:]); want != have {
		return 0, sum, &damageError{fmt.Errorf("its bytes have the SHA-256 %s, the service says %s", have, want)}
	}
	return n, sum, nil
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// token is the newest token of a block.
func (s *source) token(b plugins.Block) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := s.renewed[b.Index]; ok {
		return token
	}
	return b.Token
}

// renew gets a token in place of one that was refused, and with it those of the blocks behind. One goroutine does it for all.
func (s *source) renew(ctx context.Context, index int64, refused string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := s.renewed[index]; ok && token != refused {
		return token, nil
	}
	found, err := s.list(ctx, nil, aws.Int32(int32(index)), renewSize)
	if err != nil {
		return "", fmt.Errorf("renew its token: %w", err)
	}
	if len(s.renewed) > mostRenewed {
		clear(s.renewed)
	}
	for _, b := range found.blocks {
		s.renewed[b.Index] = b.Token
	}
	token, ok := s.renewed[index]
	if !ok || token == refused {
		return "", configured("", "the snapshot has no such block")
	}
	return token, nil
}
