package location_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	"kedge.dev/kedge/server/retention"
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

// TestWalk tells of each backup once, and does not read again what was read before a walk was cut off.
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
	slices.Sort(order)
	if !slices.Equal(order, names) {
		t.Fatalf("told of %v", order)
	}
	for n, name := range names {
		if entries[n].Name != name || entries[n].Record == nil {
			t.Fatalf("%d: %s", n, entries[n].Name)
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

// TestCopiedFolder copies the folder of a backup inside the bucket, to a name before and one after it. The copy never stands for the backup, and
// retention leaves what has its uid alone.
func TestCopiedFolder(t *testing.T) {
	for _, as := range []string{"aaa", "zzz"} {
		path, _ := folder(t, "one")
		if err := os.CopyFS(filepath.Join(path, "backups", as, "one-uid"), os.DirFS(filepath.Join(path, "backups", "one", "one-uid"))); err != nil {
			t.Fatal(err)
		}
		place := watched(t, path, func(decorate.Event) {})
		for n := range 3 { // the later ones from what is remembered
			entries, err := place.Entries(t.Context())
			if err != nil || len(entries) != 2 {
				t.Fatalf("listing %d: %v, %v", n, entries, err)
			}
			in := retention.Input{Now: clock().AddDate(1, 0, 0), Policies: map[string]retention.Policy{"s": {Rules: v1alpha1.RetentionPolicy{KeepLast: 1}}}}
			for i := range entries {
				if e := &entries[i]; (e.Name == "one") != (e.Err == nil) {
					t.Errorf("listing %d with %s: %s has the error %v", n, as, e.ID(), e.Err)
				}
				b := retention.BackupOf(&entries[i])
				if entries[i].Record != nil {
					b.Schedule, b.Expires, in.Cluster = "s", nil, b.Cluster
				}
				in.Backups = append(in.Backups, b)
			}
			if in.Backups[0].Name == in.Backups[1].Name {
				t.Errorf("listing %d with %s: both are %s", n, as, in.Backups[0].Name)
			}
			for _, d := range retention.Evaluate(in) {
				if !d.Keep {
					t.Errorf("listing %d with %s: %s goes: %v", n, as, d.Backup.Name, d.Reasons)
				}
			}
		}
	}
}
