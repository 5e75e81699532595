package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/volume/repository"
)

// maxDamages bounds what a verification reports of one copy; more of the same helps nobody.
const maxDamages = 100

// VerifyOptions say how a verification reads.
type VerifyOptions struct {
	// SpoolDir is where the table of hard links is, in files without names. It is needed.
	SpoolDir string
	// Parallel is how many files are read at once; zero means eight.
	Parallel int
	// Progress is told after each file or link how many were read, and the bytes in them. Calls may overlap.
	Progress func(files, bytes int64)
}

// Damage is a file or folder of a copy that cannot be restored as it was stored.
type Damage struct {
	Copy repository.Copy
	// Path is relative to the copy's root, which itself is ".".
	Path string
	Err  error
}

// Error names the volume, the copy and the path.
func (d *Damage) Error() string {
	return fmt.Sprintf("volume %s, copy %s, %q: %v", d.Copy.Volume, d.Copy.ID, d.Path, d.Err)
}

// Unwrap makes it an ErrDamaged that knows why.
func (d *Damage) Unwrap() []error { return []error{ErrDamaged, d.Err} }

// Verify reads every folder and every byte of every file of the copies from the store, past all caches; kopia compares each chunk with the hash
// that it is called by. A file of several names is read once. It returns the damages, at most 100 of each copy. The error is of the verification
// itself: it was cancelled, or the store did not answer; where not even the repository's indexes can be read, it wraps ErrDamaged.
func Verify(ctx context.Context, r *repository.Repository, copies []repository.Copy, opts VerifyOptions) (_ []*Damage, err error) {
	v := &verifier{opts: opts, read: newOnce(opts.SpoolDir), counts: map[string]int{}}
	defer v.read.close()
	plain, err := r.Uncached(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify copies of files in %s: %w: %w", r, ErrDamaged, err)
	}
	defer func() { err = errors.Join(err, plain.Close(context.WithoutCancel(ctx))) }()
	err = plain.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		v.repo = rep
		for i := range copies {
			if err := v.copy(ctx, copies[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify copies of files in %s: %w", r, err)
	}
	return v.damages, nil
}

type verifier struct {
	repo         repo.Repository
	opts         VerifyOptions
	read         *once // objects that were read and are good, where more than one entry is likely to have them
	files, bytes atomic.Int64

	mu      sync.Mutex
	damages []*Damage
	counts  map[string]int // by copy
}

// report notes a damage, unless the context's end is all that it is.
func (v *verifier) report(ctx context.Context, c repository.Copy, path string, err error) {
	if ctx.Err() != nil {
		return
	}
	if path == "" {
		path = "."
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.counts[c.ID]++; v.counts[c.ID] <= maxDamages {
		v.damages = append(v.damages, &Damage{Copy: c, Path: path, Err: err})
	}
}

// copy verifies one copy. All its goroutines have ended when it returns.
func (v *verifier) copy(ctx context.Context, c repository.Copy) error {
	tree, err := OpenTree(v.repo, manifestOf(&c))
	if err != nil {
		v.report(ctx, c, "", err)
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel(v.opts.Parallel))
	v.folder(gctx, g, c, tree.root.ObjectID, "", 0)
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// folder reads a folder and has its files read.
func (v *verifier) folder(ctx context.Context, g *errgroup.Group, c repository.Copy, id object.ID, path string, depth int) {
	if depth > maxDepth {
		v.report(ctx, c, path, damaged(fmt.Sprintf("it is more than %d folders deep", maxDepth)))
		return
	}
	in, err := openFolder(ctx, v.repo, id)
	if err != nil {
		v.report(ctx, c, path, err)
		return
	}
	defer in.close()
	for ctx.Err() == nil {
		n, err := in.next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			v.report(ctx, c, path, fmt.Errorf("list it: %w", err))
			return
		}
		name, err := n.name()
		if err != nil {
			v.report(ctx, c, path, fmt.Errorf("%w: %w", ErrDamaged, err))
			continue
		}
		if below := joinPath(path, name); n.kind() == TypeFolder {
			v.folder(ctx, g, c, n.entry.ObjectID, below, depth+1)
		} else if n.entry != nil {
			g.Go(func() error { return v.leaf(ctx, c, &n, below) })
		}
	}
}

// leaf reads a file or a link. An error is of the table, not of the copy.
func (v *verifier) leaf(ctx context.Context, c repository.Copy, n *node, path string) error {
	size := n.entry.FileSize
	defer func() {
		files, bytes := v.files.Add(1), v.bytes.Add(size)
		if v.opts.Progress != nil {
			v.opts.Progress(files, bytes)
		}
	}()
	var err error
	switch n.kind() {
	case TypeSymlink:
		_, err = readTarget(ctx, v.repo, n.entry.ObjectID)
	case TypeFile:
		// Other files of equal content are read again: a table of all would be as large as that of their names.
		if size > 0 && (n.rec == nil || n.rec.Link == "") {
			err = v.content(ctx, n.entry.ObjectID, size)
			break
		}
		err = v.read.do(fmt.Sprintf("%s %d", n.entry.ObjectID, size), func([]byte) bool { return true }, func() ([]byte, error) {
			if err := v.content(ctx, n.entry.ObjectID, size); err != nil {
				v.report(ctx, c, path, err)
				return nil, nil
			}
			return []byte{1}, nil
		})
		if err != nil {
			return err
		}
	default:
		err = damaged(fmt.Sprintf("an entry of type %q", n.kind()))
	}
	if err != nil {
		v.report(ctx, c, path, err)
	}
	return nil
}

// content reads a file to its end.
func (v *verifier) content(ctx context.Context, id object.ID, size int64) error {
	obj, err := v.repo.OpenObject(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = obj.Close() }()
	// A length of the object that is not the file's must not make this read more than a little too much.
	got, err := io.Copy(io.Discard, io.LimitReader(obj, size+1))
	if err == nil && got != size {
		return damaged(fmt.Sprintf("it has %d bytes or more, not %d", got, size))
	}
	return err
}
