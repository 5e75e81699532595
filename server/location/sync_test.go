package location_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/testbed"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// world is a namespace of a real API server, with a reconciler whose locations are folders.
type world struct {
	client    client.WithWatch
	namespace string
	r         *location.Reconciler
}

var crds sync.Once

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
	crds.Do(func() {
		files, err := fs.Glob(deploy.CRDs, "crds/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := deploy.CRDs.ReadFile(name)
			if err == nil {
				err = cluster.ApplyYAML(t.Context(), string(text))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	scheme := runtime.NewScheme()
	if err := clientscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(cluster.Kedge(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "location-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w := &world{client: c, namespace: ns.Name}
	w.r = &location.Reconciler{Client: c, Now: clock, Registry: &location.Registry{
		Client: c, Secrets: c, Namespace: ns.Name, PrivateDir: t.TempDir(), Now: clock,
	}}
	return w
}

// folder makes a folder with the archives of the names, each with a uid made of its name.
func folder(t *testing.T, names ...string) (string, *archive.Location) {
	t.Helper()
	path := t.TempDir()
	store, err := file.New(v1alpha1.FileLocation{Path: path}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: clock, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		write(t, l, name, nil)
	}
	return path, l
}

func write(t *testing.T, l *archive.Location, name string, labels map[string]string) {
	t.Helper()
	opts := archive.WriteOptions{Name: name, UID: name + "-uid", SpoolDir: t.TempDir(), Kedge: "v0.0.0-test", Now: clock, Rand: rand.Reader}
	_, err := l.Write(t.Context(), opts, func(context.Context, *archive.Writer) (*archive.Summary, error) {
		return &archive.Summary{Labels: labels, Cluster: v1alpha1.ClusterInfo{UID: "cluster"}, Phase: v1alpha1.PhaseCompleted, Started: now, Completed: now}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mount makes a location of a folder.
func (w *world) mount(t *testing.T, name, path string) {
	t.Helper()
	err := w.client.Create(t.Context(), &v1alpha1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: path}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sync looks at a location, and gives its condition Synced.
func (w *world) sync(t *testing.T, name string) string {
	t.Helper()
	key := client.ObjectKey{Namespace: w.namespace, Name: name}
	if _, err := w.r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	var object v1alpha1.BackupStorageLocation
	if err := w.client.Get(t.Context(), key, &object); err != nil {
		t.Fatal(err)
	}
	c := meta.FindStatusCondition(object.Status.Conditions, location.Synced)
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason + ": " + c.Message
}

// backups gives the location and the archive of every Backup object, by name, and its resource version.
func (w *world) backups(t *testing.T) (shown, versions map[string]string) {
	t.Helper()
	var list v1alpha1.BackupList
	if err := w.client.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil {
		t.Fatal(err)
	}
	shown, versions = map[string]string{}, map[string]string{}
	for i := range list.Items {
		b := &list.Items[i]
		shown[b.Name] = b.Status.StorageLocation + " " + b.Status.ArchiveUID
		versions[b.Name] = b.ResourceVersion
	}
	return shown, versions
}

// TestRefusedRecord has records that say what no object may have. They are named, and the others are shown.
func TestRefusedRecord(t *testing.T) {
	w := newWorld(t)
	path, l := folder(t, "first", "last")
	write(t, l, "labels", map[string]string{"no label!": "x"})
	write(t, l, "big", map[string]string{"x": strings.Repeat("x", 64)})
	w.mount(t, "main", path)
	for range 2 {
		synced := w.sync(t, "main")
		if !strings.HasPrefix(synced, "True SomeUnreadable: 2 backups are shown. 2 cannot be shown, the first: show backup big/big-uid: ") {
			t.Error(synced)
		}
		shown, _ := w.backups(t)
		if len(shown) != 2 || shown["first"] != "main first-uid" || shown["last"] != "main last-uid" {
			t.Errorf("shown: %v", shown)
		}
	}
}

// TestRefusedByPolicy has an object that a policy does not take, and one that somebody changes while it is shown: the others are shown.
func TestRefusedByPolicy(t *testing.T) {
	w := newWorld(t)
	path, _ := folder(t, "first", "kept-away", "raced")
	w.mount(t, "main", path)
	backups := schema.GroupResource{Group: "kedge.dev", Resource: "backups"}
	races := 1
	var mu sync.Mutex
	w.r.Client = interceptor.NewClient(w.client, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if o.GetName() == "kept-away" {
				return apierrors.NewForbidden(backups, o.GetName(), errors.New("not with this label"))
			}
			return c.Create(ctx, o, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			mu.Lock()
			race := o.GetName() == "raced" && races > 0
			if race {
				races--
			}
			mu.Unlock()
			if race {
				return apierrors.NewConflict(backups, o.GetName(), errors.New("changed meanwhile"))
			}
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
	})
	for _, raced := range []string{" ", "main raced-uid"} {
		if synced := w.sync(t, "main"); !strings.Contains(synced, "SomeUnreadable") || !strings.Contains(synced, "show backup kept-away/kept-away-uid: ") {
			t.Error(synced)
		}
		if shown, _ := w.backups(t); len(shown) != 2 || shown["first"] != "main first-uid" || shown["raced"] != raced {
			t.Errorf("shown: %v", shown)
		}
	}
}

// TestScheduleOfArchive has the schedule of a backup from its archive, whatever labels its object has: who may create objects can give one any label, and the
// uid of any archive.
func TestScheduleOfArchive(t *testing.T) {
	w := newWorld(t)
	path, l := folder(t, "by-hand")
	write(t, l, "nightly-1", map[string]string{v1alpha1.ScheduleLabel: "nightly"})
	w.mount(t, "main", path)
	for name, archiveUID := range map[string]string{"planted": "by-hand-uid", "older": "nightly-1-uid"} { // the second as an older server has left it
		err := w.client.Create(t.Context(), &v1alpha1.Backup{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: w.namespace, Name: name, Labels: map[string]string{v1alpha1.ScheduleLabel: "nightly"},
				Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: archiveUID},
			},
			Spec: v1alpha1.BackupSpec{StorageLocation: "main"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.sync(t, "main")
	for name, want := range map[string]string{"planted": "", "older": "nightly"} {
		var b v1alpha1.Backup
		if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, &b); err != nil {
			t.Fatal(err)
		}
		if b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Schedule != want {
			t.Errorf("%s: %+v", name, b.Status)
		}
	}
}

// TestReplica has three locations with the same archive, as buckets have that are replicated: each shows its own, under a name of its own, and none
// changes what another shows.
func TestReplica(t *testing.T) {
	w := newWorld(t)
	path, l := folder(t, "one")
	second, third := copyOf(t, path), copyOf(t, path)
	w.mount(t, "first", path)
	w.mount(t, "second", second)
	w.mount(t, "third", third)
	all := []string{"first", "second", "third"}
	for _, name := range all {
		w.sync(t, name)
	}
	shown, before := w.backups(t)
	if len(shown) != 3 || shown["one"] != "first one-uid" || shown["one-one-uid"] != "second one-uid" {
		t.Fatalf("shown: %v", shown)
	}
	for _, name := range all {
		w.sync(t, name)
	}
	if _, after := w.backups(t); !maps.Equal(before, after) {
		t.Errorf("a second look changed %v to %v", before, after)
	}

	// What becomes of the archive in one of them concerns its own object alone.
	if err := l.SetExpiry(t.Context(), archive.Entry{Name: "one", UID: "one-uid"}, archive.Expiry{Hold: true, At: now}); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		w.sync(t, name)
	}
	_, held := w.backups(t)
	if held["one"] == before["one"] || held["one-one-uid"] != before["one-one-uid"] {
		t.Errorf("a hold in the first location: %v, then %v", before, held)
	}
	today := now
	w.r.Now = func() time.Time { return today }
	today = time.Now().Add(time.Hour) // objects are removed that are old enough to be in any listing
	if err := os.RemoveAll(filepath.Join(second, "backups")); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		w.sync(t, name)
	}
	if shown, _ = w.backups(t); len(shown) != 2 || shown["one"] != "first one-uid" {
		t.Errorf("after the second has lost it: %v", shown)
	}
}

// TestRenamedLocation takes a location away and gives its folder another name: the objects come along.
func TestRenamedLocation(t *testing.T) {
	w := newWorld(t)
	path, _ := folder(t, "one")
	w.mount(t, "old", path)
	w.sync(t, "old")
	err := w.client.Delete(t.Context(), &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "old"}})
	if err != nil {
		t.Fatal(err)
	}
	w.mount(t, "new", path)
	w.sync(t, "new")
	if shown, _ := w.backups(t); len(shown) != 1 || shown["one"] != "new one-uid" {
		t.Errorf("shown: %v", shown)
	}
}

// copyOf is a replica of a folder.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	replica := filepath.Join(t.TempDir(), "replica")
	if err := os.CopyFS(replica, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	return replica
}
