package block

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/kopia/kopia/snapshot"

	"kedge.dev/kedge/volume/repository"
)

// checkpointReason is why a checkpoint is no whole copy.
const checkpointReason = "checkpoint"

// bitmap says which blocks of a folder are done.
type bitmap [extentBlocks / 8]byte

func (b *bitmap) has(i int64) bool { return b[i/8]&(1<<(i%8)) != 0 }

func (b *bitmap) set(i int64) { b[i/8] |= 1 << (i % 8) }

// progress is the progressFile: what of the tree is of this snapshot already. Folders from Next on are the base's. Those before it are done, but
// for the Open ones, of which the bits that are set are done and the others are the base's.
type progress struct {
	Next int64            `json:"next"`
	Open map[int64][]byte `json:"open,omitempty"`
}

// finished says whether an earlier run has done folder n.
func (p *progress) finished(n int64) bool {
	if p == nil || n >= p.Next {
		return false
	}
	_, open := p.Open[n]
	return !open
}

// done is what an earlier run has done of folder n.
func (p *progress) done(n int64) bitmap {
	var b bitmap
	if p != nil {
		copy(b[:], p.Open[n])
	}
	return b
}

// checkpoints is when to make the next one.
type checkpoints struct {
	making sync.Mutex // held by who makes one
	mu     sync.Mutex
	bytes  int64 // read since the last
	last   time.Time
	id     string // of the last; empty for none
}

// staleAfter is the time without a checkpoint after which a run must not go on. Maintenance may by then have marked chunks that the run takes
// for stored; kopia's margin is 24 hours. Only a process that was suspended gets there.
const staleAfter = 20 * time.Hour

// maybeCheckpoint makes a checkpoint where one is due and nobody is making one.
func (c *copier) maybeCheckpoint(ctx context.Context, read int64) error {
	s := &c.saving
	now := c.r.Now()
	s.mu.Lock()
	s.bytes += read
	if s.last.IsZero() {
		s.last = c.started
	}
	idle := now.Sub(s.last)
	due := s.bytes >= c.opts.CheckpointBytes || idle >= c.opts.CheckpointEvery
	s.mu.Unlock()
	if idle > staleAfter {
		return fmt.Errorf("no checkpoint for %v: start the copy anew, it goes on with the last one", idle.Round(time.Minute))
	}
	if !due || !s.making.TryLock() {
		return nil
	}
	defer s.making.Unlock()
	return c.checkpoint(ctx)
}

// checkpoint makes what is done so far a manifest of its own, in place of the last one, and flushes.
func (c *copier) checkpoint(ctx context.Context) error {
	s := &c.saving
	s.mu.Lock()
	s.bytes, s.last = 0, c.r.Now()
	s.mu.Unlock()
	extents, p, err := c.partial(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	entry, err := writeRoot(ctx, c.w, c.info, extents, data, checkpointReason)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	saved, err := repository.Save(ctx, c.w, c.describe(checkpointReason), entry)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := c.forgetCheckpoint(ctx); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	s.id = saved.ID
	if err := c.w.Flush(ctx); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// forgetCheckpoint removes the last checkpoint with the next flush.
func (c *copier) forgetCheckpoint(ctx context.Context) error {
	if c.saving.id == "" {
		return nil
	}
	return repository.Forget(ctx, c.w, c.saving.id)
}

// partial is the tree as it is now, open folders included. Whoever fills them goes on meanwhile; what he does after this looked is not in it.
func (c *copier) partial(ctx context.Context) (map[int64]*snapshot.DirEntry, progress, error) {
	c.mu.Lock()
	p := progress{Next: max(c.next, c.resumed.next()), Open: map[int64][]byte{}}
	extents := maps.Clone(c.extents)
	open := maps.Clone(c.open)
	for n, bits := range c.resumed.open() {
		if n >= c.next { // not met yet by this run
			p.Open[n] = bits
		}
	}
	c.mu.Unlock()
	for n, w := range open {
		w.mu.Lock()
		done, loaded, ext := w.done, w.loaded, maps.Clone(w.ext)
		w.mu.Unlock()
		p.Open[n] = done[:]
		if !loaded {
			continue
		}
		entry, err := writeExtent(ctx, c.w, n, ext)
		if err != nil {
			return nil, progress{}, err
		}
		if entry == nil {
			delete(extents, n)
		} else {
			extents[n] = entry
		}
	}
	return extents, p, nil
}

func (p *progress) next() int64 {
	if p == nil {
		return 0
	}
	return p.Next
}

func (p *progress) open() map[int64][]byte {
	if p == nil {
		return nil
	}
	return p.Open
}

// resume loads the latest checkpoint of an earlier run of this copy, if there is one.
func (c *copier) resume(ctx context.Context) (bool, error) {
	copies, err := c.r.Copies(ctx, repository.Filter{Volume: c.req.Volume, Kind: Kind, Snapshot: c.req.Snapshot, Incomplete: true})
	if err != nil {
		return false, err
	}
	var latest repository.Copy
	for _, found := range copies {
		if found.Base == c.baseID() && found.SizeBytes == c.info.SizeBytes && !found.Completed.Before(latest.Completed) {
			latest = found
		}
	}
	if latest.ID == "" {
		return false, nil
	}
	top, err := readRoot(ctx, c.w, latest.Root())
	if err != nil {
		return false, fmt.Errorf("read the checkpoint %s: %w", latest.ID, err)
	}
	if top.progress == nil {
		return false, fmt.Errorf("read the checkpoint %s: it has no %s", latest.ID, progressFile)
	}
	data, err := readObject(ctx, c.w, top.progress.ObjectID, maxProgress)
	if err != nil {
		return false, fmt.Errorf("read the checkpoint %s: %w", latest.ID, err)
	}
	p := &progress{}
	if err := json.Unmarshal(data, p); err != nil {
		return false, fmt.Errorf("read the checkpoint %s: %w", latest.ID, err)
	}
	c.extents, c.resumed, c.saving.id = top.extents, p, latest.ID
	return true, nil
}
