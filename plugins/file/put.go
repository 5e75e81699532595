package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"syscall"

	"kedge.dev/kedge/plugins"
)

// attempts bounds how often a Put makes its folder again after a Delete at the same moment found it empty and removed it.
const attempts = 100

// Put writes the file of key and puts it into place once it is whole and on the disk.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	info, err := s.put(ctx, key, r, opts)
	if err != nil {
		return plugins.ObjectInfo{}, s.fail("put", key, err)
	}
	return describe(key, info), nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (fs.FileInfo, error) {
	if err := s.check(ctx, key); err != nil {
		return nil, err
	}
	if !opts.RetainUntil.IsZero() {
		return nil, fmt.Errorf("%w: a folder cannot retain its files", plugins.ErrUnsupported)
	}
	if err := s.checkPlace(key, opts.IfNoneMatch); err != nil {
		return nil, err // before anything is read and written in vain
	}
	temp, info, err := s.write(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.place(temp, key, opts.IfNoneMatch); err != nil {
		return nil, errors.Join(err, s.discard(temp))
	}
	return info, nil
}

// checkPlace refuses a key that is a folder of others, and one that exists where it must not.
func (s *Store) checkPlace(key string, ifNoneMatch bool) error {
	info, err := s.root.Lstat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: a part of the path is an object itself", plugins.ErrInvalidKey)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%w: other keys have it as their folder", plugins.ErrInvalidKey)
	case ifNoneMatch:
		return plugins.ErrExists
	}
	return nil
}

// write copies r to a new unfinished file and flushes it; on failure nothing is left.
func (s *Store) write(ctx context.Context, r io.Reader) (temp string, info fs.FileInfo, err error) {
	f, temp, err := s.createUnfinished()
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), s.discard(temp))
		}
	}()
	// The struct hides the file's ReadFrom, which would not look at ctx.
	if _, err = io.Copy(struct{ io.Writer }{f}, cancelReader{ctx, r}); err != nil {
		return "", nil, err
	}
	if err = f.Sync(); err != nil {
		return "", nil, err
	}
	if info, err = f.Stat(); err != nil {
		return "", nil, err
	}
	if err = context.Cause(ctx); err != nil {
		return "", nil, err
	}
	return temp, info, f.Close()
}

// createUnfinished makes a file that nobody else has; another process that had the same name in mind makes this one take the next.
func (s *Store) createUnfinished() (*os.File, string, error) {
	for {
		temp := unfinished + "/" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(s.counter.Add(1), 36)
		f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil:
			return f, temp, nil
		case errors.Is(err, fs.ErrNotExist):
			if err := s.root.Mkdir(unfinished, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, "", err
			}
		case !errors.Is(err, fs.ErrExist):
			return nil, "", err
		}
	}
}

// place moves the finished file to key, as one step, and flushes the directories on the way. A link fails where the key exists,
// a rename replaces what is there.
func (s *Store) place(temp, key string, ifNoneMatch bool) error {
	dir := parent(key)
	var err error
	for range attempts {
		if err = s.root.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) && !gone(err) {
			return err
		}
		if ifNoneMatch {
			err = s.root.Link(temp, key)
		} else {
			err = s.root.Rename(temp, key)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return s.placeError(key, ifNoneMatch, err)
	}
	if ifNoneMatch {
		if err := s.discard(temp); err != nil {
			return err
		}
	}
	return s.syncPath(dir)
}

// placeError says why a finished file could not be put into place.
func (s *Store) placeError(key string, ifNoneMatch bool, err error) error {
	if place := s.checkPlace(key, ifNoneMatch); place != nil {
		return place
	}
	if ifNoneMatch && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EMLINK)) {
		return fmt.Errorf("%w: %w", errNoLinks, err)
	}
	return err
}

// syncPath flushes dir and every folder above it: any of them may be new, made by this call or by another that did not get that far.
func (s *Store) syncPath(dir string) error {
	for {
		if err := s.syncDir(dir); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = parent(dir)
	}
}

func (s *Store) syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it has no such thing as flushing a directory
	}
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some network file systems flush by themselves and refuse to be asked
	}
	return errors.Join(err, f.Close())
}

func (s *Store) discard(temp string) error {
	if err := s.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func parent(key string) string { return path.Dir(key) }

// cancelReader ends with ctx's error once ctx is done, and marks the errors of r as such.
type cancelReader struct {
	ctx context.Context // lives within one call
	r   io.Reader
}

func (c cancelReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}
