package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/repository"
)

// maxDamages bounds what a verification reports of one copy; more of the same helps nobody.
const maxDamages = 100

// Damage is one part of a copy that cannot be restored as it was stored.
type Damage struct {
	Copy   repository.Copy
	Offset int64 // in the volume, in bytes; -1 where it is not of one place
	Err    error
}

// Error names the volume, the copy and the place.
func (d *Damage) Error() string {
	where := ""
	if d.Offset >= 0 {
		where = fmt.Sprintf(" at byte %d", d.Offset)
	}
	return fmt.Sprintf("volume %s, copy %s of %s%s: %v", d.Copy.Volume, d.Copy.ID, d.Copy.Snapshot, where, d.Err)
}

// Unwrap makes it an ErrDamaged that knows why.
func (d *Damage) Unwrap() []error { return []error{ErrDamaged, d.Err} }

// Verify reads every block of the copies from the store, past all caches, each once however many copies share it, and compares it with its SHA-256.
// It returns the damages, at most 100 of each copy. The error is of the verification itself: it was cancelled, or the store did not answer;
// where not even the repository's indexes can be read, it wraps ErrDamaged and names the volumes.
func Verify(ctx context.Context, r *repository.Repository, copies []repository.Copy, opts Options) ([]*Damage, error) {
	v := &verifier{opts: opts.withDefaults(), counts: map[string]int{}}
	v.pool = newBuffers(v.opts.Parallel)
	plain, err := r.Uncached(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify volume copies of %s: %w: %w", volumes(copies), ErrDamaged, err)
	}
	var size int64
	for _, c := range copies {
		size = max(size, c.SizeBytes)
	}
	v.meter = newMeter(r.Now, opts.Progress, size)
	err = plain.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		v.rep = rep
		return v.run(ctx, copies)
	})
	if err := errors.Join(err, plain.Close(context.WithoutCancel(ctx))); err != nil {
		return nil, fmt.Errorf("verify volume copies of %s: %w", volumes(copies), err)
	}
	return v.damages, nil
}

func volumes(copies []repository.Copy) []string {
	names := map[string]bool{}
	for _, c := range copies {
		names[c.Volume.String()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

type verifier struct {
	rep   repo.Repository
	opts  Options
	pool  buffers
	meter *meter
	left  atomic.Int64 // GiBs whose blocks are not counted yet

	mu      sync.Mutex
	damages []*Damage
	counts  map[string]int // by copy
}

// report notes a damage, unless the context's end is all that it is.
func (v *verifier) report(ctx context.Context, c repository.Copy, offset int64, err error) {
	if ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.counts[c.ID]++; v.counts[c.ID] <= maxDamages {
		v.damages = append(v.damages, &Damage{Copy: c, Offset: offset, Err: err})
	}
}

// run goes through the volumes GiB by GiB, all copies at once, so that what they share is read once with little memory.
func (v *verifier) run(ctx context.Context, copies []repository.Copy) error {
	folders := map[int64]map[object.ID][]repository.Copy{}
	for _, c := range copies {
		top, err := readRoot(ctx, v.rep, c.Root())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			v.report(ctx, c, -1, err)
			continue
		case top.info.SizeBytes != c.SizeBytes:
			v.report(ctx, c, -1, fmt.Errorf("the tree is of a volume of %d bytes, not %d", top.info.SizeBytes, c.SizeBytes))
			continue
		}
		for n, e := range top.extents {
			if folders[n] == nil {
				folders[n] = map[object.ID][]repository.Copy{}
			}
			folders[n][e.ObjectID] = append(folders[n][e.ObjectID], c)
		}
	}
	v.left.Store(int64(len(folders)))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(extentsInFlight)
	for _, n := range slices.Sorted(maps.Keys(folders)) {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return v.extents(gctx, n, folders[n]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// use is one place where a block is used.
type use struct {
	copies []repository.Copy
	index  int64
	entry  blockEntry
}

// extents verifies all versions of one GiB.
func (v *verifier) extents(ctx context.Context, n int64, folders map[object.ID][]repository.Copy) error {
	uses := map[object.ID][]use{}
	for id, copies := range folders {
		ext, err := readExtent(ctx, v.rep, n, copies[0].SizeBytes, id)
		if err != nil {
			for _, c := range copies {
				v.report(ctx, c, n*extentBlocks*blockSize, err)
			}
			continue
		}
		for index, e := range ext {
			uses[e.object] = append(uses[e.object], use{copies: copies, index: index, entry: e})
		}
	}
	for _, where := range uses {
		v.meter.add([]plugins.Block{{Index: where[0].index}}, where[0].copies[0].SizeBytes)
	}
	if v.left.Add(-1) == 0 {
		v.meter.listed()
	}
	g, gctx := errgroup.WithContext(ctx)
	for id, where := range uses {
		buf, err := v.pool.take(gctx)
		if err != nil {
			break
		}
		g.Go(func() error {
			defer v.pool.give(buf)
			v.block(gctx, id, where, buf)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// block verifies one stored block for all who use it.
func (v *verifier) block(ctx context.Context, id object.ID, where []use, buf []byte) {
	checked := map[[32]byte]error{} // equal bytes have equal sums, so this is one entry unless something is wrong
	for _, u := range where {
		err, known := checked[u.entry.sum]
		if !known {
			err = readBlock(ctx, v.rep, id, u.entry.sum, buf[:u.entry.size])
			checked[u.entry.sum] = err
		}
		if err == nil {
			continue
		}
		for _, c := range u.copies {
			v.report(ctx, c, u.index*blockSize, err)
		}
	}
	v.meter.block(plugins.Block{Index: where[0].index}, where[0].copies[0].SizeBytes)
}
