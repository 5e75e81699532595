package block_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

func soak() bool { return os.Getenv("KEDGE_SOAK") != "" }

// often makes a checkpoint after each MiB.
var often = block.Options{Parallel: 3, CheckpointBytes: 1 << 20}

// TestKilled ends a copy at each operation on the store, in both ways that a reply can be lost, and goes on with what is left in the bucket.
func TestKilled(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	first := newDisk(3 << 30)
	for _, gib := range []int64{0, 1, 2} {
		for i := range int64(4) {
			first.write(gib<<30+i*3*plugins.BlockSize, random(rng, plugins.BlockSize))
		}
	}
	second := first.clone()
	for i := range int64(10) {
		second.write(i*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	delete(second.blocks, 2048)
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	r := open(t, store, clock.Now)
	base := copyDisk(t, r, "snap-1", first, nil, nil).Copy

	// attempt runs the second copy on a bucket, as a process of its own.
	attempt := func(bucket *repositorytest.Store) (block.Result, *source, error) {
		src := &source{disk: second, base: first, baseID: "snap-1"}
		r, err := repository.Open(t.Context(), bucket, password, repository.Options{Now: clock.Now})
		if err != nil {
			return block.Result{}, src, err
		}
		done, err := block.Copy(t.Context(), r, src, block.Request{Volume: volume, Snapshot: "snap-2", Base: &base}, often)
		return done, src, errors.Join(err, r.Close(context.WithoutCancel(t.Context())))
	}
	whole := store.Clone()
	if _, _, err := attempt(whole); err != nil {
		t.Fatal(err)
	}
	ops, step := whole.Ops(), 1
	if !soak() {
		step = max(ops/9, 1)
	}
	t.Logf("%d operations", ops)
	resumed := false
	for n := 1; n <= ops; n += step {
		for _, stored := range []bool{false, true} {
			bucket := store.Clone()
			bucket.DieAt(n, stored)
			_, _, err := attempt(bucket)
			died := bucket.Op(n)
			if err != nil && !errors.Is(err, repositorytest.ErrDead) {
				t.Fatalf("died at %s: %v", died, err)
			}
			after := bucket.Clone()
			done, _, err := attempt(after)
			if err != nil {
				t.Fatalf("died at %d, %s, then: %v", n, died, err)
			}
			resumed = resumed || done.Resumed > 0
			checkBucket(t, fmt.Sprintf("died at %d, %s", n, died), after, clock, base, first, done.Copy, second)
		}
	}
	if !resumed {
		t.Error("no run went on with what an earlier one had done")
	}
}

// checkBucket opens the bucket anew and restores both copies.
func checkBucket(t *testing.T, what string, bucket *repositorytest.Store, clock *repositorytest.Clock, base repository.Copy, first *disk, next repository.Copy, second *disk) {
	t.Helper()
	r, err := repository.Open(t.Context(), bucket, password, repository.Options{Now: clock.Now})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close(t.Context())
	check(t, r, base, first)
	check(t, r, next, second)
	left, err := r.Copies(t.Context(), repository.Filter{Incomplete: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%s: %d checkpoints are left", what, len(left))
	}
}

// TestResume ends a copy when its source fails, and counts what the next run reads.
func TestResume(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	d := newDisk(2 << 30)
	for i := range int64(40) {
		d.write(i*64*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	r, _, _ := newRepository(t)
	stop := errors.New("pulled the plug")
	var reads atomic.Int64
	src := &source{disk: d, before: func() error {
		if reads.Add(1) > 30 {
			return stop
		}
		return nil
	}}
	req := block.Request{Volume: volume, Snapshot: "snap-1"}
	one := block.Options{Parallel: 1, CheckpointBytes: 1 << 20} // each checkpoint is made before the next block is read
	if _, err := block.Copy(t.Context(), r, src, req, one); !errors.Is(err, stop) {
		t.Fatalf("copied from a failing source: %v", err)
	}
	if copies, err := r.Copies(t.Context(), repository.Filter{}); err != nil || len(copies) != 0 {
		t.Fatalf("a failed copy left %v, %v", copies, err)
	}
	src = &source{disk: d}
	done, err := block.Copy(t.Context(), r, src, req, often)
	if err != nil {
		t.Fatal(err)
	}
	if done.Resumed < 28 || done.Blocks+done.Resumed != 40 || src.reads.Load() != done.Blocks*plugins.BlockSize {
		t.Errorf("went on with %d blocks, read %d (%d bytes)", done.Resumed, done.Blocks, src.reads.Load())
	}
	check(t, r, done.Copy, d)
}

// TestCancel ends a copy by its context.
func TestCancel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	d := newDisk(1 << 30)
	for i := range int64(20) {
		d.write(i*plugins.BlockSize, random(rng, 4096))
	}
	r, _, _ := newRepository(t)
	ctx, cancel := context.WithCancel(t.Context())
	var reads atomic.Int64
	src := &source{disk: d, before: func() error {
		if reads.Add(1) == 10 {
			cancel()
		}
		return nil
	}}
	if _, err := block.Copy(ctx, r, src, block.Request{Volume: volume, Snapshot: "snap-1"}, block.Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled copy returned %v", err)
	}
	check(t, r, copyDisk(t, r, "snap-1", d, nil, nil).Copy, d)
}

// TestSuspended: a run that slept through a maintenance does not go on, and the next one does.
func TestSuspended(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 30))
	d := newDisk(1 << 30)
	for i := range int64(20) {
		d.write(i*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	r, store, clock := newRepository(t)
	maintainer := open(t, store, clock.Now)
	reads := 0
	src := &source{disk: d, before: func() error {
		if reads++; reads != 15 {
			return nil
		}
		clock.Advance(49 * time.Hour)
		_, err := maintainer.Maintain(t.Context(), repository.MaintainOptions{Force: true})
		return err
	}}
	req := block.Request{Volume: volume, Snapshot: "snap-1"}
	opts := block.Options{Parallel: 1, CheckpointBytes: 4 << 20}
	if _, err := block.Copy(t.Context(), r, src, req, opts); err == nil {
		t.Fatal("went on after 49 hours")
	}
	done, err := block.Copy(t.Context(), open(t, store, clock.Now), src, req, opts)
	if err != nil || done.Resumed == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	for range 3 {
		clock.Advance(25 * time.Hour)
		if _, err := maintainer.Maintain(t.Context(), repository.MaintainOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check(t, r, done.Copy, d)
}
