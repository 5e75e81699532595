package archive_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

func find(t *testing.T, l *archive.Location, name string) archive.Entry {
	t.Helper()
	e, err := l.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestCrashInDelete lets the store die at each operation of a deletion. The backup is either whole or refused, and resuming
// removes all of it and nothing else.
func TestCrashInDelete(t *testing.T) {
	base := newMemory()
	l, keys := location(t, base)
	write(t, l, writeOptions(t, "kept", "uid-0"), smallSample(1))
	kept := base.keys("")
	write(t, l, writeOptions(t, "doomed", "uid-1"), smallSample(2))
	if err := l.SetExpiry(t.Context(), find(t, l, "doomed"), archive.Expiry{At: testNow}); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		for _, stored := range []bool{false, true} {
			when := fmt.Sprintf("dead at %d, stored %v", n, stored)
			dying := base.clone()
			l, err := archive.Open(t.Context(), dying)
			if err != nil {
				t.Fatal(err)
			}
			e := find(t, l, "doomed")
			dying.dieAt, dying.dieStored = dying.ops+n, stored
			err = l.Delete(t.Context(), e, archive.DeleteOptions{Now: now})
			if err == nil {
				if got := dying.keys(""); !slices.Equal(got, kept) {
					t.Errorf("after a deletion: %v", got)
				}
				return
			}
			checkResumed(t, dying.clone(), keys, kept, when)
		}
	}
}

func checkResumed(t *testing.T, alive *memory, keys *archive.Keys, kept []string, when string) {
	t.Helper()
	l, err := archive.Open(t.Context(), alive)
	if err != nil {
		t.Fatal(err)
	}
	whole(t, alive, keys, when) // what is being deleted is left out
	begun := len(alive.keys("tombstones/")) > 0
	e, err := l.Find(t.Context(), "doomed")
	if err == nil {
		_, err = l.OpenBackup(t.Context(), e, keys, archive.ReadOptions{})
		if begun != errors.Is(err, archive.ErrDeleting) || begun != e.Deleting {
			t.Errorf("%s: deletion begun: %v, open: %v", when, begun, err)
		}
		_, err = l.Write(t.Context(), writeOptions(t, "doomed", "uid-1"), smallSample(2).fill)
		if !errors.Is(err, archive.ErrSealed) {
			t.Errorf("%s: write: %v", when, err)
		}
	}
	if _, err := l.ResumeDeletions(t.Context()); err != nil {
		t.Errorf("%s: resume: %v", when, err)
	}
	if got := alive.keys(""); begun && !slices.Equal(got, kept) {
		t.Errorf("%s: after resuming: %v", when, got)
	}
}

// TestDeleteDuringCommit deletes a backup while its writer commits: whatever the order, no half backup stays.
func TestDeleteDuringCommit(t *testing.T) {
	for _, at := range []string{"put backup.json", "stat tombstone", "list attempt", "after"} {
		store := newMemory()
		l, keys := location(t, store)
		before := store.keys("")
		fired := false
		store.before = func(op, key string) error {
			what := op + " " + key[strings.LastIndex(key, "/")+1:]
			hit := what == at || at == "stat tombstone" && op == "stat" && strings.HasPrefix(key, "tombstones/") && len(store.keys("backups/")) > 0 ||
				at == "list attempt" && op == "list" && strings.HasPrefix(key, "backups/during/uid/") && len(store.keys("backups/during/uid/backup.json")) > 0
			if fired || !hit {
				return nil
			}
			fired = true
			return l.Delete(t.Context(), archive.Entry{Name: "during", UID: "uid"}, archive.DeleteOptions{Now: now})
		}
		_, err := l.Write(t.Context(), writeOptions(t, "during", "uid"), smallSample(1).fill)
		store.before = nil
		if !fired && at != "after" {
			t.Errorf("%s: never happened", at)
		}
		if at == "after" {
			err = errors.Join(err, l.Delete(t.Context(), archive.Entry{Name: "during", UID: "uid"}, archive.DeleteOptions{Now: now}))
			if err != nil {
				t.Error(err)
			}
		} else if err == nil {
			t.Errorf("%s: the writer saw nothing of the deletion", at)
		}
		if whole(t, store, keys, at) != 0 {
			t.Errorf("%s: a backup stays", at)
		}
		if got := store.keys(""); !slices.Equal(got, before) {
			t.Errorf("%s: left behind: %v", at, got)
		}
	}
}

