package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

// abortPatience bounds the cleaning up after a failed upload, which goes on after a cancel.
const abortPatience = 30 * time.Second

// upload is one object on its way in parts. What it holds in memory is bounded by the parts under way.
type upload struct {
	store *Store
	key   string
	opts  plugins.PutOptions

	id    *string
	sums  bool                   // each part goes with its checksum
	parts []*types.CompletedPart // by number, from 1 on; each is filled in by its own goroutine
	size  int64
}

// run sends first, and, unless ended, what r yields after it. On any failure nothing is left but what an abort that fails too leaves: parts that
// no other call can see.
func (u *upload) run(ctx context.Context, first [][]byte, ended bool, r io.Reader) (stored, error) {
	s := u.store
	if u.opts.IfNoneMatch {
		// The server decides at the end; looking first saves sending much in vain.
		if _, err := s.stat(ctx, u.key); err == nil {
			return stored{}, plugins.ErrExists
		} else if !errors.Is(err, plugins.ErrNotFound) {
			return stored{}, err
		}
	}
	in := &awss3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: s.fullKey(u.key), ContentType: aws.String(contentType), ServerSideEncryption: s.sse, SSEKMSKeyId: s.sseKey,
	}
	s.withLock(in, u.opts)
	u.sums = in.ChecksumAlgorithm != ""
	created, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return stored{}, err
	}
	u.id = created.UploadId
	if err := u.send(ctx, first, ended, r); err != nil {
		return stored{}, u.abort(ctx, err)
	}
	return u.complete(ctx)
}

// send reads and uploads parts, Options.Concurrency at a time. The first failure, be it of r or of a part, ends all the others.
func (u *upload) send(ctx context.Context, first [][]byte, ended bool, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(u.store.opts.Concurrency)
	for {
		data, err := u.next(ctx, &first, &ended, r)
		if err != nil {
			cancel()
			_ = group.Wait() // where a part failed first, err is that failure: the cause of ctx's end
			return err
		}
		if len(data) == 0 {
			return group.Wait()
		}
		part := &types.CompletedPart{PartNumber: aws.Int32(int32(len(u.parts) + 1))}
		u.parts = append(u.parts, part)
		u.size += int64(len(data))
		group.Go(func() error {
			defer u.store.release(data)
			return u.sendPart(ctx, part, data)
		})
	}
}

// next is the part to send now, or nothing at the end.
func (u *upload) next(ctx context.Context, first *[][]byte, ended *bool, r io.Reader) (data []byte, err error) {
	switch {
	case len(*first) > 0:
		data, *first = (*first)[0], (*first)[1:]
	case !*ended:
		data, *ended, err = u.store.fill(ctx, r)
	default:
		err = context.Cause(ctx)
	}
	if err == nil && len(data) > 0 && len(u.parts) == mostParts {
		err = fmt.Errorf("object is larger than %d parts of %d bytes, which is all that S3 takes", mostParts, u.store.opts.PartSize)
	}
	if err != nil {
		u.store.release(data)
		return nil, err
	}
	return data, nil
}

func (u *upload) sendPart(ctx context.Context, part *types.CompletedPart, data []byte) error {
	in := &awss3.UploadPartInput{
		Bucket: &u.store.bucket, Key: u.store.fullKey(u.key), UploadId: u.id, PartNumber: part.PartNumber,
		Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
	}
	if u.sums {
		in.ChecksumCRC32C = checksum(data)
	}
	out, err := u.store.client.UploadPart(ctx, in)
	if err != nil {
		return err
	}
	part.ETag, part.ChecksumCRC32C = out.ETag, in.ChecksumCRC32C
	return nil
}

// complete makes the object of the parts.
func (u *upload) complete(ctx context.Context) (stored, error) {
	s := u.store
	parts := make([]types.CompletedPart, len(u.parts))
	for i, part := range u.parts {
		parts[i] = *part
	}
	in := &awss3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: s.fullKey(u.key), UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}
	if u.opts.IfNoneMatch {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := s.client.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return stored{}, u.abort(ctx, s.writeError(ctx, u.key, u.opts, err))
	}
	return stored{size: u.size, at: s.serverTime(out.ResultMetadata), version: aws.ToString(out.VersionId)}, nil
}

// abort removes the parts, and returns cause. It goes on where ctx is cancelled, for that is when it is needed.
func (u *upload) abort(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	_, err := u.store.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{
		Bucket: &u.store.bucket, Key: u.store.fullKey(u.key), UploadId: u.id,
	})
	if err != nil && code(err) != "NoSuchUpload" {
		return &leftPartsError{cause: cause, abort: err}
	}
	return cause
}

// leftPartsError is a failed upload whose parts could not be removed either. The first failure is what counts.
type leftPartsError struct{ cause, abort error }

func (e *leftPartsError) Error() string {
	return fmt.Sprintf("%v; its parts could not be removed either (%v), a lifecycle rule for incomplete uploads will", e.cause, e.abort)
}

func (e *leftPartsError) Unwrap() error { return e.cause }
