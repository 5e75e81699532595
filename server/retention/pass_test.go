package retention_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/retention"
)

// pass is one over a location with a schedule that keeps two.
func pass(l *archive.Location, removed *[]string) *retention.Pass {
	return &retention.Pass{
		Archive: l, Now: clock, Locked: map[string]time.Time{},
		Look: func(ctx context.Context) (inventory *archive.Inventory, all []archive.Entry, err error) {
			if inventory, err = l.Inventory(ctx); err != nil {
				return nil, nil, err
			}
			err = l.Entries(ctx, inventory.Backups, func(e archive.Entry) error {
				all = append(all, e)
				return nil
			})
			return inventory, all, err
		},
		Prepare: func(context.Context, []archive.Entry) (retention.Input, error) {
			return retention.Input{Cluster: ours, Policies: map[string]retention.Policy{"nightly": {Rules: v1alpha1.RetentionPolicy{KeepLast: 2}}}}, nil
		},
		Removed: func(_ context.Context, name, _, reason string) error {
			*removed = append(*removed, name+": "+reason)
			return nil
		},
	}
}

// fill makes a location of which two nightly backups and one without a schedule have to go, beside what stays, what was begun, and remains.
func fill(t *testing.T) *bucket {
	t.Helper()
	store := newBucket(clock)
	l := create(t, store)
	for _, b := range []retention.Backup{
		at(t, "n1", "2026-11-01T00:00:00Z"),
		at(t, "n2", "2026-11-02T00:00:00Z"),
		with(at(t, "n3-held", "2026-11-03T00:00:00Z"), func(b *retention.Backup) { b.Held, b.HoldReason = true, "audit" }),
		at(t, "n4", "2026-11-04T00:00:00Z"),
		at(t, "n5", "2026-11-05T00:00:00Z"),
		with(at(t, "foreign", "2026-01-01T00:00:00Z"), func(b *retention.Backup) { b.Cluster = other; ttl("2026-02-01T00:00:00Z")(b) }),
		with(at(t, "once-old", "2026-01-01T00:00:00Z"), func(b *retention.Backup) { b.Schedule = ""; ttl("2026-02-01T00:00:00Z")(b) }),
		with(at(t, "once-last", "2026-01-02T00:00:00Z"), func(b *retention.Backup) { b.Schedule = ""; ttl("2026-02-01T00:00:00Z")(b) }),
		at(t, "going", "2026-11-06T00:00:00Z"),
	} {
		write(t, l, b, time.Time{})
	}
	dying, err := archive.Open(t.Context(), &mortal{ObjectStore: store, at: 5}) // after the tombstone and a file
	if err != nil {
		t.Fatal(err)
	}
	if err := dying.Delete(t.Context(), archive.Entry{Name: "going", UID: "going"}, archive.DeleteOptions{Now: clock}); !errors.Is(err, errDead) {
		t.Fatalf("the deletion that is to be cut off: %v", err)
	}
	store.orphan("n5", "n5")
	store.orphan("never", "never")
	return store
}

// open opens a location.
func open(t *testing.T, store plugins.ObjectStore) *archive.Location {
	t.Helper()
	l, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPass(t *testing.T) {
	store := fill(t)
	l := open(t, store)
	var removed []string
	res, err := pass(l, &removed).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"going: ", "once-old: TTL ended 2026-02-01T00:00:00Z", "n1: no rule keeps it", "n2: no rule keeps it"}
	if d := cmp.Diff(want, removed); d != "" {
		t.Errorf("removed (-want +got):\n%s", d)
	}
	if res.Kept != 4 || res.More || len(res.Waiting) > 0 || !slices.Equal(res.Swept, []string{"n5/n5/0123456789abcdef", "never/never/0123456789abcdef"}) {
		t.Errorf("%+v", res)
	}
	before := store.dump()
	for key := range before {
		for _, gone := range []string{"/n1/", "/n2/", "/once-old/", "/going/", "0123456789abcdef", "tombstones/"} {
			if strings.Contains(key, gone) {
				t.Errorf("%s is still there", key)
			}
		}
	}
	removed = nil
	if res, err := pass(l, &removed).Run(t.Context()); err != nil || len(res.Removed)+len(removed) > 0 || res.Kept != 4 {
		t.Errorf("a second pass: %+v, %v", res, err)
	}
	if d := cmp.Diff(before, store.dump()); d != "" {
		t.Errorf("a second pass changed something:\n%s", d)
	}
}

