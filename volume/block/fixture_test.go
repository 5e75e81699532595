package block_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

var testNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const password = "a password for tests"

var volume = repository.Volume{Cluster: "3f1c6f0e", Provider: "ebs", Handle: "vol-0123456789abcdef0"}

// disk is a sparse volume in memory: its blocks that are not zeros.
type disk struct {
	size   int64
	blocks map[int64][]byte
}

func newDisk(size int64) *disk { return &disk{size: size, blocks: map[int64][]byte{}} }

func (d *disk) count() int64 { return (d.size + plugins.BlockSize - 1) / plugins.BlockSize }

func (d *disk) clone() *disk {
	c := newDisk(d.size)
	maps.Copy(c.blocks, d.blocks) // blocks are replaced, never changed
	return c
}

// write replaces bytes within one block.
func (d *disk) write(offset int64, data []byte) {
	index, in := offset/plugins.BlockSize, offset%plugins.BlockSize
	b := bytes.Clone(d.blocks[index])
	if b == nil {
		b = make([]byte, min(plugins.BlockSize, d.size-index*plugins.BlockSize))
	}
	copy(b[in:], data)
	d.blocks[index] = b
}

// random bytes that do not compress.
func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func (d *disk) equal(o *disk) error {
	for _, pair := range [][2]*disk{{d, o}, {o, d}} {
		for i, b := range pair[0].blocks {
			other := pair[1].blocks[i]
			if other == nil {
				other = make([]byte, len(b))
			}
			if !bytes.Equal(b, other) {
				return fmt.Errorf("block %d differs", i)
			}
		}
	}
	return nil
}

// WriteBlock makes a disk a target.
func (t *target) WriteBlock(_ context.Context, index int64, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks[index] = bytes.Clone(data)
	return nil
}

type target struct {
	mu sync.Mutex
	*disk
	completed int64
}

func (t *target) SnapshotID() string { return "snap-new" }

func (t *target) Complete(_ context.Context, blocks int64) (plugins.Snapshot, error) {
	t.completed = blocks
	return plugins.Snapshot{ID: "snap-new", SizeBytes: t.size, State: plugins.SnapshotCompleted, Progress: 100}, nil
}

// source reads a disk, as it was, and what changed since a base.
type source struct {
	disk, base *disk
	baseID     string
	reads      atomic.Int64 // bytes
	before     func() error // before each read
}

func (s *source) SizeBytes() int64 { return s.disk.size }
func (s *source) Base() string     { return s.baseID }

func (s *source) Blocks(_ context.Context, fn func(plugins.Block) error) error {
	seen := map[int64]bool{}
	for i := range s.disk.blocks {
		seen[i] = true
	}
	if s.base != nil {
		for i, b := range s.base.blocks {
			if old, ok := s.disk.blocks[i]; ok && &old[0] == &b[0] {
				delete(seen, i)
			} else {
				seen[i] = true
			}
		}
	}
	indexes := make([]int64, 0, len(seen))
	for i := range seen {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		if err := fn(plugins.Block{Index: i, Gone: s.disk.blocks[i] == nil}); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) ReadBlock(ctx context.Context, b plugins.Block, buf []byte) (int, error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(buf) != plugins.BlockSize || b.Gone {
		return 0, fmt.Errorf("read of block %+v into %d bytes", b, len(buf))
	}
	s.reads.Add(int64(len(s.disk.blocks[b.Index])))
	return copy(buf, s.disk.blocks[b.Index]), nil
}

func open(t testing.TB, store plugins.ObjectStore, now func() time.Time) *repository.Repository {
	t.Helper()
	r, err := repository.OpenOrCreate(t.Context(), store, password, repository.CreateOptions{}, repository.Options{Now: now, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

// copyDisk copies d as the snapshot named id, against base if there is one.
func copyDisk(t testing.TB, r *repository.Repository, id string, d *disk, base *repository.Copy, baseDisk *disk) block.Result {
	t.Helper()
	src := &source{disk: d}
	if base != nil {
		src.base, src.baseID = baseDisk, base.Snapshot
	}
	done, err := block.Copy(t.Context(), r, src, block.Request{Volume: volume, Snapshot: id, Base: base}, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// check restores c and compares it with d.
func check(t testing.TB, r *repository.Repository, c repository.Copy, d *disk) {
	t.Helper()
	to := &target{disk: newDisk(d.size)}
	made, err := block.RestoreSnapshot(t.Context(), r, c, to, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.equal(d); err != nil {
		t.Fatalf("restored copy %s of %s: %v", c.ID, c.Snapshot, err)
	}
	if made.ID != "snap-new" || to.completed != int64(len(to.blocks)) {
		t.Fatalf("completed with %d blocks of %d", to.completed, len(to.blocks))
	}
}

func newRepository(t testing.TB) (*repository.Repository, *repositorytest.Store, *repositorytest.Clock) {
	t.Helper()
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	return open(t, store, clock.Now), store, clock
}

func copySource(t testing.TB, r *repository.Repository, src *source, id string, base *repository.Copy) block.Result {
	t.Helper()
	done, err := block.Copy(t.Context(), r, src, block.Request{Volume: volume, Snapshot: id, Base: base}, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return done
}
