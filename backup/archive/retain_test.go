package archive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// locking is a store that notes what it is asked to retain, and may die of it.
type locking struct {
	*memory
	mu    sync.Mutex
	until map[string]time.Time
	order []string
	dieAt int
}

func (l *locking) Retain(_ context.Context, key string, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.order = append(l.order, key); len(l.order) == l.dieAt {
		return errDead
	}
	if until.After(l.until[key]) {
		l.until[key] = until
	}
	return nil
}

// TestRetain extends a backup, is cut off at every call, and goes on. The record is last, and nothing beside the backup is touched.
func TestRetain(t *testing.T) {
	store := &locking{memory: newMemory(), until: map[string]time.Time{}}
	l, _ := location(t, store)
	rec := write(t, l, writeOptions(t, "kept", "uid"), smallSample(2))
	write(t, l, writeOptions(t, "kept", "uid-2"), smallSample(1))
	store.objects["backups/kept/uid/0123456789abcdef/items.tar.zst.age"] = []byte("remains")
	e := find(t, l, "uid")
	want := append(store.keys("backups/kept/uid/"+rec.Attempt+"/"), "backups/kept/uid/backup.json")
	for dieAt := 1; dieAt <= len(want)+1; dieAt++ {
		store.until, store.order, store.dieAt = map[string]time.Time{}, nil, dieAt
		err := l.Retain(t.Context(), e, testNow)
		if dieAt <= len(want) {
			if !errors.Is(err, errDead) {
				t.Errorf("cut off at call %d: %v", dieAt, err)
			}
			if _, done := store.until["backups/kept/uid/backup.json"]; done {
				t.Errorf("cut off at call %d: the record says that all are protected", dieAt)
			}
			store.order, store.dieAt = nil, 0
			err = l.Retain(t.Context(), e, testNow)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range want {
			if !store.until[key].Equal(testNow) {
				t.Errorf("%s is protected until %s", key, store.until[key])
			}
		}
		if len(store.until) != len(want) || store.order[len(store.order)-1] != "backups/kept/uid/backup.json" {
			t.Errorf("calls: %s", strings.Join(store.order, ", "))
		}
	}
	if err := l.Retain(t.Context(), archive.Entry{Name: "kept", UID: "uid"}, testNow); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("without a record: %v", err)
	}
	plain, _ := location(t, newMemory())
	write(t, plain, writeOptions(t, "kept", "uid"), smallSample(1))
	if err := plain.Retain(t.Context(), find(t, plain, "uid"), testNow); !errors.Is(err, plugins.ErrUnsupported) {
		t.Errorf("a store that cannot: %v", err)
	}
}

func TestAgain(t *testing.T) {
	l, _ := location(t, newMemory())
	write(t, l, writeOptions(t, "b", "uid"), smallSample(1))
	write(t, l, writeOptions(t, "b", "uid-2"), smallSample(1))
	before := find(t, l, "uid")
	if err := l.SetExpiry(t.Context(), before, archive.Expiry{Hold: true, Reason: "audit", At: testNow}); err != nil {
		t.Fatal(err)
	}
	again, err := l.Again(t.Context(), before)
	if err != nil || again.UID != "uid" || again.Expiry == nil || !again.Expiry.Hold || again.Record.Nonce != before.Record.Nonce {
		t.Errorf("%+v, %v", again, err)
	}
	if err := l.Delete(t.Context(), before, archive.DeleteOptions{Now: now}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Again(t.Context(), before); !errors.Is(err, archive.ErrBackupNotFound) {
		t.Errorf("what is gone: %v", err)
	}
}

// TestRetainedUntil: what resuming and deleting a protected backup say of when it can go.
func TestRetainedUntil(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	for _, uid := range []string{"uid-1", "uid-2"} {
		write(t, l, writeOptions(t, "locked", uid), smallSample(1))
	}
	ends := map[string]time.Time{"uid-1": testNow.Add(2 * time.Hour), "uid-2": testNow.Add(time.Hour)}
	store.before = func(op, key string) error {
		for uid, end := range ends {
			if op == "delete" && strings.Contains(key, uid) {
				return &plugins.RetainedError{Until: end}
			}
		}
		return nil
	}
	for _, uid := range []string{"uid-1", "uid-2"} {
		err := l.Delete(t.Context(), find(t, l, uid), archive.DeleteOptions{Now: now})
		known, ok := errors.AsType[*plugins.RetainedError](err)
		if !ok || !errors.Is(err, plugins.ErrRetained) || !known.Until.Equal(ends[uid]) {
			t.Errorf("delete %s: %v", uid, err)
		}
	}
	res, err := l.ResumeDeletions(t.Context())
	if err != nil || !slices.Equal(res.Retained, []string{"locked/uid-1", "locked/uid-2"}) || !res.RetainedUntil.Equal(ends["uid-2"]) {
		t.Errorf("%+v, %v", res, err)
	}
	delete(ends, "uid-2")
	for range 2 { // the second time there is nothing to resume
		if err := l.ResumeDeletion(t.Context(), "uid-2"); err != nil {
			t.Error(err)
		}
	}
	if err := l.ResumeDeletion(t.Context(), "uid-1"); !errors.Is(err, plugins.ErrRetained) {
		t.Errorf("%v", err)
	}
	if err := l.ResumeDeletion(t.Context(), "../uid"); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if got := store.keys("backups/locked/uid-2"); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}
