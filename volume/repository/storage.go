package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"

	"kedge.dev/kedge/plugins"
)

// storageType is our name in kopia's registry of storages. Such a configuration opens only within this process: kopia's command line
// uses its own storages for the same blobs.
const storageType = "kedge"

// folderSuffix ends the file names of kopia's own folder storage.
const folderSuffix = ".f"

// Layout is how the names of blobs become keys. kopia's own storages differ in it, and whichever opens the repository on the worst day must
// find what it expects.
type Layout int

const (
	// LayoutBucket is that of kopia's S3 storage: the key is the blob's name.
	LayoutBucket Layout = iota
	// LayoutFolder is that of kopia's folder storage: the name and ".f", and a file .shards that says there are no subfolders.
	LayoutFolder
)

func (l Layout) key(id blob.ID) string {
	if l == LayoutFolder {
		return Folder + "/" + string(id) + folderSuffix
	}
	return Folder + "/" + string(id)
}

// id is the blob that key stands for; ok is false for what is no blob.
func (l Layout) id(key string) (id blob.ID, ok bool) {
	name, ok := strings.CutPrefix(key, Folder+"/")
	if ok && l == LayoutFolder {
		name, ok = strings.CutSuffix(name, folderSuffix)
	}
	return blob.ID(name), ok && name != "" && !strings.Contains(name, "/")
}

// storage shows a plugins.ObjectStore as the blob storage that kopia wants.
type storage struct {
	blob.DefaultProviderImplementation
	store  plugins.ObjectStore
	layout Layout
	now    func() time.Time
	writes *semaphore.Weighted // puts and deletes under way
}

var _ blob.Storage = (*storage)(nil)

// connection is what a configuration file says of our storage: nothing, since the store itself is handed over in the context of the call
// that opens the repository.
type connection struct{}

type storageKey struct{}

// kopia opens storages only by a name that is registered.
func init() {
	blob.AddSupportedStorage(storageType, connection{}, func(ctx context.Context, _ *connection, _ bool) (blob.Storage, error) {
		s, ok := ctx.Value(storageKey{}).(*storage)
		if !ok {
			return nil, errors.New("open storage: only Kedge opens a configuration of Kedge")
		}
		return s, nil
	})
}

// GetBlob reads a range of a blob, or with a negative length all of it.
func (s *storage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, output blob.OutputBuffer) error {
	output.Reset()
	if length < 0 {
		offset, length = 0, -1
	}
	if offset < 0 {
		return fmt.Errorf("read %s: %w: offset %d", id, blob.ErrInvalidRange, offset)
	}
	r, err := s.store.Get(ctx, s.layout.key(id), offset, length)
	if err != nil {
		return s.translate(ctx, err)
	}
	_, err = io.Copy(output, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return s.translate(ctx, err)
	}
	return blob.EnsureLengthExactly(output.Length(), length)
}

// GetMetadata describes one blob.
func (s *storage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	info, err := s.store.Stat(ctx, s.layout.key(id))
	if err != nil {
		return blob.Metadata{}, s.translate(ctx, err)
	}
	return blob.Metadata{BlobID: id, Length: info.Size, Timestamp: info.LastModified}, nil
}

// ListBlobs calls fn for every blob whose name begins with prefix.
func (s *storage) ListBlobs(ctx context.Context, prefix blob.ID, fn func(blob.Metadata) error) error {
	var callback error
	err := s.store.List(ctx, Folder+"/"+string(prefix), func(info plugins.ObjectInfo) error {
		id, ok := s.layout.id(info.Key)
		if !ok {
			return nil
		}
		callback = fn(blob.Metadata{BlobID: id, Length: info.Size, Timestamp: info.LastModified})
		return callback
	})
	if callback != nil {
		return callback
	}
	return s.translate(ctx, err)
}

// PutBlob stores a blob. kopia replaces only the few blobs that are meant to be replaced; of the others each has a name of its own.
func (s *storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if !opts.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}
	put := plugins.PutOptions{IfNoneMatch: opts.DoNotRecreate}
	if opts.RetentionPeriod != 0 {
		put.RetainUntil = s.now().Add(opts.RetentionPeriod)
	}
	if err := s.writes.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer s.writes.Release(1)
	r := data.Reader()
	defer r.Close()
	info, err := s.store.Put(ctx, s.layout.key(id), &sizedReader{data: data, r: r, size: int64(data.Length())}, put)
	if err != nil {
		return s.translate(ctx, err)
	}
	if opts.GetModTime != nil {
		*opts.GetModTime = info.LastModified
	}
	return nil
}

// DeleteBlob removes a blob. One that retention protects stays for now: what kopia deletes nobody refers to any more, and it asks again at a
// later maintenance.
func (s *storage) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := s.writes.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer s.writes.Release(1)
	err := s.store.Delete(ctx, s.layout.key(id))
	if errors.Is(err, plugins.ErrRetained) {
		return nil
	}
	return s.translate(ctx, err)
}

// ExtendBlobRetention protects a blob from now on for the given time, or as long as it is protected already.
func (s *storage) ExtendBlobRetention(ctx context.Context, id blob.ID, opts blob.ExtendOptions) error {
	if opts.RetentionPeriod <= 0 {
		return blob.ErrUnsupportedObjectLock
	}
	err := plugins.Retain(ctx, s.store, s.layout.key(id), s.now().Add(opts.RetentionPeriod))
	if errors.Is(err, plugins.ErrUnsupported) {
		return fmt.Errorf("%w: %w", blob.ErrUnsupportedObjectLock, err)
	}
	return s.translate(ctx, err)
}

// ConnectionInfo is written to the configuration file.
func (s *storage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connection{}}
}

// DisplayName names the store.
func (s *storage) DisplayName() string { return s.store.String() }

// translate gives kopia the errors that it tests for. Any other failure is final: the store has made its own attempts. kopia would go on
// asking for the list of indexes for ever, so such a failure also ends the call that it is part of.
func (s *storage) translate(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, plugins.ErrNotFound):
		return fmt.Errorf("%w: %w", blob.ErrBlobNotFound, err)
	case errors.Is(err, plugins.ErrExists):
		return fmt.Errorf("%w: %w", blob.ErrBlobAlreadyExists, err)
	case errors.Is(err, plugins.ErrRange):
		return fmt.Errorf("%w: %w", blob.ErrInvalidRange, err)
	}
	if fail, ok := ctx.Value(guardKey{}).(context.CancelCauseFunc); ok {
		fail(err)
	}
	return err
}

// sizedReader tells the store how much there is to read, so that it need not copy it to find out. Who reads it cannot close it.
type sizedReader struct {
	data     blob.Bytes
	r        io.ReadSeeker // of data
	at, size int64
}

// Len is how many bytes are left.
func (s *sizedReader) Len() int { return int(s.size - s.at) }

// Read implements io.Reader.
func (s *sizedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.at += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (s *sizedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := s.r.Seek(offset, whence)
	if err == nil {
		s.at = at
	}
	return at, err
}

// WriteTo implements io.WriterTo: who sums the bytes up gets them where they are.
func (s *sizedReader) WriteTo(w io.Writer) (int64, error) {
	if s.at != 0 {
		return io.Copy(w, struct{ io.Reader }{s})
	}
	n, err := s.data.WriteTo(w)
	if _, seekErr := s.Seek(n, io.SeekStart); err == nil {
		err = seekErr
	}
	return n, err
}
