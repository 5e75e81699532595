package archive_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// whole fails the test where the store shows a backup that is not whole. It returns how many there are.
func whole(t *testing.T, store *memory, keys *archive.Keys, when string) int {
	t.Helper()
	l, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	n := 0
	err = l.Backups(t.Context(), func(e archive.Entry) error {
		if e.Deleting {
			return nil
		}
		n++
		res, err := archive.Verify(t.Context(), l, e, keys, archive.VerifyOptions{Deep: true})
		if err != nil {
			return err
		}
		for _, p := range res.Problems {
			t.Errorf("%s: %s", when, p)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", when, err)
	}
	return n
}

// TestCrashAnywhere lets the store die at each operation of a backup, with and without the effect of that operation. No half
// backup ever shows, a second attempt succeeds, and a sweep leaves only what belongs there.
func TestCrashAnywhere(t *testing.T) {
	base := newMemory()
	_, keys := location(t, base)
	s := smallSample(6)
	calm := base.clone()
	l, err := archive.Open(t.Context(), calm)
	if err != nil {
		t.Fatal(err)
	}
	write(t, l, writeOptions(t, "nightly", "uid-1"), s)
	tidy := len(calm.keys(""))
	for n := 1; n <= calm.ops; n++ {
		for _, stored := range []bool{false, true} {
			when := fmt.Sprintf("dead at %d, stored %v", n, stored)
			dying := base.clone()
			l, err := archive.Open(t.Context(), dying)
			if err != nil {
				t.Fatal(err)
			}
			dying.dieAt, dying.dieStored = dying.ops+n, stored
			rec, err := l.Write(t.Context(), writeOptions(t, "nightly", "uid-1"), s.fill)
			when += " in " + dying.operation(dying.dieAt)
			alive := dying.clone()
			seen := whole(t, alive, keys, when)
			if err == nil && (rec == nil || seen != 1) {
				t.Errorf("%s: success, and %d backups", when, seen)
			}
			checkSecondAttempt(t, alive, keys, s, when, tidy)
		}
	}
}

func checkSecondAttempt(t *testing.T, alive *memory, keys *archive.Keys, s *sample, when string, tidy int) {
	t.Helper()
	l, err := archive.Open(t.Context(), alive)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Write(t.Context(), writeOptions(t, "nightly", "uid-1"), s.fill)
	if err != nil && !errors.Is(err, archive.ErrSealed) {
		t.Errorf("%s: second attempt: %v", when, err)
	}
	if n := whole(t, alive, keys, when+", second attempt"); n != 1 {
		t.Errorf("%s: %d backups after the second attempt", when, n)
	}
	later := func() time.Time { return testNow.Add(72 * time.Hour) }
	if _, err := l.Sweep(t.Context(), archive.SweepOptions{OlderThan: archive.MinSweepAge, Now: later}); err != nil {
		t.Errorf("%s: sweep: %v", when, err)
	}
	if n := len(alive.keys("")); n != tidy {
		t.Errorf("%s: %d objects after the sweep, want %d: %v", when, n, tidy, alive.keys(""))
	}
	whole(t, alive, keys, when+", swept")
}

// TestCrashInit lets the store die at each operation of Init; the next Init succeeds, and its keys open it.
func TestCrashInit(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opts := archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: now, Rand: rand.Reader}
	for n := 1; n <= 8; n++ {
		for _, stored := range []bool{false, true} {
			dying := newMemory()
			dying.dieAt, dying.dieStored = n, stored
			_, _, first := archive.Init(t.Context(), dying, opts)
			alive := dying.clone()
			_, keys, err := archive.Init(t.Context(), alive, opts)
			if err != nil && !errors.Is(err, archive.ErrInitialized) {
				t.Fatalf("dead at %d: second init: %v", n, err)
			}
			if first == nil && err == nil {
				t.Errorf("dead at %d: two inits succeeded", n)
			}
			l, err := archive.Open(t.Context(), alive)
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.Unlock(t.Context(), archive.UnlockOptions{Identities: []age.Identity{id}})
			if err != nil || keys != nil && got.PublicKey() != keys.PublicKey() {
				t.Errorf("dead at %d, stored %v: unlock: %v", n, stored, err)
			}
		}
	}
}

// TestLostReplies loses the reply to each Put that took effect: the writer finds its own objects and succeeds.
func TestLostReplies(t *testing.T) {
	for _, name := range []string{archive.FileItems, archive.FileIndex, archive.FileTable, archive.FileLog, archive.FileReport, "backup.json"} {
		store := newMemory()
		l, keys := location(t, store)
		store.lose = func(key string) bool { return strings.HasSuffix(key, "/"+name) }
		_, err := l.Write(t.Context(), writeOptions(t, "lossy", "uid"), smallSample(1).fill)
		if name != "backup.json" {
			if err == nil {
				t.Errorf("%s: a failed upload was taken for a success", name)
			}
			if keys := store.keys("backups/"); len(keys) > 0 {
				t.Errorf("%s: left behind: %v", name, keys)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if whole(t, store, keys, name) != 1 {
			t.Errorf("%s: no backup", name)
		}
	}
}

// TestRetriedPut is a store that retries by itself and then finds its own object there.
func TestRetriedPut(t *testing.T) {
	twice := &putTwice{memory: newMemory()}
	l, keys := location(t, twice)
	if _, err := l.Write(t.Context(), writeOptions(t, "retried", "uid"), smallSample(1).fill); err != nil {
		t.Fatal(err)
	}
	if whole(t, twice.memory, keys, "retried") != 1 {
		t.Error("no backup")
	}
}

// putTwice answers every conditional Put with ErrExists, as if a first reply had been lost within the store's retries.
type putTwice struct{ *memory }

func (p *putTwice) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	info, err := p.memory.Put(ctx, key, r, opts)
	if err == nil && opts.IfNoneMatch {
		return info, p.fail("put", key, plugins.ErrExists)
	}
	return info, err
}

// TestCommitRace lets many writers make the same backup at once: one wins, the others know it and leave nothing.
func TestCommitRace(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	before := len(store.keys(""))
	const writers = 8
	var ready, group sync.WaitGroup
	ready.Add(writers)
	errs := make([]error, writers)
	for i := range writers {
		opts := writeOptions(t, "raced", "uid")
		group.Go(func() {
			_, errs[i] = l.Write(t.Context(), opts, func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
				ready.Done()
				ready.Wait() // all have seen that there is no record yet
				return smallSample(uint64(i)).fill(ctx, w)
			})
		})
	}
	group.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, archive.ErrLostRace):
			t.Error(err)
		}
	}
	if won != 1 || whole(t, store, keys, "raced") != 1 {
		t.Errorf("%d writers won", won)
	}
	if n := len(store.keys("")) - before; n != 6 {
		t.Errorf("%d objects of the backup: %v", n, store.keys("backups/"))
	}
	if _, err := l.Write(t.Context(), writeOptions(t, "raced", "uid"), smallSample(1).fill); !errors.Is(err, archive.ErrSealed) {
		t.Errorf("a sealed backup was written again: %v", err)
	}
}

