package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// resumes is how often in a row a reader reconnects without a byte in between. firstPause is the longest wait before the first of them.
const (
	resumes    = 6
	firstPause = 200 * time.Millisecond
)

var (
	errChanged = errors.New("object was replaced while it was read")
	errStalled = errors.New("no bytes came for too long")
)

// Get opens a range. A connection that breaks or stalls is replaced where it was, on the same version of the object.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.open(ctx, key, offset, length)
	if err != nil {
		return nil, s.fail(ctx, "get", key, err)
	}
	return r, nil
}

func (s *Store) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%w: offset %d", plugins.ErrRange, offset)
	}
	if length == 0 {
		return s.nothing(ctx, key, offset) // S3 has no range without bytes
	}
	r := &reader{ctx: ctx, store: s, key: key, offset: offset, left: length}
	err := r.connectOldest() //nolint:contextcheck // the reader has it: ctx governs it until it is closed
	if code(err) == "InvalidRange" {
		return s.nothing(ctx, key, offset) // at the end, or beyond
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// replacements is how often a Get looks again for a version that others replace faster than it can be read.
const replacements = 10

// connectOldest connects to the object of the key: in a bucket with versions, to the oldest one.
func (r *reader) connectOldest() error {
	if !r.store.versioned {
		return r.connect()
	}
	for try := 0; ; try++ {
		id, err := r.store.versionToRead(r.ctx, r.key)
		if err != nil {
			return err
		}
		r.version = id
		err = r.connect()
		if !errors.Is(err, plugins.ErrNotFound) || try == replacements {
			return err
		}
		// What was the oldest version is gone: deleted, or replaced.
		r.store.oldest.drop(r.key)
	}
}

// nothing is a range without bytes, if the object reaches that far.
func (s *Store) nothing(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	info, err := s.stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > info.Size {
		return nil, fmt.Errorf("%w: offset %d of %d bytes", plugins.ErrRange, offset, info.Size)
	}
	return io.NopCloser(strings.NewReader("")), nil
}

// reader yields a range over as many connections as it takes.
type reader struct {
	ctx     context.Context // the contract of Get: ctx governs the reader until it is closed
	store   *Store
	key     string
	version string // to read, where the bucket has versions
	etag    string // of the first answer; what follows must have it too

	offset int64 // of the next byte
	left   int64 // bytes still to come; negative until the first answer where all are wanted

	body   io.ReadCloser // nil where there is no connection
	cancel context.CancelCauseFunc
	stall  *time.Timer
	failed int // reconnects in a row without a byte
	closed bool
}

// connect asks for what is left.
func (r *reader) connect() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	in := &awss3.GetObjectInput{Bucket: &r.store.bucket, Key: r.store.fullKey(r.key), Range: r.byteRange()}
	if r.version != "" {
		in.VersionId = &r.version
	}
	if r.etag != "" {
		in.IfMatch = &r.etag
	}
	out, err := r.store.client.GetObject(ctx, in)
	if err != nil {
		cancel(nil)
		switch {
		case code(err) == "PreconditionFailed", r.etag != "" && notFound(err):
			return errChanged
		case notFound(err):
			return plugins.ErrNotFound
		}
		return err
	}
	if err := r.accept(out); err != nil {
		cancel(nil)
		return errors.Join(err, out.Body.Close())
	}
	r.body, r.cancel = out.Body, cancel
	r.stall = time.AfterFunc(r.store.opts.Stall, func() { cancel(errStalled) })
	r.stall.Stop()
	return nil
}

func (r *reader) byteRange() *string {
	switch {
	case r.left > 0:
		// The sum of a far offset and a huge length would overflow.
		end := r.offset + min(r.left, 1<<62-r.offset) - 1
		return aws.String(fmt.Sprintf("bytes=%d-%d", r.offset, end))
	case r.offset > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", r.offset))
	}
	return nil
}

