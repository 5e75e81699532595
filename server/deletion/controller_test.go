package deletion_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/server/deletion"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/testbed"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// world is a namespace of a real API server, with a location in a folder.
type world struct {
	client    client.Client
	namespace string
	path      string
	archive   *archive.Location
	today     time.Time
	observe   func(decorate.Event)
	r         *deletion.Reconciler
}

var crds sync.Once

func newWorld(t *testing.T, readOnly bool) *world {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
	crds.Do(func() { applyCRDs(t, cluster) })
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
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "deletion-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w := &world{client: c, namespace: ns.Name, path: t.TempDir(), today: now, observe: func(decorate.Event) {}}
	w.initialize(t)
	w.create(t, &v1alpha1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Name: "main"},
		Spec:       v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: w.path}, ReadOnly: readOnly},
	})
	clock := func() time.Time { return w.today }
	w.r = &deletion.Reconciler{Client: c, Now: clock, Registry: &location.Registry{
		Client: c, Secrets: c, Namespace: ns.Name, PrivateDir: t.TempDir(), Now: clock,
		Observe: func(string) func(context.Context, decorate.Event) {
			return func(_ context.Context, e decorate.Event) { w.observe(e) }
		},
	}}
	return w
}

func applyCRDs(t *testing.T, cluster *testbed.Cluster) {
	t.Helper()
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
}

func (w *world) initialize(t *testing.T) {
	t.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: w.path}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.archive, _, err = archive.Init(t.Context(), store, archive.InitOptions{
		Recipients: []age.Recipient{id.Recipient()}, Now: func() time.Time { return now }, Rand: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) create(t *testing.T, object client.Object) {
	t.Helper()
	object.SetNamespace(w.namespace)
	if err := w.client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// backup makes an archive and the object that shows it.
func (w *world) backup(t *testing.T, name string, rows ...archive.Volume) {
	t.Helper()
	opts := archive.WriteOptions{Name: name, UID: name + "-uid", SpoolDir: t.TempDir(), Now: func() time.Time { return now }, Rand: rand.Reader}
	_, err := w.archive.Write(t.Context(), opts, func(context.Context, *archive.Writer) (*archive.Summary, error) {
		return &archive.Summary{Cluster: v1alpha1.ClusterInfo{UID: "cluster"}, Phase: v1alpha1.PhaseCompleted, Started: now, Volumes: rows}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.object(t, name, v1alpha1.PhaseCompleted)
}

// object makes a Backup object.
func (w *world) object(t *testing.T, name string, phase v1alpha1.Phase) {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: name + "-uid"}}}
	w.create(t, b)
	b.Status = v1alpha1.BackupStatus{ArchiveUID: name + "-uid", StorageLocation: "main", Phase: phase}
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// ask makes a request, which has the backup's name.
func (w *world) ask(t *testing.T, name, uid string, force bool) {
	t.Helper()
	w.create(t, &v1alpha1.DeleteBackupRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DeleteBackupRequestSpec{BackupName: name, BackupUID: uid, Force: force},
	})
}

func (w *world) reconcile(ctx context.Context, name string) (ctrl.Result, error) {
	return w.r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Namespace: w.namespace, Name: name}})
}

// settle reconciles as long as the request asks for it at once, and gives its status and the last wait.
func (w *world) settle(t *testing.T, name string) (v1alpha1.DeleteBackupRequestStatus, time.Duration) {
	t.Helper()
	for range 10 {
		res, err := w.reconcile(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if res.RequeueAfter == 0 || res.RequeueAfter > time.Second {
			return w.status(t, name), res.RequeueAfter
		}
	}
	t.Fatalf("the request %s does not settle: %+v", name, w.status(t, name))
	return v1alpha1.DeleteBackupRequestStatus{}, 0
}

func (w *world) status(t *testing.T, name string) v1alpha1.DeleteBackupRequestStatus {
	t.Helper()
	var object v1alpha1.DeleteBackupRequest
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, &object); err != nil {
		t.Fatal(err)
	}
	return object.Status
}