// TestUncertainCommit: where nobody can say whether the record is there, the files stay for the sweeper.
func TestUncertainCommit(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	store.before = func(_, key string) error {
		if strings.HasSuffix(key, "/backup.json") && len(store.keys("backups/")) > 0 {
			return errDead
		}
		return nil
	}
	_, err := l.Write(t.Context(), writeOptions(t, "unsure", "uid"), smallSample(1).fill)
	if !errors.Is(err, archive.ErrUncertain) || len(store.keys("backups/")) != 5 {
		t.Errorf("%v, %v", err, store.keys("backups/"))
	}
}

// TestCancelledWrite leaves nothing, at whichever operation it is cancelled.
func TestCancelledWrite(t *testing.T) {
	for n := 1; n <= 9; n++ {
		store := newMemory()
		l, keys := location(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		var mu sync.Mutex
		store.before = func(string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if count++; count == n {
				cancel()
			}
			return ctx.Err()
		}
		_, err := l.Write(ctx, writeOptions(t, "cancelled", "uid"), smallSample(1).fill)
		store.before = nil
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d: %v", n, err)
		}
		if whole(t, store, keys, "cancelled") != 0 {
			t.Errorf("cancelled at %d: a backup shows", n)
		}
		cancel()
	}
}

// TestFillErrors: whatever goes wrong while objects are collected, nothing is stored.
func TestFillErrors(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	pods := archive.SectionOptions{Version: "v1", Resource: "pods", Sorted: true}
	row := func(ns, name string) archive.Row {
		return archive.Row{Ref: plugins.Ref{Namespace: ns, Name: name}, Kind: "Pod"}
	}
	type fill func(ctx context.Context, w *archive.Writer, s *archive.Section) error
	add := func(keys ...string) fill {
		return func(ctx context.Context, _ *archive.Writer, s *archive.Section) error {
			for _, k := range keys {
				ns, name, _ := strings.Cut(k, "/")
				if err := s.Add(ctx, row(ns, name), []byte("{}")); err != nil {
					return err
				}
			}
			return s.Close(ctx)
		}
	}
	for _, c := range []struct {
		name string
		fill fill
		want error
	}{
		{"out of order", add("b/x", "a/x"), archive.ErrOutOfOrder},
		{"dash before slash", add("a/x", "a-b/x"), archive.ErrOutOfOrder},
		{"twice", add("a/x", "a/x"), archive.ErrDuplicate},
		{"no name", add("a/"), archive.ErrInvalid},
		{"path trick", add("a/.."), archive.ErrInvalid},
		{"path trick in the namespace", add("../x"), archive.ErrInvalid},
		{"both scopes", add("a/x", "/y"), archive.ErrInvalid},
		{"not closed", func(context.Context, *archive.Writer, *archive.Section) error { return nil }, archive.ErrInvalid},
		{"too large", func(ctx context.Context, _ *archive.Writer, s *archive.Section) error {
			return s.Add(ctx, row("a", "x"), make([]byte, archive.MaxItem+1))
		}, archive.ErrTooLarge},
		{"closed", func(ctx context.Context, _ *archive.Writer, s *archive.Section) error {
			return errors.Join(s.Close(ctx), s.Add(ctx, row("a", "x"), nil))
		}, archive.ErrInvalid},
		{"section twice", func(_ context.Context, w *archive.Writer, _ *archive.Section) error {
			_, err := w.Section(pods)
			return err
		}, archive.ErrDuplicate},
		{"impossible resource", func(_ context.Context, w *archive.Writer, _ *archive.Section) error {
			_, err := w.Section(archive.SectionOptions{Version: "v1", Resource: "../etc"})
			return err
		}, archive.ErrInvalid},
		{"unsorted twice", func(ctx context.Context, w *archive.Writer, s *archive.Section) error {
			s.Abort()
			again, err := w.Section(archive.SectionOptions{Version: "v1", Resource: "pods"})
			if err != nil {
				return err
			}
			return add("b/x", "a/x", "b/x")(ctx, w, again)
		}, archive.ErrDuplicate},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := l.Write(t.Context(), writeOptions(t, "wrong", "uid"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
				s, err := w.Section(pods)
				if err != nil {
					return nil, err
				}
				return &archive.Summary{}, c.fill(ctx, w, s)
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if keys := store.keys("backups/"); len(keys) > 0 {
				t.Errorf("stored: %v", keys)
			}
		})
	}
}
