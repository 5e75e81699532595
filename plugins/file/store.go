// Package file is the object store that is a folder: of a disk, a mounted share or a memory stick.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// unfinished is the folder, within the store's, that holds writes until they are whole. No key can name it.
const unfinished = plugins.ReservedSegment + "unfinished"

// staleAfter is the age from which an unfinished write belongs to a process that died: a living one touches its file all the time.
const staleAfter = 24 * time.Hour

// Options are what a folder's location does not say.
type Options struct {
	// Create makes the folder where it does not exist.
	Create bool
	// Now is the clock by which unfinished writes grow stale; nil means time.Now.
	Now func() time.Time
}

// Store is a folder. It implements plugins.ObjectStore and plugins.Checker.
//
// An object is a file whose path within the folder is its key, written to a folder of unfinished writes first and then linked (which
// fails where a file exists) or renamed (which replaces it) into place. Files and directories are flushed to the disk before a Put
// returns. Paths are resolved by os.Root, so that neither a key nor a symbolic link leads out of the folder.
type Store struct {
	path    string
	root    *os.Root
	now     func() time.Time
	counter atomic.Uint64
}

var (
	_ plugins.ObjectStore = (*Store)(nil)
	_ plugins.Checker     = (*Store)(nil)
)

// New opens the folder that loc names and removes what dead processes left unfinished. The error wraps plugins.ErrConfig where there
// is no such folder, and plugins.ErrAccess where it may not be read.
func New(loc v1alpha1.FileLocation, opts Options) (*Store, error) {
	if loc.Path == "" {
		return nil, &plugins.StoreError{
			Op: "open", Store: "file://", Err: fmt.Errorf("%w: the path is empty", plugins.ErrConfig), Remedy: "name a folder",
		}
	}
	path, err := filepath.Abs(loc.Path)
	if err != nil {
		return nil, fmt.Errorf("resolve the folder %q: %w", loc.Path, err)
	}
	s := &Store{path: path, now: opts.Now}
	if s.now == nil {
		s.now = time.Now //nolint:forbidigo // the default of a field
	}
	s.counter.Store(uint64(s.now().UnixNano()))
	if opts.Create {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, s.fail("open", "", err)
		}
	}
	if s.root, err = os.OpenRoot(path); err != nil {
		return nil, s.fail("open", "", err)
	}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(s.fail("open", "", err), s.root.Close())
	}
	return s, nil
}

// Close gives the folder's handle back; the store cannot be used any more.
func (s *Store) Close() error { return s.root.Close() }

// String names the folder as a URL.
func (s *Store) String() string { return "file://" + filepath.ToSlash(s.path) }

// sweep removes unfinished writes that nobody can be busy with. A folder that may only be read has none of ours to remove.
func (s *Store) sweep() error {
	dir, err := s.root.Open(unfinished)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	limit := s.now().Add(-staleAfter)
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || info.ModTime().After(limit) {
			continue // gone by itself, not ours, or perhaps alive
		}
		err = s.root.Remove(unfinished + "/" + entry.Name())
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	return nil
}

// Stat describes the file of key.
func (s *Store) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	if err := s.check(ctx, key); err != nil {
		return plugins.ObjectInfo{}, s.fail("stat", key, err)
	}
	info, err := s.root.Stat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return plugins.ObjectInfo{}, s.fail("stat", key, err)
	}
	return describe(key, info), nil
}

// Get opens a part of the file of key. Who replaces the file meanwhile does not disturb the reader, who keeps the old one.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, s.fail("get", key, err)
	}
	// Opening a named pipe would wait for its writer.
	f, err := s.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, s.fail("get", key, err)
	}
	left, err := span(f, offset, length)
	if err != nil {
		return nil, s.fail("get", key, errors.Join(err, f.Close()))
	}
	return &reader{ctx: ctx, store: s, key: key, file: f, left: left}, nil
}

// span positions f at offset and says how many of length bytes it has from there on.
func span(f *os.File, offset, length int64) (int64, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fs.ErrNotExist
	case offset < 0 || offset > info.Size():
		return 0, fmt.Errorf("%w: offset %d of %d bytes", plugins.ErrRange, offset, info.Size())
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	left := info.Size() - offset
	if length >= 0 {
		left = min(left, length)
	}
	return left, nil
}

// Delete removes the file of key, and the folders that are empty without it.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.check(ctx, key); err != nil {
		return s.fail("delete", key, err)
	}
	info, err := s.root.Lstat(key)
	if gone(err) || err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		err = s.root.Remove(key)
	}
	if err != nil && !gone(err) {
		return s.fail("delete", key, err)
	}
	if err := s.prune(parent(key)); err != nil {
		return s.fail("delete", key, err)
	}
	return nil
}

// prune removes dir and the folders above it as long as they are empty, and flushes the first that stays.
func (s *Store) prune(dir string) error {
	for ; dir != "."; dir = parent(dir) {
		if err := s.root.Remove(dir); err != nil && !gone(err) {
			break // not empty, or not ours to remove: it stays
		}
	}
	if err := s.syncDir(dir); err != nil && !gone(err) {
		return err
	}
	return nil
}

func (s *Store) check(ctx context.Context, key string) error {
	if err := plugins.CheckKey(key); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// reader yields the part of a file that was asked for.
type reader struct {
	ctx   context.Context // the contract of Get: ctx governs the reader until it is closed
	store *Store
	key   string
	file  *os.File
	left  int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, r.store.fail("get", r.key, err)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.file.Read(p)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		return n, r.store.fail("get", r.key, fmt.Errorf("file shrank while it was read, %d bytes are missing: %w", r.left, io.ErrUnexpectedEOF))
	case err != nil && err != io.EOF:
		return n, r.store.fail("get", r.key, err)
	}
	return n, nil
}

func (r *reader) Close() error {
	if err := r.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return r.store.fail("get", r.key, err)
	}
	return nil
}

func describe(key string, info fs.FileInfo) plugins.ObjectInfo {
	return plugins.ObjectInfo{Key: key, Size: info.Size(), LastModified: info.ModTime().UTC()}
}
