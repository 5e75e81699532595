package block

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/repository"
)

// Writer takes the blocks of a restore, in any order, from many goroutines. plugins.BlockTarget is one.
type Writer interface {
	WriteBlock(ctx context.Context, index int64, data []byte) error
}

// ToFile writes blocks to where they belong in a file or device, which reads as zeros before: a new, truncated file stays sparse.
func ToFile(w io.WriterAt) Writer { return fileWriter{w} }

type fileWriter struct{ w io.WriterAt }

func (f fileWriter) WriteBlock(_ context.Context, index int64, data []byte) error {
	_, err := f.w.WriteAt(data, index*blockSize)
	return err
}

// RestoreSnapshot restores a copy to a new snapshot and completes it.
func RestoreSnapshot(ctx context.Context, r *repository.Repository, c repository.Copy, target plugins.BlockTarget, opts Options) (plugins.Snapshot, error) {
	blocks, err := Restore(ctx, r, c, target, opts)
	if err != nil {
		return plugins.Snapshot{}, err
	}
	made, err := target.Complete(ctx, blocks)
	if err != nil {
		return plugins.Snapshot{}, fmt.Errorf("restore volume %s: complete the snapshot: %w", c.Volume, err)
	}
	return made, nil
}

// Restore writes the blocks of a copy that are not all zeros, each once and checked against its SHA-256, and returns their number. An error that
// wraps ErrDamaged names the block that is not what was stored. Repeating a restore is harmless.
func Restore(ctx context.Context, r *repository.Repository, c repository.Copy, dst Writer, opts Options) (int64, error) {
	var blocks atomic.Int64
	err := r.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		return restore(ctx, r, rep, c, opts.withDefaults(), func(ctx context.Context, index int64, data []byte) error {
			if err := dst.WriteBlock(ctx, index, data); err != nil {
				return fmt.Errorf("write block %d: %w", index, err)
			}
			blocks.Add(1)
			return nil
		})
	})
	if err != nil {
		return 0, fmt.Errorf("restore volume %s, copy %s: %w", c.Volume, c.ID, err)
	}
	return blocks.Load(), nil
}

// restore calls fn for every block of the tree.
func restore(ctx context.Context, r *repository.Repository, rep repo.Repository, c repository.Copy, opts Options, fn func(context.Context, int64, []byte) error) error {
	if c.Kind != Kind || c.Root() == nil {
		return fmt.Errorf("the copy is of kind %q, not %q", c.Kind, Kind)
	}
	if c.Incomplete != "" {
		return fmt.Errorf("the copy is not whole: %s", c.Incomplete)
	}
	top, err := readRoot(ctx, rep, c.Root())
	if err != nil {
		return err
	}
	if top.info.SizeBytes != c.SizeBytes {
		return fmt.Errorf("%w: the tree is of a volume of %d bytes, not %d", ErrDamaged, top.info.SizeBytes, c.SizeBytes)
	}
	m := newMeter(r.Now, opts.Progress, c.SizeBytes)
	for _, e := range top.extents {
		m.p.TotalBytes += storedBytes(e)
	}
	m.p.Listed = true
	pool := newBuffers(opts.Parallel)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(extentsInFlight)
	for _, n := range slices.Sorted(maps.Keys(top.extents)) {
		if gctx.Err() != nil {
			break
		}
		id := top.extents[n].ObjectID
		g.Go(func() error {
			ext, err := readExtent(gctx, rep, n, c.SizeBytes, id)
			if err != nil {
				return err
			}
			return readBlocks(gctx, rep, ext, pool, func(ctx context.Context, index int64, data []byte) error {
				if err := fn(ctx, index, data); err != nil {
					return err
				}
				m.block(plugins.Block{Index: index}, c.SizeBytes)
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// storedBytes are those of the blocks of a folder, without its checksums.
func storedBytes(e *snapshot.DirEntry) int64 {
	if e.DirSummary == nil || e.DirSummary.TotalFileCount < 1 {
		return 0
	}
	return e.DirSummary.TotalFileSize - (e.DirSummary.TotalFileCount-1)*sumsLine
}

// readBlocks calls fn for every block of a folder, in about the order of the volume.
func readBlocks(ctx context.Context, rep repo.Repository, ext extent, pool buffers, fn func(context.Context, int64, []byte) error) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, index := range slices.Sorted(maps.Keys(ext)) {
		buf, err := pool.take(gctx)
		if err != nil {
			break // the group, or the context, says why
		}
		g.Go(func() error {
			defer pool.give(buf)
			e := ext[index]
			if err := readBlock(gctx, rep, e.object, e.sum, buf[:e.size]); err != nil {
				return fmt.Errorf("block %d: %w", index, err)
			}
			return fn(gctx, index, buf[:e.size])
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// readBlock reads a stored block into data, which has its size, and checks it.
func readBlock(ctx context.Context, rep repo.Repository, id object.ID, sum [32]byte, data []byte) error {
	r, err := rep.OpenObject(ctx, id)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Length() != int64(len(data)) {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, r.Length(), len(data))
	}
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	if sha256.Sum256(data) != sum {
		return fmt.Errorf("%w: its SHA-256 is another", ErrDamaged)
	}
	return nil
}
