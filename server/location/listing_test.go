package location_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/server/location"
)

// watched opens the location of a folder and tells of each operation on it, which waits for the answer.
func watched(t *testing.T, path string, observe func(e decorate.Event)) *location.Place {
	t.Helper()
	r := &location.Registry{
		PrivateDir: t.TempDir(), Now: clock,
		Observe: func(string) func(context.Context, decorate.Event) {
			return func(_ context.Context, e decorate.Event) { observe(e) }
		},
	}
	place, err := r.Open(t.Context(), &v1alpha1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Name: "main", UID: "u"}, Spec: v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: path}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// TestListingIsShared has several ask while a listing is under way: they share one that began after all of them asked, not the one under way.
func TestListingIsShared(t *testing.T) {
	const others = 4
	path, _ := folder(t, "one")
	for range 20 { // in some rounds somebody asks too late
		var lists atomic.Int32
		first, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		place := watched(t, path, func(e decorate.Event) {
			if e.Op != "list" {
				return
			}
			lists.Add(1)
			once.Do(func() {
				close(first)
				<-goOn
			})
		})
		var group errgroup.Group
		ask := func() error {
			_, entries, err := place.Inventory(t.Context())
			if err == nil && (len(entries) != 1 || entries[0].UID != "one-uid") {
				err = fmt.Errorf("entries: %v", entries)
			}
			return err
		}
		group.Go(ask)
		<-first
		for range others {
			group.Go(ask)
		}
		time.Sleep(20 * time.Millisecond)
		close(goOn)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		n := lists.Load() / 2 // backups and tombstones
		if n < 2 {
			t.Fatal("somebody was given a listing that had begun before he asked")
		}
		if n == 2 {
			return
		}
	}
	t.Error("no listing was shared")
}

// TestWalk tells of each backup in order, and does not read again what was read before a walk was cut off.
func TestWalk(t *testing.T) {
	const all = 90 // more than are read at once
	var names []string
	for n := range all {
		names = append(names, fmt.Sprintf("b%02d", n))
	}
	path, _ := folder(t, names...)
	var reads atomic.Int32
	place := watched(t, path, func(e decorate.Event) {
		if e.Op == "get" {
			reads.Add(1)
		}
	})
	opening := reads.Load()
	ctx, cancel := context.WithCancel(t.Context())
	told := 0
	_, err := place.Walk(ctx, func(archive.Entry) {
		if told++; told == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || told < 10 || told == all {
		t.Fatalf("cut off after %d: %v", told, err)
	}
	before := reads.Load()
	var order []string
	entries, err := place.Walk(t.Context(), func(e archive.Entry) { order = append(order, e.Name) })
	if err != nil || len(entries) != all {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for n, name := range names {
		if entries[n].Name != name || order[n] != name || entries[n].Record == nil {
			t.Fatalf("%d: %s, told as %s", n, entries[n].Name, order[n])
		}
	}
	if again := reads.Load() - before; again > all-10 {
		t.Errorf("%d records were read after the first %d had been, of %d", again, before-opening, all)
	}
	before = reads.Load()
	if _, err := place.Walk(t.Context(), func(archive.Entry) {}); err != nil || reads.Load() != before {
		t.Errorf("a third walk read %d records: %v", reads.Load()-before, err)
	}
}
