package upkeep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/upkeep"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// shelf is a provider that only finds and deletes.
type shelf struct {
	plugins.VolumeSnapshotter

	snapshots []plugins.Snapshot
	volumes   []plugins.Volume
	deleted   []string
	err       error
	takes     bool
	locked    error // of deletions
}

func (s *shelf) Takes() bool { return s.takes }

func (s *shelf) Name() string { return "ebs" }

func (s *shelf) Handle(pv *corev1.PersistentVolume) (string, bool) {
	if pv.Spec.CSI == nil {
		return "", false
	}
	return pv.Spec.CSI.VolumeHandle, true
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func (s *shelf) FindSnapshots(_ context.Context, tags map[string]string) (found []plugins.Snapshot, err error) {
	for _, one := range s.snapshots {
		if hasAll(one.Tags, tags) {
			found = append(found, one)
		}
	}
	return found, s.err
}

func (s *shelf) FindVolumes(_ context.Context, tags map[string]string) (found []plugins.Volume, err error) {
	for _, one := range s.volumes {
		if hasAll(one.Tags, tags) {
			found = append(found, one)
		}
	}
	return found, s.err
}

func (s *shelf) DeleteSnapshot(_ context.Context, id string) error {
	if s.locked != nil {
		return s.locked
	}
	s.deleted = append(s.deleted, id)
	s.snapshots = slices.DeleteFunc(s.snapshots, func(one plugins.Snapshot) bool { return one.ID == id })
	return nil
}

func (s *shelf) DeleteVolume(_ context.Context, handle string) error {
	s.deleted = append(s.deleted, handle)
	return nil
}

// snapshot is one that a backup's attempt made of a volume so long ago; more are further tags.
func snapshot(id, uid, attempt, handle string, age time.Duration, more ...string) plugins.Snapshot {
	tags := map[string]string{volumes.TagLocation: "here", volumes.TagUID: uid, volumes.TagBackup: "b-" + uid, volumes.TagAttempt: attempt, volumes.TagCluster: "blue", volumes.TagClaim: "shop/data"}
	for i := 0; i < len(more); i += 2 {
		tags[more[i]] = more[i+1]
	}
	return plugins.Snapshot{ID: id, Handle: handle, SizeBytes: 1 << 30, State: plugins.SnapshotCompleted, Started: now.Add(-age), Tags: tags}
}

func base(id, uid, handle string, age time.Duration) plugins.Snapshot {
	return snapshot(id, uid, "a", handle, age, volumes.TagRole, volumes.RoleBase)
}

func entry(uid string) archive.Entry {
	return archive.Entry{Name: "b-" + uid, UID: uid, Record: &archive.Record{UID: uid, Attempt: "a"}}
}

// found are the orphans as "id reason", sorted.
func found(t *testing.T, s *upkeep.Search) (out []string) {
	t.Helper()
	orphans, err := s.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range orphans {
		out = append(out, o.ID+" "+o.Reason)
	}
	slices.Sort(out)
	return out
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the orphans are %q, want %q", got, want)
	}
}

const day = 24 * time.Hour

// TestSnapshotsOfBackups finds those that belong to nothing that is sealed, and leaves all others.
func TestSnapshotsOfBackups(t *testing.T) {
	deleting, unreadable := entry("deleting"), archive.Entry{Name: "b-torn", UID: "torn", Err: errors.New("torn")}
	deleting.Deleting = true
	other := entry("one") // a folder of the same uid: what either of them needs stays
	other.Name, other.Record.Attempt = "copy", "other"
	elsewhere := snapshot("elsewhere", "gone", "a", "vol-1", 9*day)
	elsewhere.Tags[volumes.TagLocation] = "there"
	pending := base("pending", "one", "vol-5", 3*day)
	pending.State = plugins.SnapshotPending
	s := &shelf{snapshots: []plugins.Snapshot{
		snapshot("kept", "one", "a", "vol-1", 9*day), snapshot("crashed", "one", "z", "vol-1", 9*day), snapshot("gone", "gone", "a", "vol-1", 9*day),
		snapshot("young", "gone", "a", "vol-1", day), snapshot("busy", "busy", "a", "vol-1", 9*day), snapshot("deleting", "deleting", "a", "vol-1", 9*day),
		snapshot("torn", "torn", "anything", "vol-1", 9*day), elsewhere,
		base("base-old", "one", "vol-2", 9*day), base("base-new", "one", "vol-2", 3*day), base("base-alone", "one", "vol-3", 9*day),
		base("base-then-orphan", "one", "vol-4", 9*day), base("orphan-base", "gone", "vol-4", 3*day),
		base("base-then-pending", "one", "vol-5", 9*day), pending,
		snapshot("green", "gone", "a", "vol-1", 9*day, volumes.TagCluster, "green"),
		{ID: "foreign", Started: now.Add(-9 * day), State: plugins.SnapshotCompleted, Tags: map[string]string{volumes.TagLocation: "here"}},
	}}
	search := &upkeep.Search{
		Providers: []plugins.VolumeProvider{s}, LocationID: "here", Before: now.Add(-upkeep.SafeAge), Busy: map[string]bool{"busy": true},
		Entries: func(context.Context) ([]archive.Entry, error) {
			return []archive.Entry{entry("one"), deleting, unreadable, other}, nil
		},
	}
	want(t, found(t, search), "base-old Superseded", "crashed OtherAttempt", "gone NoBackup", "green NoBackup", "orphan-base NoBackup")
	search.Cluster = "blue"
	want(t, found(t, search), "base-old Superseded", "crashed OtherAttempt", "gone NoBackup", "orphan-base NoBackup")
	search.Before = now
	want(t, found(t, search), "base-old Superseded", "crashed OtherAttempt", "gone NoBackup", "orphan-base NoBackup", "young NoBackup")

	away := errors.New("away")
	search.Entries = func(context.Context) ([]archive.Entry, error) { return nil, away }
	if orphans, err := search.Find(t.Context()); !errors.Is(err, away) || len(orphans) > 0 {
		t.Errorf("%v, %v, where the listing fails", orphans, err)
	}
}

