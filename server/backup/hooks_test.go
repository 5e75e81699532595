//go:build unix

package backup_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/test/podrunner"
)

// frozen runs a pod whose hooks Kedge runs, and gives what was run.
func (w *world) frozen(t *testing.T) (pod string, ran func() []string) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(w.cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	kubelet := podrunner.StartKubelet(t, clients, "node-"+w.namespace)
	db := kubelet.Run(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "db", Annotations: map[string]string{
		"pre.hook.backup.kedge.dev/command": "freeze", "post.hook.backup.kedge.dev/command": "true",
	}}})
	return string(db.UID), func() (all []string) {
		for _, c := range kubelet.Ran() {
			all = append(all, c.Argv[0])
		}
		return all
	}
}

// TestCancelledAfterKill cancels a backup whose server died while a pod held still: no backup is made, and the pod is let go.
func TestCancelledAfterKill(t *testing.T) {
	w := newWorld(t)
	pod, ran := w.frozen(t)
	for _, name := range []string{"killed", "quiet"} {
		w.create(t, name, &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
		b := w.die(t, w.look(t, w.server(t, t.TempDir(), false), name))
		if name == "killed" {
			w.freeze(t, b, pod)
		}
		b.Spec.Cancel = true
		if err := w.client.Update(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if b := w.toEnd(t, w.server(t, t.TempDir(), true), name); b.Status.Phase != v1alpha1.PhaseCancelled {
			t.Errorf("%s is %+v", name, b.Status)
		}
		if got := ran(); !slices.Equal(got, []string{"true"}) { // and no further one for the second backup, which has left nothing
			t.Errorf("%s: there ran %v", name, got)
		}
	}
	if left, err := w.place(t).Freezes(t.Context(), "killed", w.clusterUID(t)); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestFailedAfterKill gives up a backup of which an attempt was killed while a pod held still: the pod is let go first, in the location that the attempt
// wrote to, though another is the default by now.
func TestFailedAfterKill(t *testing.T) {
	for name, c := range map[string]struct {
		left   func(*v1alpha1.Backup)
		reason string
	}{
		"servers":  {func(b *v1alpha1.Backup) { b.Status.Attempts = 5 }, attempts.ReasonTooOften},
		"failures": {func(b *v1alpha1.Backup) { b.Status.Attempts, b.Status.Failures, b.Status.Message = 4, 3, "no disk" }, "Failed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pod, ran := w.frozen(t)
			w.create(t, "killed", &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.namespace}}}})
			b := w.die(t, w.look(t, w.server(t, t.TempDir(), false), "killed"))
			w.freeze(t, b, pod)
			c.left(b)
			if err := w.client.Status().Update(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			w.create(t, "other", &v1alpha1.BackupStorageLocation{Spec: v1alpha1.BackupStorageLocationSpec{Default: true, File: &v1alpha1.FileLocation{Path: t.TempDir()}}})
			r := w.server(t, t.TempDir(), true)
			r.Patience = &attempts.Patience{}
			b = w.toEnd(t, r, "killed")
			if b.Status.Phase != v1alpha1.PhaseFailed || reasonOf(b) != c.reason || strings.Contains(b.Status.Message, "undone") || b.Status.Message == "" {
				t.Errorf("%s: %+v", reasonOf(b), b.Status)
			}
			if got := ran(); !slices.Equal(got, []string{"true"}) {
				t.Errorf("there ran %v", got)
			}
			if left, err := w.place(t).Freezes(t.Context(), "killed", w.clusterUID(t)); err != nil || len(left) != 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// place opens the location past the server.
func (w *world) place(t *testing.T) *archive.Location {
	t.Helper()
	var l v1alpha1.BackupStorageLocation
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "main"}, &l); err != nil {
		t.Fatal(err)
	}
	store, err := file.New(*l.Spec.File, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	place, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return place
}

func (w *world) clusterUID(t *testing.T) string {
	t.Helper()
	var ns corev1.Namespace
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "kube-system"}, &ns); err != nil {
		t.Fatal(err)
	}
	return string(ns.UID)
}

// freeze leaves what an attempt leaves that was killed while a pod held still.
func (w *world) freeze(t *testing.T, b *v1alpha1.Backup, pod string) {
	t.Helper()
	killed := errors.New("killed")
	_, err := w.place(t).Write(t.Context(), archive.WriteOptions{Name: b.Name, UID: string(b.UID), SpoolDir: t.TempDir(), Now: time.Now, Rand: rand.Reader},
		func(ctx context.Context, a *archive.Writer) (*archive.Summary, error) {
			if _, err := a.Freeze(ctx, archive.Freeze{Cluster: w.clusterUID(t), Pods: []string{pod}}); err != nil {
				return nil, err
			}
			return nil, killed
		})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
}