// there says whether a Backup object is.
func (w *world) there(t *testing.T, name string) bool {
	t.Helper()
	err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, &v1alpha1.Backup{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// dump is what the folder holds: the keys with a hash of each object.
func (w *world) dump(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(w.path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(name, ".kedge-") {
			return err
		}
		data, err := os.ReadFile(name)
		sum := sha256.Sum256(data)
		out[strings.TrimPrefix(name, w.path+"/")] = hex.EncodeToString(sum[:4])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDelete deletes one of two backups, and removes the request an hour later.
func TestDelete(t *testing.T) {
	w := newWorld(t, false)
	w.backup(t, "stays")
	want := w.dump(t)
	w.backup(t, "goes")
	w.ask(t, "goes", "goes-uid", false)
	s, after := w.settle(t, "goes")
	if s.Phase != v1alpha1.RequestDone || s.StartTime == nil || s.CompletionTime == nil || after != time.Hour {
		t.Errorf("%+v, looked at again after %s", s, after)
	}
	if d := cmp.Diff(want, w.dump(t)); d != "" {
		t.Errorf("the folder (-want +got):\n%s", d)
	}
	if w.there(t, "goes") || !w.there(t, "stays") {
		t.Error("the wrong objects are there")
	}
	w.today = now.Add(59 * time.Minute)
	if _, after := w.settle(t, "goes"); after != time.Minute {
		t.Errorf("looked at again after %s", after)
	}
	w.today = now.Add(time.Hour)
	for range 2 { // the second time it is gone
		if _, err := w.reconcile(t.Context(), "goes"); err != nil {
			t.Fatal(err)
		}
	}
	var list v1alpha1.DeleteBackupRequestList
	if err := w.client.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil || len(list.Items) > 0 {
		t.Errorf("%d requests, %v", len(list.Items), err)
	}
}

// TestRefused: what may not be deleted stays as it is, and the request says why and ends.
func TestRefused(t *testing.T) {
	hold := func(t *testing.T, w *world) {
		t.Helper()
		if err := w.archive.SetExpiry(t.Context(), archive.Entry{Name: "b", UID: "b-uid"}, archive.Expiry{Hold: true, Reason: "audit", At: now}); err != nil {
			t.Fatal(err)
		}
	}
	tear := func(t *testing.T, w *world) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.path, "backups", "b", "b-uid", "backup.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept := []archive.Volume{{Namespace: "ns", Claim: "data", Volume: "pv", Provider: archive.ProviderCluster, Source: plugins.Volume{Handle: "h"}, SnapshotID: "content"}}
	for name, c := range map[string]struct {
		readOnly bool
		uid      string
		force    bool
		rows     []archive.Volume
		before   func(*testing.T, *world)
		want     v1alpha1.RequestPhase
		message  string
	}{
		"another uid":         {uid: "b-uid-2", want: v1alpha1.RequestFailed, message: "the backup that has this name now is b-uid"},
		"a read-only place":   {uid: "b-uid", readOnly: true, want: v1alpha1.RequestFailed, message: "location main is read-only"},
		"held":                {uid: "b-uid", before: hold, want: v1alpha1.RequestFailed, message: "audit"},
		"held, forced":        {uid: "b-uid", before: hold, force: true, want: v1alpha1.RequestDone},
		"a torn record":       {uid: "b-uid", before: tear, want: v1alpha1.RequestFailed, message: "whether it is held is not known"},
		"torn record, forced": {uid: "b-uid", before: tear, force: true, want: v1alpha1.RequestDone},

		"snapshots of another cluster":         {uid: "b-uid", rows: kept, want: v1alpha1.RequestFailed, message: "cluster cluster keeps VolumeSnapshots"},
		"snapshots of another cluster, forced": {uid: "b-uid", rows: kept, force: true, want: v1alpha1.RequestDone},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.readOnly)
			w.backup(t, "b", c.rows...)
			if c.before != nil {
				c.before(t, w)
			}
			before := w.dump(t)
			w.ask(t, "b", c.uid, c.force)
			s, _ := w.settle(t, "b")
			if s.Phase != c.want || !strings.Contains(s.Message, c.message) || s.CompletionTime == nil {
				t.Errorf("%+v", s)
			}
			if c.want == v1alpha1.RequestDone {
				if w.there(t, "b") || len(w.dump(t)) != 2 {
					t.Errorf("left: %v", w.dump(t))
				}
			} else if d := cmp.Diff(before, w.dump(t)); d != "" || !w.there(t, "b") {
				t.Errorf("something changed:\n%s", d)
			}
		})
	}
}

// TestWaits: a backup in the making and one that is being restored wait, one that does not exist does not.
func TestWaits(t *testing.T) {
	w := newWorld(t, false)
	w.ask(t, "nobody", "uid", false)
	if s, _ := w.settle(t, "nobody"); s.Phase != v1alpha1.RequestFailed || !strings.Contains(s.Message, "there is no Backup object") {
		t.Errorf("%+v", s)
	}
	w.object(t, "making", v1alpha1.PhaseInProgress)
	w.ask(t, "making", "making-uid", false)
	if s, after := w.settle(t, "making"); s.Phase != v1alpha1.RequestWaiting || s.StartTime != nil || after != 15*time.Second {
		t.Errorf("%+v, looked at again after %s", s, after)
	}
	w.backup(t, "read")
	restore := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "back"}, Spec: v1alpha1.RestoreSpec{BackupName: "read"}}
	w.create(t, restore)
	w.ask(t, "read", "read-uid", false)
	if s, _ := w.settle(t, "read"); s.Phase != v1alpha1.RequestWaiting || !strings.Contains(s.Message, "restore back reads it") {
		t.Errorf("%+v", s)
	}
	restore.Status.Phase = v1alpha1.PhaseCompleted
	if err := w.client.Status().Update(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	if s, _ := w.settle(t, "read"); s.Phase != v1alpha1.RequestDone {
		t.Errorf("%+v", s)
	}
	// A backup that came to nothing has an object alone.
	w.object(t, "failed", v1alpha1.PhaseFailed)
	w.ask(t, "failed", "failed-uid", false)
	if s, _ := w.settle(t, "failed"); s.Phase != v1alpha1.RequestDone || w.there(t, "failed") {
		t.Errorf("%+v", s)
	}
}

