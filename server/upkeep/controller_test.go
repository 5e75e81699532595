package upkeep_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/upkeep"
	"kedge.dev/kedge/test/testbed"
)

// world is a namespace of a real API server with the location "main", a folder, and a provider that only finds and deletes.
type world struct {
	client    client.Client
	namespace string
	dir       string
	shelf     *shelf
	more      []plugins.VolumeProvider
	events    *events.FakeRecorder
	reconcile func() (ctrl.Result, error)
	registry  *location.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster := testbed.SharedCluster(t, "1.36.3")
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
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cluster.Kedge(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "upkeep-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w := &world{client: c, namespace: ns.Name, dir: t.TempDir(), shelf: &shelf{}, events: events.NewFakeRecorder(100)}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "identity"}, Data: map[string][]byte{"key": []byte(id.String())}})
	w.create(t, &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.BackupStorageLocationSpec{
		File: &v1alpha1.FileLocation{Path: w.dir}, AgeRecipients: []string{id.Recipient().String()}, AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: "identity", Key: "key"},
	}})
	w.registry = &location.Registry{Client: c, Secrets: c, Namespace: ns.Name, PrivateDir: t.TempDir(), Now: time.Now}
	r := &upkeep.Reconciler{
		Client: c, Registry: w.registry, Events: w.events, Now: time.Now, ClusterUID: func(context.Context) (string, error) { return "blue", nil },
		Providers: func(context.Context, *location.Place) ([]plugins.VolumeProvider, error) {
			return append([]plugins.VolumeProvider{w.shelf}, w.more...), nil
		},
	}
	w.reconcile = func() (ctrl.Result, error) {
		return r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: w.namespace, Name: "main"}})
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

// looks reconciles and compares the condition, as "Status Reason: Message", with what it begins with; "" wants none.
func (w *world) looks(t *testing.T, want string) {
	t.Helper()
	if res, err := w.reconcile(); err == nil && res.RequeueAfter <= 0 {
		t.Errorf("looks again after %s", res.RequeueAfter)
	}
	var object v1alpha1.BackupStorageLocation
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "main"}, &object); err != nil {
		t.Fatal(err)
	}
	got := ""
	if c := meta.FindStatusCondition(object.Status.Conditions, upkeep.Maintained); c != nil {
		got = fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
	}
	if !strings.HasPrefix(got, want) || want == "" && got != "" {
		t.Errorf("the condition is %q, want %q", got, want)
	}
}

// taker takes the cluster's snapshots, of which there are none.
type taker struct{ *shelf }

func (taker) Takes() bool { return true }

// TestSweepTellsOfFailures: AWS may be out of reach where the cluster takes snapshots itself; what cannot be deleted there is told all the same.
func TestSweepTellsOfFailures(t *testing.T) {
	w := newWorld(t)
	place, err := w.registry.Get(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	w.more = []plugins.VolumeProvider{taker{&shelf{}}}
	w.create(t, &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Spec: v1alpha1.BackupSpec{Volumes: &v1alpha1.VolumeSelection{Method: v1alpha1.VolumeSnapshot}}})
	w.shelf.err = fmt.Errorf("describe snapshots: %w", plugins.ErrAccess)
	w.looks(t, "True Done: ")
	w.shelf.err, w.shelf.locked = nil, fmt.Errorf("delete snapshot: %w", plugins.ErrAccess)
	w.shelf.snapshots = []plugins.Snapshot{snapshot("orphan", "gone", "a", "vol-1", 9*day-time.Since(now), volumes.TagLocation, place.Archive.ID())}
	w.looks(t, "False AccessDenied: remove orphaned snapshot orphan: delete snapshot: access denied")
}

// TestReconcile looks after a location that gets a repository, orphans, a provider that is away, and a backup that cannot be read.
func TestReconcile(t *testing.T) {
	w := newWorld(t)
	w.looks(t, "")
	place, err := w.registry.Get(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := place.Repository(t.Context())
	if err == nil {
		err = repo.Close(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.shelf.err = errors.New("nobody asks for volumes")
	w.looks(t, "True Done: No snapshot is orphaned. 0 copies of volumes are kept.")

	w.create(t, &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: "copies"}, Spec: v1alpha1.BackupSpec{Volumes: &v1alpha1.VolumeSelection{Method: v1alpha1.VolumeCopy}}})
	w.looks(t, "True Done: ") // who copies files as they are used, and has no snapshots, needs no provider that answers
	w.shelf.takes = true
	w.looks(t, "Unknown Retrying: look for orphans of ebs: nobody asks for volumes")
	w.shelf.takes = false
	w.create(t, &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: "new"}, Spec: v1alpha1.BackupSpec{Volumes: &v1alpha1.VolumeSelection{Method: v1alpha1.VolumeSnapshot}}})
	w.looks(t, "Unknown Retrying: look for orphans of ebs: nobody asks for volumes")
	w.shelf.err = nil
	var b v1alpha1.Backup
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "new"}, &b); err != nil {
		t.Fatal(err)
	}
	ago := time.Since(now) // snapshot counts from now
	for id, uid := range map[string]string{"orphan": "gone", "busy": string(b.UID), "young": "gone"} {
		s := snapshot(id, uid, "a", "vol-1", 9*day-ago, volumes.TagLocation, place.Archive.ID())
		if id == "young" {
			s.Started = time.Now()
		}
		w.shelf.snapshots = append(w.shelf.snapshots, s)
	}
	w.looks(t, "True Done: ")
	if fmt.Sprint(w.shelf.deleted) != "[orphan]" {
		t.Errorf("deleted %v", w.shelf.deleted)
	}
	select {
	case e := <-w.events.Events:
		if !strings.Contains(e, "OrphanRemoved") || !strings.Contains(e, "snapshot orphan of claim shop/data: NoBackup") {
			t.Errorf("event %q", e)
		}
	default:
		t.Error("no event tells of the removal")
	}

	folder := filepath.Join(w.dir, "backups", "torn", "torn-uid")
	if err := errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, "backup.json"), []byte("garbage"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.looks(t, "False CopiesUnknown: No snapshot is orphaned. 0 copies of volumes are kept. None is forgotten, since it is not known which ones backups name: read backup torn/torn-uid")
}
