package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"kedge.dev/kedge/plugins"
)

const contentType = "application/octet-stream"

// firstBuffer is what a small object begins with; it doubles as needed.
const firstBuffer = 16 << 10

// held is what is in memory already, and can be read again. bytes.Reader is one.
type held interface {
	io.ReadSeeker
	Len() int
}

// Put stores what r yields: in one request if it fits a part, or is in memory already and not larger than Options.WholeSize; else in parts.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	info, err := s.put(ctx, key, r, opts)
	if err != nil {
		return plugins.ObjectInfo{}, s.fail(ctx, "put", key, err)
	}
	return info, nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if err := s.check(ctx, key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	if !opts.RetainUntil.IsZero() {
		if err := s.requireLock(ctx); err != nil {
			return plugins.ObjectInfo{}, err
		}
	}
	var done stored
	var err error
	if in, ok := r.(held); ok && int64(in.Len()) <= s.opts.WholeSize {
		// It is not copied first, and a pack of volume data costs one request in place of four.
		done, err = s.putWhole(ctx, key, in, opts)
	} else {
		done, err = s.putStream(ctx, key, r, opts)
	}
	if err != nil {
		return plugins.ObjectInfo{}, err
	}
	s.oldest.drop(key)
	if s.versioned {
		if err := s.settle(ctx, key, done.version, opts.IfNoneMatch); err != nil {
			return plugins.ObjectInfo{}, err
		}
	}
	return plugins.ObjectInfo{Key: key, Size: done.size, LastModified: done.at}, nil
}

// putStream stores what can be read once only: all of it where it fits a part, else in parts.
func (s *Store) putStream(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (stored, error) {
	first, ended, err := s.fill(ctx, r)
	defer func() { s.release(first) }()
	if err != nil {
		return stored{}, err
	}
	var second []byte
	if !ended {
		// An object of exactly one part's size is one request too.
		second, ended, err = s.fill(ctx, r)
		defer func() { s.release(second) }()
		if err != nil {
			return stored{}, err
		}
	}
	if ended && len(second) == 0 {
		return s.putWhole(ctx, key, bytes.NewReader(first), opts)
	}
	u := &upload{store: s, key: key, opts: opts}
	parts := [][]byte{first, second}
	first, second = nil, nil // theirs to release now
	return u.run(ctx, parts, ended, r)
}

// requireLock finds out before the first retained write that the bucket cannot retain: some services store the object and then say so.
func (s *Store) requireLock(ctx context.Context) error {
	if s.locks.Load() {
		return nil
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &awss3.GetObjectLockConfigurationInput{Bucket: &s.bucket})
	switch {
	case err == nil && out.ObjectLockConfiguration != nil && out.ObjectLockConfiguration.ObjectLockEnabled == types.ObjectLockEnabledEnabled:
		s.locks.Store(true)
		return nil
	case err == nil, code(err) == "ObjectLockConfigurationNotFoundError", code(err) == "NotImplemented":
		return errNoLock
	case refused(err):
		return nil // may not be asked; the write itself will tell
	}
	return err
}

// stored is what became of a write.
type stored struct {
	size    int64
	at      time.Time
	version string
}

// putWhole sends data as one request. The SDK reads it once for each attempt, and no more when it returns.
func (s *Store) putWhole(ctx context.Context, key string, data held, opts plugins.PutOptions) (stored, error) {
	if err := context.Cause(ctx); err != nil {
		return stored{}, err
	}
	size := int64(data.Len())
	in := &awss3.PutObjectInput{
		Bucket: &s.bucket, Key: s.fullKey(key), Body: data, ContentLength: &size,
		ContentType: aws.String(contentType), ServerSideEncryption: s.sse, SSEKMSKeyId: s.sseKey,
	}
	if s.checksums || !opts.RetainUntil.IsZero() { // S3 asks for one with retention
		sum, err := checksumOf(data)
		if err != nil {
			return stored{}, &sourceError{err}
		}
		in.ChecksumCRC32C = sum
	}
	if opts.IfNoneMatch {
		in.IfNoneMatch = aws.String("*")
	}
	if !opts.RetainUntil.IsZero() {
		in.ObjectLockMode = s.opts.Retention
		in.ObjectLockRetainUntilDate = aws.Time(opts.RetainUntil.UTC())
	}
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		return stored{}, s.writeError(ctx, key, opts, err)
	}
	return stored{size: size, at: s.serverTime(out.ResultMetadata), version: aws.ToString(out.VersionId)}, nil
}