// TestKilled cancels a deletion behind every call of the store, and lets another server go on: the folder is as if nothing had happened,
// and the request is done.
func TestKilled(t *testing.T) {
	w := newWorld(t, false)
	w.backup(t, "stays")
	want := w.dump(t)
	for kill := 1; ; kill++ {
		name := fmt.Sprintf("b%d", kill)
		w.backup(t, name)
		w.ask(t, name, name+"-uid", false)
		ctx, cancel := context.WithCancel(t.Context())
		calls, last := 0, ""
		w.observe = func(e decorate.Event) {
			if calls++; calls == kill {
				last = e.Op + " " + e.Key
				cancel()
			}
		}
		for range 2 {
			if _, err := w.reconcile(ctx, name); err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
		}
		cancel()
		w.observe = func(decorate.Event) {}
		s, _ := w.settle(t, name)
		if s.Phase != v1alpha1.RequestDone || w.there(t, name) {
			t.Errorf("killed after %s: %+v, the object is there: %v", last, s, w.there(t, name))
		}
		if d := cmp.Diff(want, w.dump(t)); d != "" {
			t.Fatalf("killed after %s (-undisturbed +killed):\n%s", last, d)
		}
		if last == "" {
			if kill < 12 {
				t.Errorf("%d kills only", kill-1)
			}
			break
		}
	}
}
