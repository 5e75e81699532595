package files

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// readingRepo calls a hook for each object that is opened.
type readingRepo struct {
	repo.Repository
	hook func(n int64)
	n    atomic.Int64
}

func (r *readingRepo) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	r.hook(r.n.Add(1))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.Repository.OpenObject(ctx, id)
}

// TestKilledCopy cancels a copy at a random point, again and again. What follows ends with the copy that an undisturbed
// run makes, and does not read again what a checkpoint holds.
func TestKilledCopy(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	everything(t, dir)
	grove(t, dir, 60)
	want := treeState(t, dir)
	r, c := newRepo(t), newCopier(t)
	undisturbed := r.copyTree(t, c, dir)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range killRounds {
		source := snapshot.SourceInfo{Host: "test", UserName: "kill", Path: fmt.Sprint("/", round)}
		var points []int64
		for range 1 + random.IntN(3) {
			at := 1 + random.Int64N(80)
			points = append(points, at)
			ctx, cancel := context.WithCancel(r.ctx)
			w := &countingRepo{}
			w.hook = func(object.WriterOptions) {
				if w.objects.Load() == at {
					cancel()
				}
			}
			_, err := r.copyAs(ctx, t, c, w, dir, source)
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("the copy cancelled at object %d ends with %v", at, err)
			}
		}
		res, err := r.copyAs(r.ctx, t, c, &countingRepo{}, dir, source)
		must(t, err)
		if res.Manifest.RootEntry.ObjectID == undisturbed.Manifest.RootEntry.ObjectID {
			continue
		}
		target := t.TempDir()
		r.restoreTree(t, newRestorer(t), res, target)
		compareTrees(t, want, treeState(t, target))
		t.Fatalf("the copy after kills at objects %v is another than an undisturbed one", points)
	}
}

// killRounds is how often each of these tests kills, with the same points each time.
const killRounds = 20

// TestCheckpoint: a copy that is cancelled late reads little when it is run again, and leaves no checkpoint when it is through.
func TestCheckpoint(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	grove(t, dir, 100)
	c.Parallel = 1
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	w := &countingRepo{}
	w.hook = func(object.WriterOptions) {
		if w.objects.Load() == 60 {
			cancel()
		}
	}
	if _, err := r.copyVia(ctx, t, c, w, dir); !errors.Is(err, context.Canceled) {
		t.Fatalf("the cancelled copy ends with %v", err)
	}
	manifests, err := snapshot.ListSnapshots(r.ctx, r, testSource)
	must(t, err)
	if len(manifests) != 1 || manifests[0].IncompleteReason == "" {
		t.Fatalf("after the cancelled copy there are %d manifests", len(manifests))
	}
	res := r.copyTree(t, c, dir)
	if res.ReadFiles < 40 || res.ReadFiles > 60 {
		t.Errorf("%d of 100 files were read again", res.ReadFiles)
	}
}

// TestCheckpointsOnTheWay are saved by the repository's clock, each in place of the one before.
func TestCheckpointsOnTheWay(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	grove(t, dir, 100)
	c.CheckpointEvery, c.Parallel = time.Nanosecond, 1
	res := r.copyTree(t, c, dir)
	if res.Checkpoints < 100 {
		t.Errorf("%d checkpoints were saved", res.Checkpoints)
	}
	manifests, err := snapshot.ListSnapshots(r.ctx, r, testSource)
	must(t, err)
	if len(manifests) != 1 || manifests[0].IncompleteReason != "" {
		t.Errorf("after the copy there are %d manifests", len(manifests))
	}
	target := t.TempDir()
	r.restoreTree(t, newRestorer(t), res, target)
	compareTrees(t, treeState(t, dir), treeState(t, target))
}

// TestKilledRestore cancels a restore at a random point, again and again; the last run completes the tree.
func TestKilledRestore(t *testing.T) {
	needRoot(t)
	r, dir := newRepo(t), t.TempDir()
	everything(t, dir)
	grove(t, dir, 60)
	res := r.copyTree(t, newCopier(t), dir)
	want := treeState(t, dir)
	base := t.TempDir()
	random := rand.New(rand.NewPCG(3, 4))
	for round := range killRounds {
		target := filepath.Join(base, fmt.Sprint(round))
		s := newRestorer(t)
		var points []int64
		for range 1 + random.IntN(3) {
			at := 1 + random.Int64N(150)
			points = append(points, at)
			ctx, cancel := context.WithCancel(r.ctx)
			rep := &readingRepo{Repository: r, hook: func(n int64) {
				if n == at {
					cancel()
				}
			}}
			_, err := s.Restore(ctx, rep, RestoreRequest{Manifest: res.Manifest, Target: target})
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("the restore cancelled at object %d ends with %v", at, err)
			}
		}
		got := r.restoreTree(t, s, res, target)
		if len(got.Remarks) > 0 || !compareTrees(t, want, treeState(t, target)) {
			t.Fatalf("the restore after kills at objects %v differs: %v", points, got.Remarks)
		}
		must(t, os.RemoveAll(target))
	}
}
