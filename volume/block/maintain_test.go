package block_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

// history is a volume with the copies that were made of it.
type history struct {
	rng     *rand.Rand
	clock   *repositorytest.Clock
	store   *repositorytest.Store
	current *disk
	kept    map[string]*kept // by snapshot
	taken   int
}

type kept struct {
	copy repository.Copy
	disk *disk
}

func (h *history) keep(c repository.Copy) bool { return h.kept[c.Snapshot] != nil }

// change writes a few blocks, some of them with what was there before, as databases do.
func (h *history) change() {
	for range 1 + h.rng.IntN(3) {
		seed := uint64(h.rng.IntN(6))
		h.current.write(h.rng.Int64N(12)*300*plugins.BlockSize, random(rand.New(rand.NewPCG(seed, 1)), 3000))
	}
}

// take copies the volume against a kept copy, or in full.
func (h *history) take(t *testing.T, r *repository.Repository, during func() error) {
	t.Helper()
	h.change()
	h.taken++
	id := fmt.Sprintf("snap-%d", h.taken)
	src := &source{disk: h.current.clone(), before: during}
	req := block.Request{Volume: volume, Snapshot: id}
	if k := h.any(); k != nil && h.rng.IntN(4) > 0 {
		src.base, src.baseID, req.Base = k.disk, k.copy.Snapshot, &k.copy
	}
	done, err := block.Copy(t.Context(), r, src, req, block.Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	h.kept[id] = &kept{copy: done.Copy, disk: src.disk}
}

// any is one of the kept copies.
func (h *history) any() *kept {
	ids := slices.Sorted(maps.Keys(h.kept))
	if len(ids) == 0 {
		return nil
	}
	return h.kept[ids[h.rng.IntN(len(ids))]]
}

func (h *history) forgetOne() {
	if len(h.kept) > 1 {
		delete(h.kept, h.any().copy.Snapshot)
	}
}

func (h *history) verify(t *testing.T, what string) {
	t.Helper()
	r, err := repository.Open(t.Context(), h.store, password, repository.Options{Now: h.clock.Now})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close(context.WithoutCancel(t.Context()))
	var copies []repository.Copy
	for _, k := range h.kept {
		c, err := r.Copy(t.Context(), k.copy.ID)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		copies = append(copies, c)
		check(t, r, c, k.disk)
	}
	damages, err := block.Verify(t.Context(), r, copies, block.Options{})
	if err != nil || len(damages) > 0 {
		t.Fatalf("%s: %v, %v", what, err, damages)
	}
}

// TestMaintenanceKeeps mixes copies, forgetting and maintenance in random order over weeks, by processes that look at the repository anew and by
// one that has it open all the time; in the middle of some copies others maintain. Every kept copy is whole at all times.
func TestMaintenanceKeeps(t *testing.T) {
	runs, steps := 2, 25
	if soak() {
		runs, steps = 30, 120
	}
	for run := range runs {
		rng := rand.New(rand.NewPCG(uint64(run), 17))
		clock := repositorytest.NewClock(testNow)
		h := &history{rng: rng, clock: clock, store: repositorytest.NewStore(clock.Now), current: newDisk(4 << 30), kept: map[string]*kept{}}
		old := open(t, h.store, clock.Now)
		maintainer := open(t, h.store, clock.Now)
		maintain := func() error {
			_, err := maintainer.Maintain(t.Context(), repository.MaintainOptions{Keep: h.keep, Force: rng.IntN(2) == 0})
			return err
		}
		h.take(t, old, nil)
		for step := range steps {
			what := fmt.Sprintf("run %d, step %d", run, step)
			switch rng.IntN(8) {
			case 0:
				h.take(t, old, nil)
			case 1:
				h.take(t, open(t, h.store, clock.Now), nil)
			case 2:
				var one sync.Mutex
				h.take(t, old, func() error { // a slow copy, and maintenance meanwhile
					one.Lock()
					defer one.Unlock()
					clock.Advance(time.Duration(rng.IntN(90)) * time.Minute)
					if rng.IntN(2) == 0 {
						return nil
					}
					return maintain()
				})
			case 3:
				h.forgetOne()
			case 4: // two that both take themselves for the leader
				var g errgroup.Group
				for _, r := range []*repository.Repository{old, maintainer} {
					g.Go(func() error {
						_, err := r.Maintain(t.Context(), repository.MaintainOptions{Keep: h.keep, Force: true})
						return err
					})
				}
				if err := g.Wait(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			default:
				if err := maintain(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			clock.Advance(time.Duration(rng.IntN(36*60)) * time.Minute)
			if step%8 == 7 {
				h.verify(t, what)
			}
		}
		h.verify(t, fmt.Sprintf("run %d", run))
	}
}

// TestMaintenanceRemoves forgets all copies but one, and waits for what they alone used to be gone.
func TestMaintenanceRemoves(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 20))
	r, store, clock := newRepository(t)
	total := func() int {
		sum := 0
		for _, key := range store.Keys("volumes/p") {
			sum += store.Size(key)
		}
		return sum
	}
	d := newDisk(1 << 30)
	var copies []repository.Copy
	var disks []*disk
	for i := range 4 {
		for at := range int64(4) {
			d.write(at*plugins.BlockSize, random(rng, plugins.BlockSize))
		}
		disks = append(disks, d.clone())
		copies = append(copies, copyDisk(t, r, fmt.Sprintf("snap-%d", i), disks[i], nil, nil).Copy)
	}
	full := total()
	keep := func(c repository.Copy) bool { return c.ID == copies[2].ID || c.Snapshot == "snap-other" }
	first, err := r.Maintain(t.Context(), repository.MaintainOptions{Keep: keep, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if first.Forgotten != 0 || first.Kept != 4 || first.Mode != "full" || total() < full {
		t.Errorf("young copies were not left alone: %+v", first)
	}
	for day := range 12 {
		clock.Advance(25 * time.Hour)
		if day == 5 {
			// kopia rewrites what is left in a pack that is mostly unused only together with that of a second one.
			other := newDisk(1 << 30)
			other.write(0, random(rng, plugins.BlockSize))
			disks = append(disks, other)
			copies = append(copies, copyDisk(t, r, "snap-other", other, nil, nil).Copy)
		}
		if _, err := r.Maintain(t.Context(), repository.MaintainOptions{Keep: keep}); err != nil {
			t.Fatal(err)
		}
	}
	left, err := r.Copies(t.Context(), repository.Filter{})
	if err != nil || len(left) != 2 || left[0].ID != copies[2].ID || left[1].ID != copies[4].ID {
		t.Fatalf("left are %v, %v", left, err)
	}
	t.Logf("packs of %d bytes became %d", full, total())
	if total() > (full/4+plugins.BlockSize)*11/10 {
		t.Errorf("packs of %d bytes became %d only", full, total())
	}
	check(t, r, copies[2], disks[2])
	check(t, r, copies[4], disks[4])
	if _, err := r.Copy(t.Context(), copies[0].ID); !errors.Is(err, repository.ErrNoCopy) {
		t.Errorf("found a forgotten copy: %v", err)
	}
	quick, err := r.Maintain(t.Context(), repository.MaintainOptions{Keep: keep})
	if err != nil || quick.Mode != "none" {
		t.Errorf("maintained again at once: %+v, %v", quick, err)
	}
}

// TestDeadCheckpoints are given up in the end.
func TestDeadCheckpoints(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	r, _, clock := newRepository(t)
	d := newDisk(1 << 30)
	for i := range int64(9) {
		d.write(i*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	reads := 0
	stop := errors.New("pulled the plug")
	src := &source{disk: d, before: func() error {
		if reads++; reads > 8 {
			return stop
		}
		return nil
	}}
	req := block.Request{Volume: volume, Snapshot: "snap-1"}
	if _, err := block.Copy(t.Context(), r, src, req, block.Options{Parallel: 1, CheckpointBytes: 1 << 20}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	count := func() int {
		t.Helper()
		left, err := r.Copies(t.Context(), repository.Filter{Incomplete: true})
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	clock.Advance(13 * 24 * time.Hour)
	if _, err := r.Maintain(t.Context(), repository.MaintainOptions{Force: true}); err != nil || count() != 1 {
		t.Fatalf("%d checkpoints, %v", count(), err)
	}
	clock.Advance(25 * time.Hour)
	if done, err := r.Maintain(t.Context(), repository.MaintainOptions{Force: true}); err != nil || count() != 0 || done.Checkpoints != 1 {
		t.Fatalf("%d checkpoints, %+v, %v", count(), done, err)
	}
}
