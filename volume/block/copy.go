package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/repository"
)

// extentsInFlight is how many folders are filled at once, so that changes which lie far apart keep all readers busy.
const extentsInFlight = 4

// Result is what a copy did.
type Result struct {
	Copy repository.Copy
	// Blocks and Bytes were read from the source; Zero of the blocks were all zeros, and not stored.
	Blocks, Bytes, Zero int64
	// Resumed are blocks that an earlier run of the same copy had done.
	Resumed int64
	// Uploaded are bytes that went to the store.
	Uploaded int64
}

// Copy copies what the source lists into the repository, and takes the rest from the base copy. A run that was ended goes on with what its last
// checkpoint holds, if it is called with the same volume, snapshot and base; a snapshot that was copied already is not read again, and the copy that is returned is one
// of its own. After an error there may be a copy too, if only the last reply was lost: nobody names it, so maintenance forgets it. The error wraps
// ErrBase where a copy without a base is what remains to be done.
func Copy(ctx context.Context, r *repository.Repository, src plugins.BlockSource, req Request, opts Options) (Result, error) {
	c := &copier{
		r: r, src: src, req: req, opts: opts.withDefaults(), info: volumeInfo{Format: 1, SizeBytes: src.SizeBytes(), BlockSize: blockSize},
		extents: map[int64]*snapshot.DirEntry{}, open: map[int64]*work{}, started: r.Now(),
	}
	if err := c.check(); err != nil {
		return Result{}, fmt.Errorf("copy volume %s: %w", req.Volume, err)
	}
	c.buffers = newBuffers(c.opts.Parallel)
	c.meter = newMeter(r.Now, c.opts.Progress, c.info.SizeBytes)
	var uploaded atomic.Int64
	err := r.Write(ctx, "copy "+req.Volume.String(), func(n int64) { uploaded.Add(n) }, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		c.w = w
		return c.run(ctx)
	})
	if err != nil {
		return Result{}, fmt.Errorf("copy volume %s, snapshot %s: %w", req.Volume, req.Snapshot, err)
	}
	c.result.Uploaded = uploaded.Load()
	return c.result, nil
}

// copier is one run of Copy.
type copier struct {
	r       *repository.Repository
	w       repo.DirectRepositoryWriter
	src     plugins.BlockSource
	req     Request
	opts    Options
	info    volumeInfo
	buffers buffers
	meter   *meter
	started time.Time

	mu      sync.Mutex
	extents map[int64]*snapshot.DirEntry // the tree so far: the base's folders, replaced as they are done
	open    map[int64]*work              // folders that are being filled
	next    int64                        // folders before it are done, or open, or were not listed
	resumed *progress
	result  Result

	saving checkpoints
}

func (c *copier) check() error {
	base, req := c.src.Base(), c.req
	switch {
	case req.Snapshot == "":
		return fmt.Errorf("the snapshot has no id")
	case c.info.SizeBytes <= 0:
		return fmt.Errorf("a volume of %d bytes", c.info.SizeBytes)
	case base == "":
		return nil
	case req.Base == nil:
		return fmt.Errorf("%w: the source compares with %s, and no base copy is given", ErrBase, base)
	case req.Base.Kind != Kind, req.Base.Incomplete != "", req.Base.Volume != req.Volume, req.Base.Snapshot != base:
		return fmt.Errorf("%w: the source compares with %s, the copy is of %s, snapshot %s", ErrBase, base, req.Base.Volume, req.Base.Snapshot)
	case req.Base.SizeBytes != c.info.SizeBytes:
		return fmt.Errorf("%w: the volume had %d bytes and has %d", ErrBase, req.Base.SizeBytes, c.info.SizeBytes)
	}
	return nil
}

// baseID is the base that counts: where the source lists all, none does.
func (c *copier) baseID() string {
	if c.src.Base() == "" || c.req.Base == nil {
		return ""
	}
	return c.req.Base.ID
}

