package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sys/unix"
)

// write writes a file's content. Large files are written in parts at the same time, because what takes long is the bucket.
func (r *restoreRun) write(ctx context.Context, t *target, n *node, part string) error {
	obj, err := r.repo.OpenObject(ctx, n.entry.ObjectID)
	if err != nil {
		return &unreadable{err}
	}
	defer func() { _ = obj.Close() }()
	size := obj.Length()
	if size != n.entry.FileSize {
		return &unreadable{damaged(fmt.Sprintf("a file of %d bytes has %d in the repository", n.entry.FileSize, size))}
	}
	fd, err := openAt(t.fd, part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	out := os.NewFile(uintptr(fd), part)
	defer func() { _ = out.Close() }()
	sparse := n.rec != nil && n.rec.Sparse
	if sparse || size > partBytes {
		if err := out.Truncate(size); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	if size <= partBytes {
		err = r.writePart(ctx, out, obj, 0, size, sparse)
	} else {
		err = r.writeParts(ctx, out, n.entry.ObjectID, size, sparse)
	}
	if err != nil {
		return err
	}
	r.unreadable.Store(0)
	if err := out.Close(); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// writeParts writes a large file, with as many workers as are free. Each opens the object itself.
func (r *restoreRun) writeParts(ctx context.Context, out *os.File, id object.ID, size int64, sparse bool) error {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	failed := func(err error) bool {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		return first != nil
	}
	for at := int64(0); at < size && !failed(nil); at += partBytes {
		wait.Add(1)
		work := func() error {
			defer wait.Done()
			obj, err := r.repo.OpenObject(ctx, id)
			if err != nil {
				failed(&unreadable{err})
				return nil
			}
			defer func() { _ = obj.Close() }()
			if _, err := obj.Seek(at, io.SeekStart); err != nil {
				failed(&unreadable{err})
				return nil
			}
			if err := r.writePart(ctx, out, obj, at, min(partBytes, size-at), sparse); err != nil {
				failed(err)
			}
			return nil // whoever waits tells it
		}
		if !r.group.TryGo(work) {
			_ = work()
		}
	}
	wait.Wait()
	return first
}

// block is how long a run of zeros must be, and where it must begin, to become a hole.
const block = 4 << 10

// writePart copies n bytes from in to out at an offset.
func (r *restoreRun) writePart(ctx context.Context, out *os.File, in io.Reader, at, n int64, sparse bool) error {
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	for n > 0 {
		if err := r.tick(ctx); err != nil {
			return err
		}
		p := (*buf)[:min(int64(len(*buf)), n)]
		if _, err := io.ReadFull(in, p); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = damaged("a file's content ends too early")
			}
			return &unreadable{err}
		}
		if err := r.writeRuns(out, p, at, sparse); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
		at += int64(len(p))
		n -= int64(len(p))
	}
	return nil
}

// writeRuns writes p; where the file is to be sparse, it leaves out blocks of zeros.
func (r *restoreRun) writeRuns(out *os.File, p []byte, at int64, sparse bool) error {
	for len(p) > 0 {
		n := len(p)
		if sparse {
			zeros := 0
			for zeros < len(p) && isZero(p[zeros:min(zeros+block, len(p))]) {
				zeros = min(zeros+block, len(p))
			}
			at, p = at+int64(zeros), p[zeros:]
			for n = 0; n < len(p) && !isZero(p[n:min(n+block, len(p))]); {
				n = min(n+block, len(p))
			}
		}
		if n == 0 {
			continue
		}
		if _, err := out.WriteAt(p[:n], at); err != nil {
			return err
		}
		r.counts.writtenBytes.Add(int64(n))
		at, p = at+int64(n), p[n:]
	}
	return nil
}

var zeros [block]byte

func isZero(p []byte) bool { return string(p) == string(zeros[:len(p)]) }
