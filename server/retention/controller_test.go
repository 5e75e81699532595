package retention_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/retention"
	"kedge.dev/kedge/test/testbed"
)

// world is a namespace of a real API server, with a location in a folder or a bucket.
type world struct {
	client    client.Client
	namespace string
	store     plugins.ObjectStore
	archive   *archive.Location
	today     time.Time
	reconcile func() ctrl.Result
	events    *events.FakeRecorder
}

var crds sync.Once

// newWorld makes the namespace, which a test has for itself, and the location "main" in it.
func newWorld(t *testing.T, spec v1alpha1.BackupStorageLocationSpec) *world {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
	crds.Do(func() {
		files, err := fs.Glob(deploy.CRDs, "crds/*.yaml")
		for _, name := range files {
			var text []byte
			if text, err = deploy.CRDs.ReadFile(name); err == nil {
				err = cluster.ApplyYAML(t.Context(), string(text))
			}
			if err != nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	scheme := runtime.NewScheme()
	if err := clientscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cluster.Kedge(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "retention-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w := &world{client: c, namespace: ns.Name, today: now, events: events.NewFakeRecorder(100)}
	if spec.S3 == nil {
		spec.File = &v1alpha1.FileLocation{Path: t.TempDir()}
	} else {
		w.today = time.Now().UTC() // what a bucket locks is by its own clock
	}
	writable := spec
	writable.ReadOnly = false
	store, err := location.OpenStore(t.Context(), &writable, location.StoreOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.archive = store, create(t, store)
	w.create(t, &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: spec})
	clock := func() time.Time { return w.today }
	r := &retention.Reconciler{
		Client: c, Events: w.events, Now: clock, ClusterUID: func(context.Context) (string, error) { return ours, nil },
		Registry: &location.Registry{Client: c, Secrets: c, Namespace: ns.Name, PrivateDir: t.TempDir(), Now: clock},
	}
	w.reconcile = func() ctrl.Result {
		res, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: w.namespace, Name: "main"}})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	return w
}

func (w *world) create(t *testing.T, object client.Object) {
	t.Helper()
	object.SetNamespace(w.namespace)
	if err := w.client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// show makes the Backup object of an archive, as a sync of a location does.
func (w *world) show(t *testing.T, name, uid, location string) {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: uid}}}
	w.create(t, b)
	b.Status = v1alpha1.BackupStatus{ArchiveUID: uid, StorageLocation: location, Phase: v1alpha1.PhaseCompleted}
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// shown are the names of the Backup objects; stored those of the archives.
func (w *world) shown(t *testing.T) (names []string) {
	t.Helper()
	var list v1alpha1.BackupList
	if err := w.client.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names
}

func (w *world) stored(t *testing.T) (names []string) {
	t.Helper()
	err := w.archive.Backups(t.Context(), func(e archive.Entry) error {
		names = append(names, e.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// condition is Retained as "Status Reason: Message"; "" where it is not set.
func (w *world) condition(t *testing.T) string {
	t.Helper()
	var object v1alpha1.BackupStorageLocation
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "main"}, &object); err != nil {
		t.Fatal(err)
	}
	c := meta.FindStatusCondition(object.Status.Conditions, retention.Retained)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
}

func wantNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s are %q, want %q", what, got, want)
	}
}

// TestReconcile applies a schedule's rules, follows holds, restores and a schedule that goes, and removes the objects of what it removes.
func TestReconcile(t *testing.T) {
	w := newWorld(t, v1alpha1.BackupStorageLocationSpec{})
	w.create(t, &v1alpha1.Schedule{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly"},
		Spec:       v1alpha1.ScheduleSpec{Schedule: "@daily", TimeZone: "Europe/Berlin", Retention: &v1alpha1.RetentionPolicy{KeepLast: 2}},
	})
	for i := range 5 {
		uid := fmt.Sprintf("n%d", i+1)
		write(t, w.archive, at(t, uid, now.AddDate(0, 0, i-9).Format(time.RFC3339)), time.Time{})
		w.show(t, uid, uid, "main")
	}
	// The same archive, copied to another location, is shown from there.
	w.show(t, "n1-copy", "n1", "copies")
	restore := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "back"}, Spec: v1alpha1.RestoreSpec{BackupName: "n2"}}
	w.create(t, restore)

	if res := w.reconcile(); res.RequeueAfter != time.Hour {
		t.Errorf("looks again after %s", res.RequeueAfter)
	}
	wantNames(t, "archives", w.stored(t), "n2", "n4", "n5")
	wantNames(t, "objects", w.shown(t), "n1-copy", "n2", "n4", "n5")
	if got := w.condition(t); got != "True Done: 3 backups of this cluster are kept." {
		t.Errorf("condition: %s", got)
	}
	if first := <-w.events.Events; !strings.Contains(first, "BackupRemoved n1/n1: no rule keeps it") {
		t.Errorf("event: %s", first)
	}

	restore.Status.Phase = v1alpha1.PhaseCompleted
	if err := w.client.Status().Update(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	// What has a TTL and no rules of its own goes when that ends, and is looked at then.
	for _, uid := range []string{"x1", "x2"} {
		write(t, w.archive, with(at(t, uid, now.Format(time.RFC3339)), func(b *retention.Backup) {
			b.Schedule = "gone"
			ttl(now.Add(10 * time.Minute).Format(time.RFC3339))(b)
		}), time.Time{})
	}
	if res := w.reconcile(); res.RequeueAfter != 10*time.Minute+time.Second {
		t.Errorf("looks again after %s", res.RequeueAfter)
	}
	wantNames(t, "archives", w.stored(t), "n4", "n5", "x1", "x2")
	// Their schedule is not there. That counts after a day only.
	w.today = now.Add(23 * time.Hour)
	w.reconcile()
	wantNames(t, "archives", w.stored(t), "n4", "n5", "x1", "x2")
	w.today = now.Add(25 * time.Hour)
	w.reconcile()
	wantNames(t, "archives", w.stored(t), "n4", "n5", "x2")
}

