package backup_test

import (
	"context"
	"crypto/rand"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/server/backup"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/test/testbed"
)

// world is a namespace of a real API server, with a location in a folder.
type world struct {
	cluster   *testbed.Cluster
	client    client.Client
	namespace string
	private   string
	later     time.Duration // than it is
}

var crds sync.Once

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cluster: testbed.SharedCluster(t, "1.36.3"), private: t.TempDir()}
	crds.Do(func() {
		files, err := fs.Glob(deploy.CRDs, "crds/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := deploy.CRDs.ReadFile(name)
			if err == nil {
				err = w.cluster.ApplyYAML(t.Context(), string(text))
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
	var err error
	if w.client, err = client.New(w.cluster.Kedge(t), client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "backup-"}}
	if err := w.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w.namespace = ns.Name
	w.locate(t)
	return w
}

// locate makes the location "main".
func (w *world) locate(t *testing.T) {
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
	if _, _, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: time.Now, Rand: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	w.create(t, "main", &v1alpha1.BackupStorageLocation{Spec: v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: path}}})
}

func (w *world) create(t *testing.T, name string, object client.Object) {
	t.Helper()
	object.SetNamespace(w.namespace)
	object.SetName(name)
	if err := w.client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func (w *world) now() time.Time { return time.Now().Add(w.later) }

// server is one that has just begun, with its spool in a folder; one that is not alive does none of the work that it begins.
func (w *world) server(t *testing.T, spool string, alive bool) *backup.Reconciler {
	t.Helper()
	p := pool.New[*archive.Record](1, 1)
	if alive {
		ctx, cancel := context.WithCancel(t.Context())
		group, ctx := errgroup.WithContext(ctx)
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		if err := p.Changed().Start(ctx, queue); err != nil {
			t.Fatal(err)
		}
		group.Go(func() error { return p.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			queue.ShutDown()
			_ = group.Wait() // it ends with its context
		})
	}
	return &backup.Reconciler{
		Client: w.client, Look: w.client, Marks: w.marks(), Pool: p, Events: events.NewFakeRecorder(100), Now: w.now,
		Registry: &location.Registry{Client: w.client, Secrets: w.client, Namespace: w.namespace, PrivateDir: w.private, Now: w.now},
		Runner:   &backup.Runner{Config: w.cluster.Kedge(t), Version: "test", SpoolDir: spool, Now: w.now, Rand: rand.Reader},
	}
}

// look reconciles the backup once.
func (w *world) look(t *testing.T, r *backup.Reconciler, name string) *v1alpha1.Backup {
	t.Helper()
	key := client.ObjectKey{Namespace: w.namespace, Name: name}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	var b v1alpha1.Backup
	if err := w.client.Get(t.Context(), key, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// die has a server end over the backup in the middle of its attempt, and gives what is left.
func (w *world) die(t *testing.T, b *v1alpha1.Backup) *v1alpha1.Backup {
	t.Helper()
	b.Status.Attempts++
	b.Status.Phase = v1alpha1.PhaseInProgress
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// toEnd looks until the backup has ended.
func (w *world) toEnd(t *testing.T, r *backup.Reconciler, name string) *v1alpha1.Backup {
	t.Helper()
	for {
		b := w.look(t, r, name)
		if b.Status.Phase.Final() {
			return b
		}
		if err := t.Context().Err(); err != nil {
			t.Fatalf("the backup does not end: %+v", b.Status)
		}
	}
}

// attempt has the backup begun, and looks until the attempt has ended.
func (w *world) attempt(t *testing.T, r *backup.Reconciler, name string) *v1alpha1.Backup {
	t.Helper()
	before := w.look(t, r, name).Status.Failures
	for {
		b := w.look(t, r, name)
		if b.Status.Phase.Final() || b.Status.Failures > before {
			return b
		}
		if err := t.Context().Err(); err != nil {
			t.Fatalf("the attempt does not end: %+v", b.Status)
		}
	}
}

// TestFailures lets two servers die over a backup, and counts neither as a failure of it; three attempts that fail are its end, however long they took.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.create(t, "poor", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
	for n := range 2 {
		b := w.look(t, w.server(t, t.TempDir(), false), "poor")
		if b.Status.Attempts != n || b.Status.Failures != 0 || b.Status.Phase != v1alpha1.PhaseQueued {
			t.Fatalf("queued by a server that died: %+v", b.Status)
		}
		w.die(t, b)
	}
	r := w.server(t, filepath.Join(t.TempDir(), "missing"), true)
	w.later = 2 * time.Hour
	for n := 1; n <= 2; n++ {
		b := w.attempt(t, r, "poor")
		ready := meta.FindStatusCondition(b.Status.Conditions, "Ready")
		if b.Status.Attempts != n+2 || b.Status.Failures != n || b.Status.Phase != v1alpha1.PhaseQueued || ready == nil || ready.Reason != "AttemptFailed" {
			t.Fatalf("failure %d: %+v", n, b.Status)
		}
	}
	b := w.toEnd(t, r, "poor")
	if b.Status.Failures != 3 || b.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(b.Status.Message, "spool") {
		t.Errorf("the third failure: %+v", b.Status)
	}
}

// TestServersEnd has one server after the other end over a backup: the first two for nothing, later ones have it wait, and the fifth is its end, with a
// reason that says so. One that was sealed without that anybody wrote it down is shown.
func TestServersEnd(t *testing.T) {
	w := newWorld(t)
	spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}
	w.create(t, "huge", &v1alpha1.Backup{Spec: spec})
	begun := func(r *backup.Reconciler) *v1alpha1.Backup {
		r.Patience = &attempts.Patience{}
		return w.look(t, r, "huge")
	}
	for n := 1; n <= 5; n++ {
		dying := w.server(t, t.TempDir(), false)
		b := begun(dying)
		if n > 3 {
			if b.Status.Attempts != n-1 || reasonOf(b) != attempts.ReasonInterrupted || b.Status.Phase != v1alpha1.PhaseQueued {
				t.Fatalf("begun %d times, at once: %+v", n, b.Status)
			}
			w.later += 10 * time.Minute // in the second half, beyond an hour
			b = w.look(t, dying, "huge")
		}
		if b.Status.Attempts != n-1 || b.Status.Phase != v1alpha1.PhaseQueued || reasonOf(b) != "Queued" {
			t.Fatalf("begun %d times: %+v", n, b.Status)
		}
		w.die(t, b)
		w.later += 40 * time.Minute
	}
	last := w.server(t, t.TempDir(), true)
	last.Patience = &attempts.Patience{}
	b := w.toEnd(t, last, "huge")
	if b.Status.Phase != v1alpha1.PhaseFailed || reasonOf(b) != attempts.ReasonTooOften || b.Status.Attempts != 5 || !strings.Contains(b.Status.Message, "OOMKilled") {
		t.Errorf("after five: %+v", b.Status)
	}

	w.create(t, "sealed", &v1alpha1.Backup{Spec: spec})
	b = w.attempt(t, w.server(t, t.TempDir(), true), "sealed")
	if b.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("%+v", b.Status)
	}
	b.Status.Phase, b.Status.Attempts, b.Status.CompletionTime = v1alpha1.PhaseInProgress, 5, nil
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	r := w.server(t, t.TempDir(), false)
	r.Patience = &attempts.Patience{}
	if b := w.look(t, r, "sealed"); b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Attempts != 5 || b.Status.Counts.Items == 0 {
		t.Errorf("sealed, and nobody wrote it down: %+v", b.Status)
	}
}

// TestQueuedIsNoAttempt has six servers end over another backup while this one waits for its turn: nothing is counted against it.
func TestQueuedIsNoAttempt(t *testing.T) {
	w := newWorld(t)
	w.create(t, "waits", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
	for range 6 {
		r := w.server(t, t.TempDir(), false)
		r.Patience = &attempts.Patience{}
		if b := w.look(t, r, "waits"); b.Status.Phase != v1alpha1.PhaseQueued || b.Status.Attempts != 0 || reasonOf(b) != "Queued" {
			t.Fatalf("it only waited: %+v", b.Status)
		}
	}
	if b := w.attempt(t, w.server(t, t.TempDir(), true), "waits"); b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Attempts != 1 {
		t.Errorf("in its turn: %+v", b.Status)
	}
}

// TestStoppedInOrder stops six servers in the middle of a backup: that says nothing about the backup, which the seventh makes.
func TestStoppedInOrder(t *testing.T) {
	w := newWorld(t)
	w.create(t, "moved", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
	for n := 1; n <= 6; n++ {
		r := w.server(t, t.TempDir(), false)
		r.Patience = &attempts.Patience{}
		begun := make(chan struct{})
		told := sync.OnceFunc(func() { close(begun) })
		cfg := w.cluster.Kedge(t)
		cfg.Wrap(func(http.RoundTripper) http.RoundTripper { return hanging{told} })
		r.Runner.Config = cfg
		w.look(t, r, "moved")
		ctx, stop := context.WithCancel(t.Context())
		var group errgroup.Group
		group.Go(func() error { return r.Pool.Run(ctx) })
		<-begun
		stop()
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		var b v1alpha1.Backup
		if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "moved"}, &b); err != nil {
			t.Fatal(err)
		}
		if b.Status.Attempts != n || b.Status.Stops != n || b.Status.Failures != 0 || b.Status.Phase != v1alpha1.PhaseQueued {
			t.Fatalf("stopped %d times: %+v", n, b.Status)
		}
	}
	r := w.server(t, t.TempDir(), true)
	r.Patience = &attempts.Patience{}
	if b := w.attempt(t, r, "moved"); b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Attempts != 7 || b.Status.Stops != 6 {
		t.Errorf("the last: %+v", b.Status)
	}
}

// TestRefusedSince has a backup that waited longer than an hour for a server meet a passing refusal: it is not given up for that, but an hour after it was
// first refused.
func TestRefusedSince(t *testing.T) {
	w := newWorld(t)
	w.create(t, "old", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{StorageLocation: "soon"}})
	w.later = 3 * time.Hour
	b := w.look(t, w.server(t, t.TempDir(), false), "old")
	if b.Status.Phase != v1alpha1.PhaseQueued || b.Status.RefusedSince == nil {
		t.Fatalf("at its first refusal: %+v", b.Status)
	}
	w.later += 59 * time.Minute
	if b = w.look(t, w.server(t, t.TempDir(), false), "old"); b.Status.Phase != v1alpha1.PhaseQueued {
		t.Fatalf("59 minutes later: %+v", b.Status)
	}
	w.later += 2 * time.Minute
	if b = w.look(t, w.server(t, t.TempDir(), false), "old"); b.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(b.Status.Message, "given up after 1h0m0s") {
		t.Errorf("61 minutes later: %+v", b.Status)
	}

	w.create(t, "begun", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
	b = w.look(t, w.server(t, t.TempDir(), false), "begun")
	refused := metav1.NewTime(w.now().Add(-2 * time.Hour))
	b.Status.RefusedSince = &refused
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if b = w.look(t, w.server(t, t.TempDir(), false), "begun"); b.Status.Phase != v1alpha1.PhaseQueued || b.Status.RefusedSince != nil {
		t.Errorf("refused once, and queued now: %+v", b.Status)
	}
}

func (w *world) marks() *schedule.Marks {
	return &schedule.Marks{Client: w.client, Namespace: w.namespace, Rand: rand.Reader}
}

// TestOriginOfLabel has a backup of a schedule and ones that somebody labelled by himself, under a name that the schedule comes to later, or the one that it
// has come to, with the mark of another: only the first has the label in its archive.
func TestOriginOfLabel(t *testing.T) {
	w := newWorld(t)
	spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}
	s := &v1alpha1.Schedule{Spec: v1alpha1.ScheduleSpec{Schedule: "@daily"}}
	w.create(t, "daily", s)
	made := func(name, uid string) {
		s.Status.Made, s.Status.MadeUID = name, uid
		if err := w.client.Status().Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	r := w.server(t, t.TempDir(), true)
	for _, c := range []struct{ name, schedule, made, later, mark, want string }{
		{"daily-1", "daily", "daily-1", "daily-1", "daily-1", "daily"},
		{"by-hand", "daily", "daily-1", "daily-1", "by-hand", ""},
		{"daily-2", "daily", "daily-1", "daily-2", "daily-2", ""},
		{"daily-3", "daily", "daily-3", "daily-3", "daily-1", ""},
		{"orphan", "gone", "daily-2", "daily-2", "orphan", ""},
	} {
		made(c.made, "")
		owner, err := w.marks().Of(t.Context(), s, "")
		if err != nil {
			t.Fatal(err)
		}
		w.create(t, c.name, &v1alpha1.Backup{
			ObjectMeta: metav1.ObjectMeta{
				Labels:      map[string]string{v1alpha1.ScheduleLabel: c.schedule, "team": "a"},
				Annotations: map[string]string{v1alpha1.RunAnnotation: owner.NewBackup(c.mark).Annotations[v1alpha1.RunAnnotation]},
			},
			Spec: spec,
		})
		b := w.look(t, r, c.name)
		if early := b.Status.ObservedGeneration == 0; early != (c.want != "") {
			t.Errorf("%s: waits for its schedule's note: %t", c.name, early)
		}
		if c.name == c.made {
			made(c.made, string(b.UID))
			w.look(t, r, c.name)
		}
		made(c.later, "another")
		b = w.toEnd(t, r, c.name)
		entry, err := w.place(t).Find(t.Context(), string(b.UID))
		if err != nil || entry.Record == nil {
			t.Fatalf("%s: %+v, %v", c.name, b.Status, err)
		}
		if got := entry.Record.Labels; got[v1alpha1.ScheduleLabel] != c.want || b.Status.Schedule != c.want || got["team"] != "a" {
			t.Errorf("%s: labels %v, status %+v", c.name, got, b.Status)
		}
	}
}

// TestMarkAgain has somebody delete the Backup of the newest run, and create it again with its label and mark.
func TestMarkAgain(t *testing.T) {
	w := newWorld(t)
	s := &v1alpha1.Schedule{Spec: v1alpha1.ScheduleSpec{Schedule: "@daily"}}
	w.create(t, "daily", s)
	s.Status.Made, s.Status.MadeUID = "daily-1", "the-first"
	if err := w.client.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	owner, err := w.marks().Of(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	w.create(t, "daily-1", owner.NewBackup("daily-1"))
	if b := w.look(t, w.server(t, t.TempDir(), true), "daily-1"); b.Status.Schedule != "" || b.Status.ObservedGeneration == 0 {
		t.Errorf("it counts as the first: %+v", b.Status)
	}
}

// TestNoKey has a Secret of the key that is of no use: a scheduled backup says so, and can be cancelled.
func TestNoKey(t *testing.T) {
	w := newWorld(t)
	if err := w.client.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "kedge-runs"}}); err != nil {
		t.Fatal(err)
	}
	w.create(t, "daily", &v1alpha1.Schedule{Spec: v1alpha1.ScheduleSpec{Schedule: "@daily"}})
	w.create(t, "daily-1", &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.ScheduleLabel: "daily"}}})
	r := w.server(t, t.TempDir(), true)
	b := w.look(t, r, "daily-1")
	if reasonOf(b) != schedule.ReasonNoKey || b.Status.ObservedGeneration != 0 {
		t.Errorf("without a key: %+v", b.Status)
	}
	b.Spec.Cancel = true
	if err := w.client.Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if b = w.look(t, r, "daily-1"); b.Status.Phase != v1alpha1.PhaseCancelled {
		t.Errorf("cancelled: %+v", b.Status)
	}
}

// hanging is a cluster that does not answer until nobody asks any more; it tells of each request.
type hanging struct{ told func() }

func (h hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	h.told()
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func reasonOf(b *v1alpha1.Backup) string {
	if c := meta.FindStatusCondition(b.Status.Conditions, "Ready"); c != nil {
		return c.Reason
	}
	return ""
}

// TestSuccessAfterFailure keeps the count of what failed.
func TestSuccessAfterFailure(t *testing.T) {
	w := newWorld(t)
	w.create(t, "late", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
	w.attempt(t, w.server(t, filepath.Join(t.TempDir(), "missing"), true), "late")
	b := w.attempt(t, w.server(t, t.TempDir(), true), "late")
	if b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Attempts != 2 || b.Status.Failures != 1 {
		t.Errorf("%+v", b.Status)
	}
}