func TestDeleteRetained(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	rec := write(t, l, writeOptions(t, "locked", "uid"), smallSample(1))
	locked := "backups/locked/uid/" + rec.Attempt + "/index/items.jsonl.zst.age"
	store.retained = map[string]bool{locked: true}
	err := l.Delete(t.Context(), find(t, l, "locked"), archive.DeleteOptions{Now: now})
	if !errors.Is(err, plugins.ErrRetained) {
		t.Fatalf("delete: %v", err)
	}
	res, err := l.ResumeDeletions(t.Context())
	if err != nil || !slices.Equal(res.Retained, []string{"locked/uid"}) {
		t.Errorf("resume: %+v, %v", res, err)
	}
	e := find(t, l, "locked")
	if _, err := l.OpenBackup(t.Context(), e, keys, archive.ReadOptions{AllowDeleting: true}); err != nil {
		t.Errorf("what is left of the record: %v", err)
	}
	store.retained = nil
	res, err = l.ResumeDeletions(t.Context())
	if err != nil || !slices.Equal(res.Done, []string{"locked/uid"}) || len(store.keys("backups/")) > 0 {
		t.Errorf("resume: %+v, %v, %v", res, err, store.keys("backups/"))
	}
}

func TestHoldAndExpiry(t *testing.T) {
	l, _ := location(t, newMemory())
	write(t, l, writeOptions(t, "held", "uid"), smallSample(1))
	until := testNow.Add(time.Hour)
	for _, x := range []archive.Expiry{{Expires: &until, At: testNow}, {Hold: true, Reason: "audit", At: testNow}} {
		if err := l.SetExpiry(t.Context(), find(t, l, "held"), x); err != nil {
			t.Fatal(err)
		}
	}
	e := find(t, l, "held")
	if e.ExpiresAt() != nil {
		t.Errorf("held, and expires at %s", e.ExpiresAt())
	}
	if err := l.Delete(t.Context(), e, archive.DeleteOptions{Now: now}); !errors.Is(err, archive.ErrHeld) || !strings.Contains(err.Error(), "audit") {
		t.Errorf("delete: %v", err)
	}
	for range 12 { // the tenth file counts after the ninth
		if err := l.SetExpiry(t.Context(), e, archive.Expiry{Expires: &until, At: testNow}); err != nil {
			t.Fatal(err)
		}
	}
	if e = find(t, l, "held"); e.ExpiresAt() == nil || !e.ExpiresAt().Equal(until) {
		t.Errorf("expires at %v", e.ExpiresAt())
	}
	if err := l.Delete(t.Context(), e, archive.DeleteOptions{Now: now}); err != nil {
		t.Error(err)
	}
}

// TestDeleteUnreadable: what cannot be read may be held, and goes by force alone.
func TestDeleteUnreadable(t *testing.T) {
	for what, damage := range map[string]func(*memory){
		"record":  func(m *memory) { m.objects["backups/held/uid/backup.json"] = []byte("{") },
		"expiry":  func(m *memory) { m.objects["backups/held/uid/expiry/1.json"] = []byte("{") },
		"a store": func(m *memory) { m.before = denyExpiry },
	} {
		t.Run(what, func(t *testing.T) {
			store := newMemory()
			l, _ := location(t, store)
			write(t, l, writeOptions(t, "held", "uid"), smallSample(1))
			if err := l.SetExpiry(t.Context(), find(t, l, "held"), archive.Expiry{Hold: true, Reason: "audit", At: testNow}); err != nil {
				t.Fatal(err)
			}
			damage(store)
			before := store.keys("")
			e := find(t, l, "held")
			err := l.Delete(t.Context(), e, archive.DeleteOptions{Now: now})
			if !errors.Is(err, archive.ErrHoldUnknown) || !errors.Is(err, e.Err) || !slices.Equal(store.keys(""), before) {
				t.Errorf("delete: %v, left %v", err, store.keys(""))
			}
			if err := l.Delete(t.Context(), e, archive.DeleteOptions{Force: true, Now: now}); err != nil || len(store.keys("backups/")) > 0 {
				t.Errorf("by force: %v, left %v", err, store.keys("backups/"))
			}
		})
	}
}