// accept holds an answer against the question, and learns from it how many bytes are to come. A server that does not keep to ranges is
// found here, before its bytes are taken for what was asked for.
func (r *reader) accept(out *awss3.GetObjectOutput) error {
	if out.ContentLength == nil {
		return fmt.Errorf("%w: the server's answer to a read has no Content-Length", plugins.ErrConfig)
	}
	coming := *out.ContentLength
	if asked := r.byteRange(); asked != nil {
		start, total, ok := parseContentRange(aws.ToString(out.ContentRange))
		want := total - r.offset
		if r.left >= 0 {
			want = min(want, r.left)
		}
		if !ok || start != r.offset || coming != want {
			return fmt.Errorf("%w: the server's answer to %s is the range %q with %d bytes", plugins.ErrConfig, *asked, aws.ToString(out.ContentRange), coming)
		}
	}
	if r.etag != "" && (coming != r.left || aws.ToString(out.ETag) != r.etag) {
		return errChanged
	}
	r.left, r.etag = coming, aws.ToString(out.ETag)
	return nil
}

// parseContentRange takes "bytes 5-9/100" apart into the first offset and the size of the whole.
func parseContentRange(contentRange string) (start, total int64, ok bool) {
	rest, isBytes := strings.CutPrefix(contentRange, "bytes ")
	span, size, hasSize := strings.Cut(rest, "/")
	first, _, hasEnd := strings.Cut(span, "-")
	start, startErr := strconv.ParseInt(first, 10, 64)
	total, sizeErr := strconv.ParseInt(size, 10, 64)
	return start, total, isBytes && hasSize && hasEnd && startErr == nil && sizeErr == nil
}

func (r *reader) Read(p []byte) (int, error) {
	switch {
	case r.closed:
		return 0, r.store.fail(r.ctx, "get", r.key, errors.New("read after close"))
	case r.ctx.Err() != nil:
		return 0, r.store.fail(r.ctx, "get", r.key, context.Cause(r.ctx))
	case r.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	for {
		if r.body == nil {
			if err := r.resume(); err != nil {
				return 0, r.store.fail(r.ctx, "get", r.key, err)
			}
		}
		r.stall.Reset(r.store.opts.Stall)
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.stall.Stop()
		r.offset += int64(n)
		r.left -= int64(n)
		if n > 0 {
			r.failed = 0
		}
		if err != nil && r.left > 0 {
			r.disconnect() // an end before the end is a broken connection as well
		}
		if n > 0 {
			return n, nil
		}
		if r.left == 0 {
			return 0, io.EOF
		}
		if r.ctx.Err() != nil {
			return 0, r.store.fail(r.ctx, "get", r.key, context.Cause(r.ctx))
		}
	}
}

// resume reconnects, after a pause that grows with each failure in a row.
func (r *reader) resume() error {
	for {
		if r.failed == resumes {
			return fmt.Errorf("connection broke %d times in a row with %d bytes left: %w", r.failed, r.left, io.ErrUnexpectedEOF)
		}
		if r.failed > 0 {
			if err := r.pause(); err != nil {
				return err
			}
		}
		r.failed++
		err := r.connect()
		if err == nil || !temporary(err) {
			return err
		}
	}
}

func (r *reader) pause() error {
	longest := firstPause << (r.failed - 1)
	timer := time.NewTimer(longest/2 + rand.N(longest/2)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// temporary says whether reading may go on after err: the SDK has tried again already, but a long read outlives a server's restart.
func temporary(err error) bool {
	d := awsconf.Diagnose(err, "", time.Time{})
	return d.Kind == awsconf.Other && !errors.Is(err, errChanged) && !errors.Is(err, plugins.ErrNotFound) &&
		!errors.Is(err, plugins.ErrConfig) && !errors.Is(err, plugins.ErrAccess) && code(err) != "InvalidRange"
}

func (r *reader) disconnect() {
	if r.body == nil {
		return
	}
	r.stall.Stop()
	r.cancel(nil)
	_ = r.body.Close() // nothing more is wanted of it
	r.body = nil
}

// Close gives the connection back if all was read, and closes it otherwise.
func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if r.body != nil && r.left == 0 {
		// The transport re-uses a connection whose body it has seen to the end.
		r.stall.Reset(r.store.opts.Stall)
		_, _ = r.body.Read(make([]byte, 1))
	}
	r.disconnect()
	return nil
}
