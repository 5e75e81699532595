package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"kedge.dev/kedge/plugins"
)

// seekData is the whence value by which Linux finds the next data of a sparse file.
const seekData = 3

// Image is a volume's content in a file, sparse where the volume is. It implements plugins.BlockSource. The file must not change while it is read.
type Image struct {
	file, base *os.File
	size       int64
	baseName   string
}

var _ plugins.BlockSource = (*Image)(nil)

// OpenImage opens the file at path, and lists what differs from the file at base; an empty base lists all that is allocated. Snapshots that are
// files are named by their paths. The error wraps plugins.ErrNoBase where the two have not the same size.
func OpenImage(path, base string) (*Image, error) {
	i := &Image{baseName: base}
	var err error
	if i.file, i.size, err = openRegular(path); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	if base == "" {
		return i, nil
	}
	var size int64
	i.base, size, err = openRegular(base)
	if err == nil && size != i.size {
		err = fmt.Errorf("%w: %s has %d bytes, %s has %d", plugins.ErrNoBase, path, i.size, base, size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image: %w", err), i.Close())
	}
	return i, nil
}

func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a named pipe would wait for its writer
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Close gives the files back.
func (i *Image) Close() error {
	err := i.file.Close()
	if i.base != nil {
		err = errors.Join(err, i.base.Close())
	}
	return err
}

// SizeBytes is the file's size.
func (i *Image) SizeBytes() int64 { return i.size }

// Base is the path that was given to OpenImage.
func (i *Image) Base() string { return i.baseName }

// Blocks lists the blocks that have data, or, with a base, those whose bytes differ.
func (i *Image) Blocks(ctx context.Context, fn func(plugins.Block) error) error {
	for at := int64(0); at < i.size; at += plugins.BlockSize {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		next, err := nextData(i.file, at, i.size)
		if err != nil {
			return fmt.Errorf("list blocks of %s: %w", i.file.Name(), err)
		}
		gone := false // data in the base only
		if i.base != nil {
			old, err := nextData(i.base, at, i.size)
			if err != nil {
				return fmt.Errorf("list blocks of %s: %w", i.base.Name(), err)
			}
			gone = old < i.size && (next >= i.size || old/plugins.BlockSize < next/plugins.BlockSize)
			next = min(next, old)
		}
		if next >= i.size {
			return nil
		}
		at = next / plugins.BlockSize * plugins.BlockSize
		same, err := i.unchanged(at)
		if err != nil {
			return fmt.Errorf("compare %s: %w", i.file.Name(), err)
		}
		if same {
			continue
		}
		if err := fn(plugins.Block{Index: at / plugins.BlockSize, Gone: gone}); err != nil {
			return err
		}
	}
	return nil
}

// unchanged says whether the block at an offset is as in the base.
func (i *Image) unchanged(at int64) (bool, error) {
	if i.base == nil {
		return false, nil
	}
	var blocks [2][]byte
	for n, f := range []*os.File{i.file, i.base} {
		blocks[n] = make([]byte, min(plugins.BlockSize, i.size-at))
		if _, err := f.ReadAt(blocks[n], at); err != nil {
			return false, err
		}
	}
	return bytes.Equal(blocks[0], blocks[1]), nil
}

// nextData is the offset of the first byte from at on that is not in a hole, or size where there is none. Where a file system cannot tell, all is data.
func nextData(f *os.File, at, size int64) (int64, error) {
	next, err := f.Seek(at, seekData)
	switch {
	case err == nil:
		return min(next, size), nil
	case errors.Is(err, syscall.ENXIO):
		return size, nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP):
		return at, nil
	}
	return 0, err
}

// ReadBlock reads a block. A file has no checksums of its own to check.
func (i *Image) ReadBlock(ctx context.Context, b plugins.Block, buf []byte) (int, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	at := b.Index * plugins.BlockSize
	if b.Index < 0 || at >= i.size {
		return 0, fmt.Errorf("read block %d of %s: it has %d bytes", b.Index, i.file.Name(), i.size)
	}
	n, err := i.file.ReadAt(buf[:min(plugins.BlockSize, i.size-at)], at)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, fmt.Errorf("read block %d: %w", b.Index, err)
	}
	return n, nil
}

// ImageTarget is a volume's content on its way into a file. It implements plugins.BlockTarget.
type ImageTarget struct {
	file    *os.File
	size    int64
	written atomic.Int64
}

var _ plugins.BlockTarget = (*ImageTarget)(nil)

// SnapshotID is the file's path.
func (t *ImageTarget) SnapshotID() string { return t.file.Name() }

// CreateImage makes the file at path, which must not exist, with the volume's size and no data.
func CreateImage(path string, sizeBytes int64) (*ImageTarget, error) {
	if sizeBytes < 0 {
		return nil, fmt.Errorf("create image %s: a size of %d bytes", path, sizeBytes)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	if err := f.Truncate(sizeBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("create image: %w", err), f.Close())
	}
	return &ImageTarget{file: f, size: sizeBytes}, nil
}

// WriteBlock writes a block to its place.
func (t *ImageTarget) WriteBlock(ctx context.Context, index int64, data []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	at := index * plugins.BlockSize
	if index < 0 || at+int64(len(data)) > t.size || len(data) > plugins.BlockSize {
		return fmt.Errorf("write block %d of %s: %d bytes do not fit into %d", index, t.file.Name(), len(data), t.size)
	}
	if _, err := t.file.WriteAt(data, at); err != nil {
		return fmt.Errorf("write block %d: %w", index, err)
	}
	t.written.Add(1)
	return nil
}

// Complete flushes the file and its folder to the disk.
func (t *ImageTarget) Complete(_ context.Context, blocks int64) (plugins.Snapshot, error) {
	path := t.file.Name()
	if written := t.written.Load(); written < blocks {
		return plugins.Snapshot{}, fmt.Errorf("complete image %s: %d blocks were written, not %d", path, written, blocks)
	}
	if err := errors.Join(t.file.Sync(), t.file.Close()); err != nil {
		return plugins.Snapshot{}, fmt.Errorf("complete image: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return plugins.Snapshot{}, fmt.Errorf("complete image: %w", err)
	}
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return plugins.Snapshot{}, errors.Join(fmt.Errorf("complete image: %w", err), dir.Close())
	}
	return plugins.Snapshot{ID: path, SizeBytes: t.size, State: plugins.SnapshotCompleted, Progress: 100}, dir.Close()
}

// Close gives the file back without completing it.
func (t *ImageTarget) Close() error {
	if err := t.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