// TestKilled kills a pass at every call of the store, before and after it takes effect, and runs another one: the bucket is the same as after a
// pass that nothing disturbed, and what is kept was there all the time.
func TestKilled(t *testing.T) {
	full := fill(t)
	run := func(store *bucket, m *mortal) error {
		m.ObjectStore = store
		l, err := archive.Open(t.Context(), m)
		if err != nil {
			return err
		}
		var removed []string
		p := pass(l, &removed)
		p.Lock = true
		_, err = p.Run(t.Context())
		return err
	}
	clean := full.clone()
	if err := run(clean, &mortal{}); err != nil {
		t.Fatal(err)
	}
	want := clean.dump()
	kills := 0
	for at := 1; ; at++ {
		died := false
		for _, late := range []bool{false, true} {
			store, m := full.clone(), &mortal{at: at, late: late}
			err := run(store, m)
			if m.died == "" {
				continue
			}
			died = true
			kills++
			if !errors.Is(err, errDead) {
				t.Errorf("killed at %s: the pass gives %v", m.died, err)
			}
			for key := range want {
				if !bytes.Equal(store.objects[key], clean.objects[key]) {
					t.Errorf("killed at %s: %s is lost, which stays", m.died, key)
				}
			}
			if err := run(store, &mortal{}); err != nil {
				t.Errorf("after a kill at %s: %v", m.died, err)
			}
			if d := cmp.Diff(want, store.dump()); d != "" {
				t.Errorf("after a kill at %s (-undisturbed +killed):\n%s", m.died, d)
			}
		}
		if !died {
			break
		}
	}
	if kills < 100 {
		t.Errorf("%d kills only", kills)
	}
	t.Logf("%d kills", kills)
}

// TestChanged has somebody hold a backup, extend another and delete the last good one after the decision, and before its turn.
func TestChanged(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, l *archive.Location)
		want      []string // removed
		partial   bool     // n3 and n4 are only partially there
	}{
		"nothing": {func(*testing.T, *archive.Location) {}, []string{"n1: no rule keeps it", "n2: no rule keeps it"}, false},
		"a hold": {func(t *testing.T, l *archive.Location) {
			t.Helper()
			if err := l.SetExpiry(t.Context(), archive.Entry{Name: "n1", UID: "n1"}, archive.Expiry{Hold: true, At: now}); err != nil {
				t.Error(err)
			}
		}, []string{"n2: no rule keeps it"}, false},
		"an extension": {func(t *testing.T, l *archive.Location) {
			t.Helper()
			later := now.Add(time.Hour)
			if err := l.SetExpiry(t.Context(), archive.Entry{Name: "n2", UID: "n2"}, archive.Expiry{Expires: &later, At: now}); err != nil {
				t.Error(err)
			}
		}, []string{"n1: no rule keeps it"}, false},
		"the last good one goes": {func(t *testing.T, l *archive.Location) {
			t.Helper()
			if err := l.Delete(t.Context(), archive.Entry{Name: "n4", UID: "n4"}, archive.DeleteOptions{Now: clock}); err != nil {
				t.Error(err)
			}
		}, nil, false},
		"the last complete one goes": {func(t *testing.T, l *archive.Location) {
			t.Helper()
			if err := l.Delete(t.Context(), archive.Entry{Name: "n2", UID: "n2"}, archive.DeleteOptions{Now: clock}); err != nil {
				t.Error(err)
			}
		}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := create(t, newBucket(clock))
			for i, uid := range []string{"n1", "n2", "n3", "n4"} {
				b := at(t, uid, now.AddDate(0, 0, i-9).Format(time.RFC3339))
				if c.partial && i > 1 {
					b.Phase = v1alpha1.PhasePartiallyFailed
				}
				write(t, l, b, time.Time{})
			}
			var removed []string
			p := pass(l, &removed)
			prepare := p.Prepare
			p.Prepare = func(ctx context.Context, entries []archive.Entry) (retention.Input, error) {
				c.meanwhile(t, l)
				return prepare(ctx, entries)
			}
			res, err := p.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, removed); d != "" {
				t.Errorf("removed (-want +got):\n%s", d)
			}
			if res.More != (name != "nothing") {
				t.Errorf("more to do: %v", res.More)
			}
		})
	}
}

