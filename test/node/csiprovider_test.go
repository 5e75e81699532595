//go:build linux

package node_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/csi"
	"kedge.dev/kedge/test/testbed"
)

// csiProvider is a provider of the cluster, as a process has it that has just started.
func csiProvider(t *testing.T, w *world) *csi.Provider {
	t.Helper()
	client, err := kube.New(w.cluster.Master(), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return csi.New(t.Context(), client, csi.Options{})
}

// folders are the ids of what the driver has of a kind.
func folders(t *testing.T, w *world, kind string) (ids []string) {
	t.Helper()
	entries, err := os.ReadDir(w.cluster.Node().CSIFolders(kind))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

func csiCompleted(t *testing.T, p *csi.Provider, id string) plugins.Snapshot {
	t.Helper()
	for range 120 {
		found, err := p.DescribeSnapshots(t.Context(), []string{id})
		if err != nil {
			t.Fatal(err)
		}
		if found[id].State == plugins.SnapshotCompleted {
			return found[id]
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Fatalf("snapshot %s is not completed", id)
	return plugins.Snapshot{}
}

// TestCSIProvider holds the provider to its contract (plugins.VolumeSnapshotter) where a process ends at any moment and another goes on.
func TestCSIProvider(t *testing.T) {
	w := newWorld(t, testbed.WithCSI())
	if err := w.cluster.ApplyYAML(t.Context(), csiManifest("default", "app", testbed.CSIClass, "")); err != nil {
		t.Fatal(err)
	}
	w.ready(t, "default", "app")
	claim, err := w.clients.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "app", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pv, err := w.clients.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := csiProvider(t, w)
	handle, ok := p.Handle(pv)
	if !ok || handle != testbed.CSIDriver+"/"+pv.Spec.CSI.VolumeHandle {
		t.Fatalf("the handle is %q, %v", handle, ok)
	}
	tags := map[string]string{"kedge.dev/backup-uid": "u", "odd": "b*?1", "empty": ""}
	t.Run("Controllers", func(t *testing.T) { csiControllers(t, w) })
	t.Run("CutOff", func(t *testing.T) { csiCutOff(t, w, handle, tags) })
	t.Run("Refused", func(t *testing.T) { csiRefused(t, w, handle, tags) })
	t.Run("Snapshot", func(t *testing.T) { csiTwice(t, w, handle, tags) })
	t.Run("Volume", func(t *testing.T) { csiVolume(t, w, handle, pv, tags) })
}

// csiCutOff: a process that is killed at any moment of a snapshot leaves nothing that its tags do not find, and nothing once that is deleted.
func csiCutOff(t *testing.T, w *world, handle string, tags map[string]string) {
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := csiProvider(t, w).Snapshot(ctx, plugins.SnapshotRequest{Token: "cut " + after.String(), Handles: []string{handle}, Tags: tags})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %s: %v", after, err)
		}
	}
	p := csiProvider(t, w)
	found, err := p.FindSnapshots(t.Context(), tags)
	if err != nil || len(found) == 0 {
		t.Fatalf("found %v, %v", found, err)
	}
	for _, s := range found {
		if s.Handle != handle || s.Started.IsZero() {
			t.Errorf("found %+v", s)
		}
		for range 2 {
			if err := p.DeleteSnapshot(t.Context(), s.ID); err != nil {
				t.Errorf("delete %s: %v", s.ID, err)
			}
		}
	}
	if left := folders(t, w, "snapshots"); len(left) > 0 {
		t.Errorf("the driver still has %v", left)
	}
	if found, err = p.FindSnapshots(t.Context(), tags); err != nil || len(found) > 0 {
		t.Errorf("still found: %v, %v", found, err)
	}
}

// csiRefused: a driver that cannot take a snapshot is not waited for as long as one that does not answer, and what was asked for goes. The class that is
// marked for Kedge is the one that is used.
func csiRefused(t *testing.T, w *world, handle string, tags map[string]string) {
	err := w.cluster.ApplyYAML(t.Context(), `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: refusing, labels: {kedge.dev/csi-volumesnapshot-class: "true"}}
driver: `+testbed.CSIDriver+`
deletionPolicy: Retain
parameters: {refuse: the array is full}
`)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.New(w.cluster.Master(), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	quick := csi.New(t.Context(), client, csi.Options{Now: func() time.Time { return began.Add(20 * time.Since(began)) }})
	_, err = quick.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "refused", Handles: []string{handle}, Tags: tags})
	if err == nil || !strings.Contains(err.Error(), "the array is full") || !quick.Takes() {
		t.Errorf("refused with %v", err)
	}
	if waited := 20 * time.Since(began); waited > 4*time.Minute {
		t.Errorf("waited for %s", waited)
	}
	p := csiProvider(t, w)
	found, err := p.FindSnapshots(t.Context(), tags)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	if err := p.DeleteSnapshot(t.Context(), found[0].ID); err != nil {
		t.Error(err)
	}
	if found, err = p.FindSnapshots(t.Context(), tags); err != nil || len(found) > 0 || len(folders(t, w, "snapshots")) > 0 {
		t.Errorf("still found: %v, %v", found, err)
	}
	classes := schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotclasses"}
	objects, err := dynamic.NewForConfig(w.cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.Resource(classes).Delete(t.Context(), "refusing", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// csiTwice: one token makes one snapshot, also where another process goes on; a token of other volumes is refused; tags select; a snapshot whose
// content is lost is asked of the driver.
func csiTwice(t *testing.T, w *world, handle string, tags map[string]string) {
	ask := plugins.SnapshotRequest{Token: "one", Handles: []string{handle}, Tags: tags, ByHandle: map[string]map[string]string{handle: {"claim": "default/app"}}}
	first, err := csiProvider(t, w).Snapshot(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	p := csiProvider(t, w)
	again, err := p.Snapshot(t.Context(), ask)
	if err != nil || again[0].ID != first[0].ID {
		t.Fatalf("the token gives %v and %v, %v", first, again, err)
	}
	if s := csiCompleted(t, p, first[0].ID); s.Handle != handle || s.SizeBytes < 1<<20 || s.Tags["odd"] != "b*?1" || s.Tags["claim"] != "default/app" || time.Since(s.Started) > time.Hour {
		t.Errorf("described %+v", s)
	}
	if again, err = p.Snapshot(t.Context(), ask); err != nil || again[0].ID != first[0].ID {
		t.Errorf("completed, the token gives %v, %v", again, err)
	}
	if have := folders(t, w, "snapshots"); len(have) != 1 {
		t.Errorf("the driver has %v", have)
	}
	ask.Handles = []string{handle, handle + "x"}
	if _, err := p.Snapshot(t.Context(), ask); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("the token of other volumes gives %v", err)
	}
	if _, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "two", Handles: []string{handle + "x"}}); !errors.Is(err, plugins.ErrVolumeGone) {
		t.Errorf("a volume that is not there gives %v", err)
	}
	if found, err := p.FindSnapshots(t.Context(), map[string]string{"odd": "b"}); err != nil || len(found) > 0 {
		t.Errorf("other tags find %v, %v", found, err)
	}
	if _, err := p.FindSnapshots(t.Context(), nil); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("no tags give %v", err)
	}
	unknown := testbed.CSIDriver + "/never"
	if found, err := p.DescribeSnapshots(t.Context(), []string{unknown, "x/y", "nothing"}); err != nil || len(found) > 0 {
		t.Errorf("described %v, %v of snapshots that never were", found, err)
	}
}

// csiVolume: one token makes one volume, which goes away when nobody names it, and stays, the driver's own, when somebody does.
func csiVolume(t *testing.T, w *world, handle string, pv *corev1.PersistentVolume, tags map[string]string) {
	p := csiProvider(t, w)
	found, err := p.FindSnapshots(t.Context(), tags)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	ask := plugins.VolumeRequest{Token: "volume", SnapshotID: found[0].ID, Tags: map[string]string{"kedge.dev/restore-uid": "r"}, For: pv, Namespace: "default"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err = p.CreateVolume(ctx, ask)
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cut off: %v", err)
	}
	made, err := csiProvider(t, w).CreateVolume(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.CreateVolume(t.Context(), ask)
	if err != nil || again.Handle != made.Handle || made.Handle == handle {
		t.Errorf("the token gives %s and %s, %v", made.Handle, again.Handle, err)
	}
	volumes, err := p.FindVolumes(t.Context(), ask.Tags)
	if err != nil || len(volumes) != 1 || volumes[0].Handle != made.Handle {
		t.Fatalf("found %v, %v", volumes, err)
	}
	bound := pv.DeepCopy()
	if err := p.Rebind(bound, made); err != nil {
		t.Fatal(err)
	}
	if got, ok := p.Handle(bound); !ok || got != made.Handle || bound.Name != pv.Name || bound.Spec.NodeAffinity == nil {
		t.Errorf("rebound to %q: %+v", got, bound.Spec)
	}
	if err := p.DeleteVolume(t.Context(), handle); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a volume that Kedge did not make: %v", err)
	}
	bound.ObjectMeta = metav1.ObjectMeta{Name: "restored"}
	bound.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "restored"}
	if _, err := w.clients.CoreV1().PersistentVolumes().Create(t.Context(), bound, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.DeleteVolume(t.Context(), made.Handle); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a volume that a PersistentVolume names: %v", err)
	}
	if err := p.Release(t.Context(), ask.Tags); err != nil {
		t.Fatal(err)
	}
	if volumes, err := p.FindVolumes(t.Context(), ask.Tags); err != nil || len(volumes) > 0 {
		t.Errorf("after the release: %v, %v", volumes, err)
	}
	_, id, _ := strings.Cut(made.Handle, "/")
	if have := folders(t, w, "volumes"); len(have) != 2 || !slices.Contains(have, id) {
		t.Errorf("the driver has %v, without %s?", have, id)
	}
	ask.Token, ask.SnapshotID, ask.SizeBytes = "empty", "", 1<<20
	empty, err := p.CreateVolume(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.DeleteVolume(t.Context(), empty.Handle); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if have := folders(t, w, "volumes"); len(have) != 2 {
		t.Errorf("the driver has %v", have)
	}
	ask.Token, ask.SnapshotID = "never", testbed.CSIDriver+"/never"
	if _, err := p.CreateVolume(t.Context(), ask); !errors.Is(err, plugins.ErrVolumeGone) {
		t.Errorf("a volume of a snapshot that never was: %v", err)
	}
}