// writeError recognises a lost race: a server may report the winner as a conflict, for longer than the request is worth repeating.
func (s *Store) writeError(ctx context.Context, key string, opts plugins.PutOptions, err error) error {
	if !opts.IfNoneMatch {
		return err
	}
	switch code(err) {
	case "PreconditionFailed":
		return plugins.ErrExists
	case "ConditionalRequestConflict", "OperationAborted", "NoSuchUpload":
		if _, statErr := s.stat(ctx, key); statErr == nil {
			return plugins.ErrExists
		} else if !errors.Is(statErr, plugins.ErrNotFound) {
			return errors.Join(err, statErr)
		}
	}
	return err
}

// serverTime is the Date of an answer, which is when the server finished an object but for the rounding.
func (s *Store) serverTime(answer middleware.Metadata) time.Time {
	if at, ok := awsmiddleware.GetServerTime(answer); ok {
		return at.UTC()
	}
	return s.opts.Now().UTC()
}

// checksum is the CRC-32C as S3 writes it.
func checksum(data []byte) *string { return spellSum(crc32.Checksum(data, castagnoli)) }

func spellSum(sum uint32) *string {
	return aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)))
}

// checksumOf is the checksum of what is left to read, which is left to read afterwards too.
func checksumOf(data held) (*string, error) {
	start, err := data.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, data); err != nil {
		return nil, err
	}
	_, err = data.Seek(start, io.SeekStart)
	return spellSum(sum.Sum32()), err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill reads up to one part from r, and says whether r has ended. The buffer grows with the object, so that small ones take little.
func (s *Store) fill(ctx context.Context, r io.Reader) (data []byte, ended bool, err error) {
	size := int(s.opts.PartSize)
	if sized, ok := r.(interface{ Len() int }); ok && sized.Len() >= 0 && sized.Len() < size-1 {
		data = make([]byte, 0, sized.Len()+1) // room for the read that finds the end
	}
	for len(data) < size {
		if err := context.Cause(ctx); err != nil {
			return data, false, err
		}
		if len(data) == cap(data) {
			data = s.grow(data)
		}
		n, err := r.Read(data[len(data):min(cap(data), size)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, true, context.Cause(ctx)
		case err != nil:
			return data, false, &sourceError{err}
		}
	}
	return data, false, nil
}

// grow moves data to a buffer twice as large; one of a whole part comes from those that earlier parts have given back.
func (s *Store) grow(data []byte) []byte {
	want := max(2*cap(data), firstBuffer)
	if want < int(s.opts.PartSize) {
		return append(make([]byte, 0, want), data...)
	}
	if pooled, ok := s.buffers.Get().(*[]byte); ok {
		return append((*pooled)[:0], data...)
	}
	return append(make([]byte, 0, s.opts.PartSize), data...)
}

// release gives a buffer back, if it is worth it.
func (s *Store) release(data []byte) {
	if int64(cap(data)) >= s.opts.PartSize {
		data = data[:0]
		s.buffers.Put(&data)
	}
}

// withLock sets what CreateMultipartUpload takes of the options; the other half is CompleteMultipartUpload's.
func (s *Store) withLock(in *awss3.CreateMultipartUploadInput, opts plugins.PutOptions) {
	if !opts.RetainUntil.IsZero() {
		in.ObjectLockMode = s.opts.Retention
		in.ObjectLockRetainUntilDate = aws.Time(opts.RetainUntil.UTC())
	}
	if s.checksums || !opts.RetainUntil.IsZero() {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32c
	}
}