func denyExpiry(op, key string) error {
	if op == "get" && strings.Contains(key, "/expiry/") {
		return plugins.ErrAccess
	}
	return nil
}

func TestSweep(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	rec := write(t, l, writeOptions(t, "good", "uid-0"), smallSample(1))
	old, young := "0123456789abcdef", "fedcba9876543210"
	for name, uid := range map[string]string{"good": "uid-0", "crashed": "uid-1", "torn": "uid-2"} {
		store.objects["backups/"+name+"/"+uid+"/"+old+"/items.tar.zst.age"] = []byte("remains")
		store.objects["backups/"+name+"/"+uid+"/"+young+"/items.tar.zst.age"] = []byte("at work")
		store.changed["backups/"+name+"/"+uid+"/"+young+"/items.tar.zst.age"] = testNow.Add(24 * time.Hour)
	}
	store.objects["backups/torn/uid-2/backup.json"] = []byte(`{"formatVersion":1,`)
	store.changed["backups/torn/uid-2/backup.json"] = testNow
	later := func() time.Time { return testNow.Add(archive.MinSweepAge + time.Hour) }
	if _, err := l.Sweep(t.Context(), archive.SweepOptions{OlderThan: time.Hour, Now: later}); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("a young age: %v", err)
	}
	for key := range store.objects {
		if _, ok := store.changed[key]; !ok {
			store.changed[key] = testNow
		}
	}
	before := len(store.keys(""))
	for _, dry := range []bool{true, false} {
		res, err := l.Sweep(t.Context(), archive.SweepOptions{OlderThan: archive.MinSweepAge, Now: later, DryRun: dry})
		if err == nil || !strings.Contains(err.Error(), "torn/uid-2") {
			t.Errorf("a record that cannot be read: %v", err)
		}
		if !slices.Equal(res.Attempts, []string{"crashed/uid-1/" + old, "good/uid-0/" + old}) {
			t.Errorf("swept %+v", res)
		}
		if dry && len(store.keys("")) != before {
			t.Error("a dry run removed something")
		}
	}
	if n := len(store.keys("")); n != before-2 {
		t.Errorf("%d of %d objects left", n, before)
	}
	r := open(t, l, keys, "good")
	if r.Record().Attempt != rec.Attempt {
		t.Error("another attempt")
	}
	verifyOK(t, l, keys, "good", rec.Counts.Items)
}