func (c *copier) run(ctx context.Context) error {
	if found, err := c.again(ctx); found || err != nil {
		return err
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	if err := c.fill(ctx); err != nil {
		return err
	}
	entry, err := writeRoot(ctx, c.w, c.info, c.extents, nil, "")
	if err != nil {
		return err
	}
	c.result.Copy, err = repository.Save(ctx, c.w, c.describe(""), entry)
	if err != nil {
		return err
	}
	return c.forgetCheckpoint(ctx)
}

// again finds a whole copy of the snapshot, whose maker may have died before he recorded it, and makes one of the same tree.
func (c *copier) again(ctx context.Context) (found bool, err error) {
	copies, err := c.r.Copies(ctx, repository.Filter{Volume: c.req.Volume, Kind: Kind, Snapshot: c.req.Snapshot})
	if err != nil {
		return false, err
	}
	for _, done := range copies {
		if done.SizeBytes == c.info.SizeBytes {
			c.result.Copy, err = repository.Save(ctx, c.w, c.describe(""), done.Root())
			return true, err
		}
	}
	return false, nil
}

// describe is the copy's manifest as of now.
func (c *copier) describe(incomplete string) repository.Copy {
	return repository.Copy{
		Volume: c.req.Volume, Kind: Kind, Snapshot: c.req.Snapshot, Base: c.baseID(), SizeBytes: c.info.SizeBytes,
		Started: c.started, Completed: c.r.Now(), Incomplete: incomplete,
	}
}

// begin loads the tree to start from: that of an earlier run's checkpoint, or the base's, which becomes a checkpoint at once: from then on
// maintenance keeps what this copy will refer to, though the base be forgotten meanwhile. If the base is still there after that, no maintenance can have
// begun to remove what it refers to.
func (c *copier) begin(ctx context.Context) error {
	found, err := c.resume(ctx)
	if err != nil || found || c.baseID() == "" {
		return err
	}
	id := c.req.Base.ID
	base, err := readRoot(ctx, c.w, c.req.Base.Root())
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w: read %s: %w", ErrBase, id, err)
	}
	c.extents = base.extents
	if err := c.checkpoint(ctx); err != nil {
		return err
	}
	if _, err := c.r.Copy(ctx, id); errors.Is(err, repository.ErrNoCopy) {
		return fmt.Errorf("%w: %w", ErrBase, err)
	} else if err != nil {
		return err
	}
	return nil
}

// fill has the source list its blocks, and copies them folder by folder.
func (c *copier) fill(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(extentsInFlight)
	var blocks []plugins.Block
	last := int64(-1)
	start := func() {
		if len(blocks) > 0 {
			n, listed := blocks[0].Index/extentBlocks, blocks
			blocks = nil
			c.start(ctx, g, n, listed)
		}
	}
	err := c.src.Blocks(ctx, func(b plugins.Block) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case b.Index <= last || b.Index > (c.info.SizeBytes-1)/blockSize:
			return fmt.Errorf("the source lists block %d after block %d of a volume of %d bytes", b.Index, last, c.info.SizeBytes)
		}
		last = b.Index
		if len(blocks) > 0 && blocks[0].Index/extentBlocks != b.Index/extentBlocks {
			start()
		}
		blocks = append(blocks, b)
		return nil
	})
	if err == nil {
		start()
		c.meter.listed()
	}
	if failed := g.Wait(); failed != nil {
		return failed // the lister's error is then but its consequence
	}
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	return nil
}

// work is one folder that is being filled.
type work struct {
	n int64

	mu     sync.Mutex
	loaded bool   // ext is what the tree has, and what was done since
	ext    extent // until loaded, the tree's entry counts
	done   bitmap // of this run, and of those that it goes on with
}

// start copies the listed blocks of folder n by g, and waits where too many folders are open.
func (c *copier) start(ctx context.Context, g *errgroup.Group, n int64, blocks []plugins.Block) {
	c.meter.add(blocks, c.info.SizeBytes)
	w := &work{n: n}
	c.mu.Lock()
	finished := c.resumed.finished(n)
	if !finished {
		w.done = c.resumed.done(n)
		c.open[n] = w
	}
	c.next = max(c.next, n+1)
	c.mu.Unlock()
	if finished {
		for _, b := range blocks {
			c.skip(b)
		}
		return
	}
	g.Go(func() error { return c.extent(ctx, w, blocks) })
}

// skip counts a block that an earlier run has done.
func (c *copier) skip(b plugins.Block) {
	c.mu.Lock()
	c.result.Resumed++
	c.mu.Unlock()
	c.meter.block(b, c.info.SizeBytes)
}