// TestWhatRestoresLeft finds temporary snapshots, and volumes that nothing names.
func TestWhatRestoresLeft(t *testing.T) {
	made := func(handle, cluster, uid string, age time.Duration) plugins.Volume {
		return plugins.Volume{Handle: handle, SizeBytes: 1 << 30, Created: now.Add(-age), Tags: map[string]string{volumes.TagCluster: cluster, "kedge.dev/restore-uid": uid, "kedge.dev/restore": "r-" + uid}}
	}
	used := made("vol-used", "blue", "r1", 9*day)
	used.AttachedTo = "i-1"
	undated := made("vol-undated", "blue", "r1", 9*day)
	undated.Created = time.Time{}
	temporary := func(id, cluster, uid string, age time.Duration) plugins.Snapshot {
		return plugins.Snapshot{ID: id, State: plugins.SnapshotCompleted, Started: now.Add(-age), Tags: map[string]string{volumes.TagCluster: cluster, "kedge.dev/restore-uid": uid, "kedge.dev/role": "temporary"}}
	}
	s := &shelf{
		volumes: []plugins.Volume{
			made("vol-lost", "blue", "r1", 9*day), made("vol-named", "blue", "r1", 9*day), made("vol-young", "blue", "r1", day), made("vol-green", "green", "r1", 9*day),
			made("vol-busy", "blue", "busy", 9*day), made("vol-users", "blue", "", 9*day), used, undated,
		},
		snapshots: []plugins.Snapshot{
			temporary("temp", "blue", "r1", 9*day), temporary("temp-young", "blue", "r1", day), temporary("temp-green", "green", "r1", 9*day), temporary("temp-busy", "blue", "busy", 9*day),
		},
	}
	var pv corev1.PersistentVolume
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{VolumeHandle: "vol-named"}
	search := &upkeep.Search{
		Providers: []plugins.VolumeProvider{s}, LocationID: "here", Before: now.Add(-upkeep.SafeAge), Target: "blue", Busy: map[string]bool{"busy": true},
		Entries: func(context.Context) ([]archive.Entry, error) { return nil, nil },
		Volumes: func(context.Context) ([]corev1.PersistentVolume, error) { return []corev1.PersistentVolume{pv}, nil },
	}
	want(t, found(t, search), "temp Temporary", "vol-lost NoPersistentVolume")
	orphans, err := search.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range orphans {
		if err := search.Delete(t.Context(), &orphans[i]); err != nil {
			t.Error(err)
		}
	}
	if slices.Sort(s.deleted); fmt.Sprint(s.deleted) != "[temp vol-lost]" {
		t.Errorf("deleted %v", s.deleted)
	}
	away := errors.New("away")
	search.Volumes = func(context.Context) ([]corev1.PersistentVolume, error) { return nil, away }
	if orphans, err := search.Find(t.Context()); !errors.Is(err, away) || len(orphans) > 0 {
		t.Errorf("%v, %v, where the PersistentVolumes cannot be listed", orphans, err)
	}
	search.Target = ""
	want(t, found(t, search))
}

// clonesShelf is a provider whose volumes have something of their own in the cluster.
type clonesShelf struct{ shelf }

func (s *clonesShelf) Release(context.Context, map[string]string) error { return nil }