// TestHalfListing decides nothing on a listing that did not end, or without the schedules.
func TestHalfListing(t *testing.T) {
	store := newBucket(clock)
	l := create(t, store)
	for i, uid := range []string{"n1", "n2", "n3", "n4"} {
		write(t, l, at(t, uid, now.AddDate(0, 0, i-9).Format(time.RFC3339)), time.Time{})
	}
	before := store.dump()
	var removed []string
	p := pass(l, &removed)
	list := p.Look
	p.Look = func(ctx context.Context) (*archive.Inventory, []archive.Entry, error) {
		inventory, all, err := list(ctx)
		return inventory, all[:3], errors.Join(err, errDead)
	}
	if _, err := p.Run(t.Context()); !errors.Is(err, errDead) {
		t.Errorf("%v", err)
	}
	p.Look = list
	p.Prepare = func(context.Context, []archive.Entry) (retention.Input, error) {
		return retention.Input{Cluster: ours}, errDead
	}
	if _, err := p.Run(t.Context()); !errors.Is(err, errDead) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pass(l, &removed).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if d := cmp.Diff(before, store.dump()); d != "" || len(removed) > 0 {
		t.Errorf("removed %v\n%s", removed, d)
	}
}

// TestLock follows backups in a store with object lock over some weeks: what is kept stays protected, what goes waits for its lock.
func TestLock(t *testing.T) {
	today := now
	v := newBucket(func() time.Time { return today })
	l := create(t, v)
	end := now.Add(10 * 24 * time.Hour)
	write(t, l, with(at(t, "n1", "2026-11-22T00:00:00Z"), ttl(end.Format(time.RFC3339))), now.Add(240*time.Hour-time.Minute))
	for _, uid := range []string{"n2", "n3", "n4"} {
		write(t, l, at(t, uid, "2026-11-25T0"+uid[1:]+":00:00Z"), time.Time{})
	}
	memory := map[string]time.Time{}
	var removed []string
	run := func() retention.Result {
		p := pass(l, &removed)
		p.Now, p.Lock, p.Locked = func() time.Time { return today }, true, memory
		res, err := p.Run(t.Context())
		if err != nil {
			t.Fatalf("at %s: %v", today, err)
		}
		return res
	}
	run()
	for key, until := range v.until {
		want := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
		if strings.Contains(key, "/n1/") {
			want = end
		}
		if !until.Equal(want) {
			t.Errorf("%s is locked until %s, want %s", key, until, want)
		}
	}
	if n := len(v.until); n != 3*6 {
		t.Errorf("%d objects are locked: of three backups, six each are expected", n)
	}
	if !slices.Equal(removed, []string{"n2: no rule keeps it"}) {
		t.Errorf("removed %v", removed)
	}
	calls := v.calls
	if run(); v.calls != calls {
		t.Errorf("another pass within the step made %d calls", v.calls-calls)
	}
	for range 9 * 4 {
		today = today.Add(6 * time.Hour)
		run()
		for key, until := range v.until {
			if strings.Contains(key, "/n4/") && !until.After(today.Add(6*time.Hour)) {
				t.Fatalf("at %s %s is protected until %s only", today, key, until)
			}
		}
	}
	// A new one takes the place of n3, whose lock lasts.
	write(t, l, at(t, "n5", today.Format(time.RFC3339)), time.Time{})
	removed = nil
	res := run()
	if len(removed) > 0 || !slices.Equal(res.Waiting, []string{"n3/n3"}) || !res.LockEnds.After(today) {
		t.Errorf("removed %v, %+v", removed, res)
	}
	today = res.LockEnds.Add(-time.Minute)
	if res := run(); len(res.Waiting) != 1 {
		t.Errorf("before the end: %+v", res)
	}
	today = res.LockEnds.Add(time.Minute)
	if res := run(); len(res.Waiting) != 0 || !slices.Contains(removed, "n3: ") {
		t.Errorf("after the end: %+v, removed %v", res, removed)
	}
	if _, err := l.Find(t.Context(), "n3"); !errors.Is(err, archive.ErrBackupNotFound) {
		t.Errorf("n3: %v", err)
	}
}

// TestLockUnsupported: a folder cannot be asked to retain; the rest is done all the same.
func TestLockUnsupported(t *testing.T) {
	l := create(t, folder(t, t.TempDir()))
	for i, uid := range []string{"n1", "n2", "n3"} {
		write(t, l, at(t, uid, now.AddDate(0, 0, i-9).Format(time.RFC3339)), time.Time{})
	}
	var removed []string
	p := pass(l, &removed)
	p.Lock = true
	if _, err := p.Run(t.Context()); !errors.Is(err, plugins.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if !slices.Equal(removed, []string{"n1: no rule keeps it"}) {
		t.Errorf("removed %v", removed)
	}
}