// extent copies the listed blocks of one folder.
func (c *copier) extent(ctx context.Context, w *work, blocks []plugins.Block) error {
	ext, err := c.load(ctx, w.n)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.ext, w.loaded = ext, true
	done := w.done
	w.mu.Unlock()
	g, gctx := errgroup.WithContext(ctx)
	for _, b := range blocks {
		if done.has(b.Index % extentBlocks) {
			c.skip(b)
			continue
		}
		if b.Gone {
			w.set(b.Index, nil)
			c.meter.block(b, c.info.SizeBytes)
			continue
		}
		buf, err := c.buffers.take(gctx)
		if err != nil {
			break // the group says why
		}
		g.Go(func() error {
			defer c.buffers.give(buf)
			return c.block(gctx, w, b, buf)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return c.finish(ctx, w)
}

// load reads the folder as the tree has it.
func (c *copier) load(ctx context.Context, n int64) (extent, error) {
	c.mu.Lock()
	entry := c.extents[n]
	c.mu.Unlock()
	if entry == nil {
		return extent{}, nil
	}
	return readExtent(ctx, c.w, n, c.info.SizeBytes, entry.ObjectID)
}

// finish makes the filled folder part of the tree.
func (c *copier) finish(ctx context.Context, w *work) error {
	entry, err := writeExtent(ctx, c.w, w.n, w.ext)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, w.n)
	if entry == nil {
		delete(c.extents, w.n)
	} else {
		c.extents[w.n] = entry
	}
	c.meter.offset(c.lowest() * extentBlocks * blockSize)
	return nil
}

// lowest is the first folder that is not done. The caller holds the lock.
func (c *copier) lowest() int64 {
	lowest := c.next
	for n := range c.open {
		lowest = min(lowest, n)
	}
	return lowest
}

// block copies one block.
func (c *copier) block(ctx context.Context, w *work, b plugins.Block, buf []byte) error {
	n, sum, summed, err := c.read(ctx, b, buf)
	if err != nil {
		return fmt.Errorf("read block %d: %w", b.Index, err)
	}
	if want := blockLength(b.Index, c.info.SizeBytes); int64(n) != want {
		return fmt.Errorf("read block %d: %d bytes, not %d", b.Index, n, want)
	}
	data := buf[:n]
	zero := isZero(data)
	var entry *blockEntry
	if !zero {
		id, err := writeObject(ctx, c.w, data, object.WriterOptions{
			Description: blockName(b.Index), Compressor: compression.Name(c.opts.Compression), Splitter: splitter,
		})
		if err != nil {
			return fmt.Errorf("store block %d: %w", b.Index, err)
		}
		if !summed {
			sum = sha256.Sum256(data)
		}
		entry = &blockEntry{object: id, size: int64(n), sum: sum}
	}
	w.set(b.Index, entry)
	c.mu.Lock()
	c.result.Blocks++
	c.result.Bytes += int64(n)
	if zero {
		c.result.Zero++
	}
	c.mu.Unlock()
	c.meter.block(b, c.info.SizeBytes)
	return c.maybeCheckpoint(ctx, int64(n))
}

// read reads a block, with its sum where the source has it already: to compute it once more would take a tenth of a copy's time.
func (c *copier) read(ctx context.Context, b plugins.Block, buf []byte) (n int, sum [sha256.Size]byte, summed bool, err error) {
	if src, ok := c.src.(plugins.SummedBlocks); ok {
		n, sum, err = src.ReadSummedBlock(ctx, b, buf)
		return n, sum, true, err
	}
	n, err = c.src.ReadBlock(ctx, b, buf)
	return n, sum, false, err
}

// set makes a block of the folder what it is now; nil is all zeros.
func (w *work) set(index int64, entry *blockEntry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if entry == nil {
		delete(w.ext, index)
	} else {
		w.ext[index] = *entry
	}
	w.done.set(index % extentBlocks)
}

// splitter makes one chunk of one block: chunks are found again by their hash, and a block is what changes.
const splitter = "FIXED-512K"

var zeros [blockSize]byte

func isZero(data []byte) bool { return bytes.Equal(data, zeros[:len(data)]) }