// TestFindOrphansOfCopies: clones from which backups copied files, and the snapshots of these, are orphans once the backup is over, whether or not it
// is there; each is listed once. Clones of other locations and clusters are not looked at.
func TestFindOrphansOfCopies(t *testing.T) {
	tags := func(location, cluster, uid string) map[string]string {
		return map[string]string{volumes.TagLocation: location, volumes.TagCluster: cluster, volumes.TagUID: uid, volumes.TagAttempt: "a", volumes.TagRole: volumes.RoleTemporary}
	}
	old := now.Add(-9 * 24 * time.Hour)
	s := &clonesShelf{shelf{
		volumes: []plugins.Volume{
			{Handle: "clone", Created: old, Tags: tags("here", "blue", "gone")}, {Handle: "clone-busy", Created: old, Tags: tags("here", "blue", "busy")},
			{Handle: "clone-young", Created: now, Tags: tags("here", "blue", "gone")}, {Handle: "clone-there", Created: old, Tags: tags("there", "blue", "gone")},
			{Handle: "clone-green", Created: old, Tags: tags("here", "green", "gone")},
		},
		snapshots: []plugins.Snapshot{
			{ID: "snap", Started: old, Tags: tags("here", "blue", "gone")}, {ID: "snap-sealed", Started: old, Tags: tags("here", "blue", "sealed")},
			{ID: "snap-busy", Started: old, Tags: tags("here", "blue", "busy")}, {ID: "snap-green", Started: old, Tags: tags("here", "green", "gone")},
		},
	}}
	search := &upkeep.Search{
		Providers: []plugins.VolumeProvider{s}, LocationID: "here", Before: now.Add(-upkeep.SafeAge), Target: "blue", Busy: map[string]bool{"busy": true},
		Entries: func(context.Context) ([]archive.Entry, error) {
			return []archive.Entry{{Name: "b", UID: "sealed", Record: &archive.Record{Attempt: "a"}}}, nil
		},
		Volumes: func(context.Context) ([]corev1.PersistentVolume, error) { return nil, nil },
	}
	want(t, found(t, search), "clone Temporary", "snap Temporary", "snap-green NoBackup", "snap-sealed Temporary")
}

// copier is a shelf with shelves in other places.
type copier struct {
	*shelf

	there map[plugins.Place]*copier
}

func (c *copier) CopySnapshot(context.Context, plugins.SnapshotCopyRequest) (plugins.Snapshot, error) {
	return plugins.Snapshot{}, errors.New("not here")
}

func (c *copier) At(place plugins.Place) (plugins.SnapshotCopier, error) { return c.there[place], nil }

// TestCopiesElsewhere finds orphaned copies in the places that records name, and in those that are named besides. One that cannot be asked keeps none of
// the others from being seen.
func TestCopiesElsewhere(t *testing.T) {
	far, asked, away := plugins.Place{Region: "eu-central-1"}, plugins.Place{Region: "us-east-1", RoleARN: "arn:aws:iam::444455556666:role/copies"}, plugins.Place{Region: "us-west-2"}
	farShelf := &shelf{snapshots: []plugins.Snapshot{snapshot("far-kept", "one", "a", "vol-ffffffff", 9*day), snapshot("far-gone", "gone", "a", "vol-ffffffff", 9*day)}}
	home := &shelf{snapshots: []plugins.Snapshot{snapshot("kept", "one", "a", "vol-1", 9*day), snapshot("gone", "gone", "a", "vol-1", 9*day)}}
	c := &copier{shelf: home, there: map[plugins.Place]*copier{
		far: {shelf: farShelf}, asked: {shelf: &shelf{snapshots: []plugins.Snapshot{snapshot("asked-gone", "gone", "a", "vol-ffffffff", 9*day)}}},
		away: {shelf: &shelf{err: errors.New("no such role")}},
	}}
	sealed := entry("one")
	sealed.Record.SnapshotPlaces = []plugins.Place{far, away}
	search := &upkeep.Search{
		Providers: []plugins.VolumeProvider{c}, LocationID: "here", Before: now.Add(-upkeep.SafeAge), Places: []plugins.Place{asked},
		Entries: func(context.Context) ([]archive.Entry, error) { return []archive.Entry{sealed, sealed}, nil },
	}
	want(t, found(t, search), "asked-gone NoBackup", "far-gone NoBackup", "gone NoBackup")
	if err := search.Unseen(); err == nil || !strings.Contains(err.Error(), "us-west-2") || strings.Count(err.Error(), "no such role") != 1 {
		t.Errorf("unseen: %v", err)
	}
	orphans, err := search.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range orphans {
		if err := search.Delete(t.Context(), &orphans[i]); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(farShelf.deleted, []string{"far-gone"}) || !slices.Equal(home.deleted, []string{"gone"}) {
		t.Errorf("deleted are %v there, %v here", farShelf.deleted, home.deleted)
	}
	if err := search.Delete(t.Context(), &upkeep.Orphan{ID: "x"}); err == nil {
		t.Error("what no search has found is deleted")
	}
}