// TestListing: a damaged backup is an entry of its own and hides no other.
func TestListing(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	for i := range 25 {
		write(t, l, writeOptions(t, fmt.Sprintf("b-%02d", i%20), fmt.Sprintf("uid-%02d", i)), &sample{})
	}
	store.objects["backups/b-07/uid-07/backup.json"][100] ^= 1
	store.objects["backups/b-08/uid-08/backup.json"] = nil
	store.objects["backups/b-09/uid-09/expiry/1.json"] = []byte("{}")
	store.objects["backups/half/uid/0123456789abcdef/items.tar.zst.age"] = []byte("x")
	store.objects["backups/odd"] = []byte("x")
	store.objects["backups/UPPER/uid/backup.json"] = []byte("x")
	store.objects["backups/b-10/uid-10/backup.json"] = slices.Clone(store.objects["backups/b-11/uid-11/backup.json"])
	store.before = func(op, key string) error {
		if op == "get" && strings.Contains(key, "uid-12/") {
			return plugins.ErrAccess
		}
		return nil
	}
	var bad []string
	last, n := "", 0
	err := l.Backups(t.Context(), func(e archive.Entry) error {
		if e.ID() <= last {
			t.Errorf("%s after %s", e.ID(), last)
		}
		last = e.ID()
		n++
		if (e.Err == nil) == (e.Record == nil) {
			t.Errorf("%s: record %v, error %v", e.ID(), e.Record, e.Err)
		}
		if e.Err != nil {
			bad = append(bad, e.Name)
			var damage *archive.DamageError
			if !errors.As(e.Err, &damage) && !errors.Is(e.Err, plugins.ErrAccess) {
				t.Errorf("%s: %v", e.ID(), e.Err)
			}
		}
		return nil
	})
	if err != nil || n != 25 || !slices.Equal(bad, []string{"b-07", "b-08", "b-09", "b-10", "b-12"}) {
		t.Errorf("%d backups, bad %v, %v", n, bad, err)
	}
	var ambiguous *archive.AmbiguousError
	if _, err := l.Find(t.Context(), "b-03"); !errors.As(err, &ambiguous) || len(ambiguous.UIDs) != 2 {
		t.Errorf("two of a name: %v", err)
	}
	if e, err := l.Find(t.Context(), "uid-23"); err != nil || e.Name != "b-03" {
		t.Errorf("by uid: %+v, %v", e, err)
	}
	for _, name := range []string{"nobody", "", "../keys", "half", strings.Repeat("a", 300)} {
		if _, err := l.Find(t.Context(), name); !errors.Is(err, archive.ErrBackupNotFound) {
			t.Errorf("find %q: %v", name, err)
		}
	}
	stop := errors.New("stop")
	if err := l.Backups(t.Context(), func(archive.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}

// TestDeleteElsewhere deletes a backup that has snapshots: they go after the tombstone is there and before any file does, and again
// when the deletion is resumed. Who cannot remove them changes nothing.
func TestDeleteElsewhere(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	s := smallSample(1)
	s.volumes = sampleVolumes(2)
	s.places = []plugins.Place{{Region: "eu-central-1"}, {Region: "eu-west-1", RoleARN: "arn:aws:iam::444455556666:role/copies", ExternalID: "id"}}
	write(t, l, writeOptions(t, "big", "uid-1"), s)
	files := store.keys("backups/")
	if err := l.Delete(t.Context(), find(t, l, "big"), archive.DeleteOptions{Now: now}); !errors.Is(err, archive.ErrElsewhere) {
		t.Errorf("delete by one who cannot remove snapshots: %v", err)
	}
	if got := store.keys("backups/"); !slices.Equal(got, files) || len(store.keys("tombstones/")) > 0 {
		t.Errorf("something was changed: %v", store.keys(""))
	}
	var asked []string
	refuse := errors.New("EC2 is away")
	able := l.WithElsewhere(func(_ context.Context, what archive.Outside) error {
		if what.Cluster != "" || what.OnlyCluster || what.Leave || !slices.Equal(what.Places, s.places) {
			t.Errorf("asked for %+v", what)
		}
		if what.Look {
			return nil
		}
		asked = append(asked, what.UID)
		if len(store.keys("tombstones/")) != 1 || !slices.Equal(store.keys("backups/"), files) {
			t.Errorf("asked while there are %v", store.keys(""))
		}
		if len(asked) == 1 {
			return refuse
		}
		return nil
	})
	if err := able.Delete(t.Context(), find(t, l, "big"), archive.DeleteOptions{Now: now}); !errors.Is(err, refuse) {
		t.Errorf("delete while the provider is away: %v", err)
	}
	res, err := able.ResumeDeletions(t.Context())
	if err != nil || !slices.Equal(res.Done, []string{"big/uid-1"}) || !slices.Equal(asked, []string{"uid-1", "uid-1"}) || len(store.keys("backups/")) > 0 {
		t.Errorf("%+v, %v, asked %v, left %v", res, err, asked, store.keys(""))
	}
}

// TestDeleteInCluster deletes backups whose snapshots are kept by a cluster: who removes them is told which, also where the deletion is resumed.
func TestDeleteInCluster(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	s := smallSample(1)
	s.volumes = sampleVolumes(2)
	s.volumes[0].Provider = archive.ProviderCluster
	s.places = []plugins.Place{{Region: "eu-central-1"}}
	write(t, l, writeOptions(t, "mixed", "uid-1"), s)
	s.volumes[1].Provider = archive.ProviderCluster
	record := write(t, l, writeOptions(t, "all", "uid-2"), s)
	cluster := find(t, l, "all").Record.Cluster.UID
	if cluster == "" {
		t.Fatalf("no cluster in %+v", record)
	}
	refuse := fmt.Errorf("%w: another cluster", archive.ErrElsewhere)
	var asked []archive.Outside
	out := false // of reach
	l = l.WithElsewhere(func(_ context.Context, what archive.Outside) error {
		asked = append(asked, what)
		if what.Leave && what.LeavePlaces || !out && what.Look {
			return nil
		}
		return refuse
	})
	out = true
	if err := l.Delete(t.Context(), find(t, l, "all"), archive.DeleteOptions{Now: now, Force: true}); !errors.Is(err, refuse) || len(store.keys("tombstones/")) > 0 {
		t.Errorf("from elsewhere: %v, %v", err, store.keys("tombstones/"))
	}
	asked, out = nil, false // it goes out of reach after the look
	for _, name := range []string{"mixed", "all"} {
		if err := l.Delete(t.Context(), find(t, l, name), archive.DeleteOptions{Now: now}); !errors.Is(err, refuse) {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	res, err := l.ResumeDeletions(t.Context())
	if err != nil || len(res.Elsewhere) != 2 || res.Elsewhere[1].ID != "all/uid-2" || !errors.Is(res.Elsewhere[1].Err, refuse) {
		t.Errorf("resume: %+v, %v", res, err)
	}
	mixed := archive.Outside{UID: "uid-1", Cluster: cluster, Places: s.places}
	all := archive.Outside{UID: "uid-2", Cluster: cluster, OnlyCluster: true, Places: s.places}
	look := func(o archive.Outside) archive.Outside { o.Look = true; return o }
	want := []archive.Outside{look(mixed), mixed, look(all), all, mixed, all}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
	// By force what is out of reach is left, also where that is decided after the deletion has begun, and by who resumes it.
	store.retained = map[string]bool{}
	for _, key := range store.keys("backups/all/") {
		store.retained[key] = true
	}
	if err := l.Delete(t.Context(), find(t, l, "all"), archive.DeleteOptions{Now: now, LeaveElsewhere: true}); !errors.Is(err, plugins.ErrRetained) {
		t.Errorf("by force, while it is retained: %v", err)
	}
	store.retained = nil
	res, err = l.ResumeDeletions(t.Context())
	if err != nil || len(res.Elsewhere) != 1 || !slices.Equal(res.Done, []string{"all/uid-2"}) || len(store.keys("backups/all/")) > 0 {
		t.Errorf("resume: %+v, %v, left %v", res, err, store.keys(""))
	}
	// Where all files are gone, what is elsewhere went before them: the tombstone alone keeps nobody.
	for _, key := range store.keys("backups/") {
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if res, err = l.ResumeDeletions(t.Context()); err != nil || !slices.Equal(res.Done, []string{"mixed/uid-1"}) || len(store.keys("tombstones/")) > 0 {
		t.Errorf("resume without files: %+v, %v, left %v", res, err, store.keys(""))
	}
}

// TestDeleteFiles deletes a backup whose volumes are files in the repository: nobody needs to be asked for that.
func TestDeleteFiles(t *testing.T) {
	store := newMemory()
	l, _ := location(t, store)
	s := smallSample(1)
	s.volumes = sampleVolumes(1)
	s.volumes[0].Provider, s.volumes[0].SnapshotID, s.volumes[0].CopyID, s.volumes[0].CopyKind = "files", "", "c1", "files"
	write(t, l, writeOptions(t, "big", "uid-1"), s)
	if err := l.Delete(t.Context(), find(t, l, "big"), archive.DeleteOptions{Now: now}); err != nil || len(store.keys("backups/")) > 0 {
		t.Errorf("%v, left %v", err, store.keys(""))
	}
}