// TestReadOnly leaves a location alone that may not be written, and one that does not open says why.
func TestReadOnly(t *testing.T) {
	w := newWorld(t, v1alpha1.BackupStorageLocationSpec{ReadOnly: true})
	write(t, w.archive, with(at(t, "old", "2026-01-01T00:00:00Z"), ttl("2026-02-01T00:00:00Z")), time.Time{})
	write(t, w.archive, at(t, "new", "2026-01-02T00:00:00Z"), time.Time{})
	if res := w.reconcile(); res.RequeueAfter != 0 || w.condition(t) != "" {
		t.Errorf("%+v, condition %q", res, w.condition(t))
	}
	wantNames(t, "archives", w.stored(t), "new", "old")
	var object v1alpha1.BackupStorageLocation
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "main"}, &object); err != nil {
		t.Fatal(err)
	}
	object.Spec.ReadOnly, object.Spec.PublicKey = false, "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	if err := w.client.Update(t.Context(), &object); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if got := w.condition(t); !strings.HasPrefix(got, "False KeyMismatch: ") {
		t.Errorf("condition: %s", got)
	}
	wantNames(t, "archives", w.stored(t), "new", "old")
}

// bucketSpec is a location in a bucket of a real S3.
func bucketSpec(t *testing.T, options ...testbed.BucketOption) v1alpha1.BackupStorageLocationSpec {
	t.Helper()
	b := testbed.NewBucket(t, options...)
	path := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", b.AccessKey, b.SecretKey)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return v1alpha1.BackupStorageLocationSpec{ObjectLock: true, S3: &v1alpha1.S3Location{
		Bucket: b.Name, Region: b.Region, Endpoint: b.Endpoint, PathStyle: true, CredentialsFile: path, CABundle: string(b.CA),
	}}
}

// TestObjectLock has a bucket protect what is kept, and waits for what was protected.
func TestObjectLock(t *testing.T) {
	w := newWorld(t, bucketSpec(t, testbed.Locked()))
	w.create(t, &v1alpha1.Schedule{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly"}, Spec: v1alpha1.ScheduleSpec{Schedule: "@daily", Retention: &v1alpha1.RetentionPolicy{KeepLast: 1}},
	})
	write(t, w.archive, at(t, "n1", w.today.Add(-2*time.Hour).Format(time.RFC3339)), time.Time{})
	write(t, w.archive, at(t, "n2", w.today.Add(-time.Hour).Format(time.RFC3339)), time.Time{})
	w.reconcile()
	wantNames(t, "archives", w.stored(t), "n2")
	if got := w.condition(t); !strings.HasPrefix(got, "True Done: 1 backups") {
		t.Errorf("condition: %s", got)
	}
	for _, key := range w.keys(t, "backups/n2/") {
		if err := w.store.Delete(t.Context(), key); !errors.Is(err, plugins.ErrRetained) {
			t.Errorf("%s is not protected: %v", key, err)
		}
	}
	write(t, w.archive, at(t, "n3", w.today.Format(time.RFC3339)), time.Time{})
	if res := w.reconcile(); res.RequeueAfter != time.Hour {
		t.Errorf("looks again after %s", res.RequeueAfter)
	}
	end := w.today.Truncate(24 * time.Hour).Add(48 * time.Hour).Format(time.RFC3339)
	if got := w.condition(t); got != "True WaitingForLock: 1 backups of this cluster are kept. 1 deleted ones, the first n2/n2, go when the bucket's object lock ends, from "+end+" on." {
		t.Errorf("condition: %s", got)
	}
}

func (w *world) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	err := w.store.List(t.Context(), prefix, func(info plugins.ObjectInfo) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d keys below %s, %v", len(keys), prefix, err)
	}
	return keys
}

// TestObjectLockUnsupported says that a bucket cannot do what spec.objectLock asks for.
func TestObjectLockUnsupported(t *testing.T) {
	w := newWorld(t, bucketSpec(t))
	write(t, w.archive, at(t, "one", "2026-01-02T00:00:00Z"), time.Time{})
	w.reconcile()
	if got := w.condition(t); !strings.HasPrefix(got, "False ObjectLockUnsupported: ") {
		t.Errorf("condition: %s", got)
	}
}
