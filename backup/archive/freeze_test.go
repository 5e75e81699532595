package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/backup/archive"
)

// TestFreezes leaves a note in an attempt that dies, and finds it again by name and cluster; who thaws forgets it.
func TestFreezes(t *testing.T) {
	store := newMemory()
	l, keyPair := location(t, store)
	died := errors.New("killed")
	note := func(name, uid, cluster string, forgets bool, pods ...string) {
		t.Helper()
		_, err := l.Write(t.Context(), writeOptions(t, name, uid), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
			note, err := w.Freeze(ctx, archive.Freeze{Cluster: cluster, Pods: pods})
			if err == nil && forgets {
				err = note.Forget(ctx)
			}
			return nil, errors.Join(err, died)
		})
		if !errors.Is(err, died) || strings.Contains(err.Error(), "freeze") {
			t.Fatal(err)
		}
	}
	note("night", "uid-1", "here", false, "a", "b")
	note("night", "uid-2", "here", false, "c")
	note("night", "uid-3", "there", false, "d")
	note("night", "uid-4", "here", true, "e")
	note("nights", "uid-5", "here", false, "f")
	found := func() []string {
		t.Helper()
		list, err := l.Freezes(t.Context(), "night", "here")
		if err != nil {
			t.Fatal(err)
		}
		var pods []string
		for _, f := range list {
			pods = append(pods, f.Pods...)
		}
		return pods
	}
	if got := found(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("found %v", got)
	}
	keys := store.keys("backups/night/uid-1/")
	if len(keys) != 1 || !strings.HasSuffix(keys[0], "/freeze-1.json") {
		t.Fatalf("the notes are %v", keys)
	}
	// A note that is damaged hides no other.
	whole := store.objects[keys[0]]
	store.objects[keys[0]] = whole[:len(whole)-8]
	list, err := l.Freezes(t.Context(), "night", "here")
	if err == nil || !strings.Contains(err.Error(), keys[0]) || len(list) != 1 {
		t.Errorf("with a damaged note: %v, %v", list, err)
	}
	store.objects[keys[0]] = whole
	list, err = l.Freezes(t.Context(), "night", "here")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if err := l.ForgetFreeze(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if got := found(); got != nil {
		t.Errorf("forgotten, and found %v", got)
	}
	// Where nothing may be removed a note stays in a sealed backup, and means nothing there.
	rec, err := l.Write(t.Context(), writeOptions(t, "night", "uid-6"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		if _, err := w.Freeze(ctx, archive.Freeze{Cluster: "here", Pods: []string{"g"}}); err != nil {
			return nil, err
		}
		return smallSample(1).fill(ctx, w)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := found(); got != nil {
		t.Errorf("of a sealed backup there is found %v", got)
	}
	res, err := archive.Verify(t.Context(), l, archive.Entry{Name: rec.Name, UID: rec.UID, Record: rec}, keyPair, archive.VerifyOptions{Deep: true})
	if err != nil || !res.OK() {
		t.Errorf("verify: %+v, %v", res, err)
	}
	if _, err := l.Freezes(t.Context(), "../keys", "here"); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
}

// TestFreezesBounded plants notes as whoever may write to the bucket could: neither their size nor their number is followed without end, and the good note is
// found.
func TestFreezesBounded(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	died := errors.New("killed")
	_, err := l.Write(t.Context(), writeOptions(t, "night", "uid-1"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		_, err := w.Freeze(ctx, archive.Freeze{Cluster: "here", Pods: []string{"a"}})
		if _, large := w.Freeze(ctx, archive.Freeze{Cluster: "here", Pods: slices.Repeat([]string{strings.Repeat("u", 36)}, 30000)}); large == nil {
			t.Error("a note that is too large to be read is written")
		}
		return nil, errors.Join(err, died)
	})
	keys := store.keys("backups/night/uid-1/")
	if !errors.Is(err, died) || len(keys) != 1 {
		t.Fatal(err, keys)
	}
	good := store.objects[keys[0]]
	folder := strings.TrimSuffix(keys[0], "1.json")
	store.objects[folder+"2.json"] = bytes.Repeat([]byte(" "), 1<<20+1)
	list, err := l.Freezes(t.Context(), "night", "here")
	if len(list) != 1 || !errors.Is(err, archive.ErrTooLarge) {
		t.Errorf("beside a large one: %v, %v", list, err)
	}
	for i := range 1500 {
		store.objects[fmt.Sprintf("%s%d.json", folder, i+2)] = good
	}
	list, err = l.Freezes(t.Context(), "night", "here")
	if len(list) != 1000 || !errors.Is(err, archive.ErrInvalid) || len(err.Error()) > 2000 {
		t.Errorf("of many: %d, %v", len(list), err)
	}
}

// TestFreezeTakenOver lets another attempt thaw what a living one has frozen, which sees it from the moment in which that begins.
func TestFreezeTakenOver(t *testing.T) {
	l, _ := location(t, newMemory())
	died := errors.New("killed")
	_, err := l.Write(t.Context(), writeOptions(t, "night", "uid-1"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		note, err := w.Freeze(ctx, archive.Freeze{Cluster: "here", Pods: []string{"a"}})
		if err != nil {
			return nil, err
		}
		list, err := l.Freezes(ctx, "night", "here")
		if held, heldErr := note.Held(ctx); err != nil || len(list) != 1 || !held || heldErr != nil {
			t.Fatalf("%v, %v, %v", list, err, heldErr)
		}
		for _, step := range []func(context.Context, archive.Freeze) error{l.ThawFreeze, l.ForgetFreeze} {
			if err := step(ctx, list[0]); err != nil {
				t.Error(err)
			}
			if held, err := note.Held(ctx); held || err != nil {
				t.Errorf("it is held: %v, %v", held, err)
			}
			again, err := l.Freezes(ctx, "night", "here") // an attempt that dies while it thaws leaves the note
			if err != nil || len(again) > 1 || len(again) == 1 && !slices.Equal(again[0].Pods, []string{"a"}) {
				t.Errorf("found %v, %v", again, err)
			}
		}
		return nil, died
	})
	if !errors.Is(err, died) {
		t.Error(err)
	}
}
