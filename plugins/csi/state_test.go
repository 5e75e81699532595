package csi

import (
	"fmt"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
)

// keptManifests are a snapshot that is kept, and what it was made by.
func keptManifests(name, status string) []string {
	return []string{
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: kedge-%s, labels: {kedge.dev/csi-role: snapshot, kedge.dev/csi-token: %[1]s}, annotations: {kedge.dev/csi-made-as: default/made-%[1]s, kedge.dev/csi-volume: d/v}},
spec: {driver: d, deletionPolicy: Retain, source: {snapshotHandle: %[1]s}, volumeSnapshotRef: {namespace: kedge-snapshots, name: kedge-%[1]s}}, status: {readyToUse: true}}`, name),
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: made-%s}, spec: {driver: d, deletionPolicy: Delete, source: {volumeHandle: v}, volumeSnapshotRef: {}}, status: %s}`, name, status),
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {namespace: default, name: kedge-%s, finalizers: [snapshot.storage.kubernetes.io/stuck], labels: {kedge.dev/csi-role: snapshot, kedge.dev/csi-token: %[1]s}}, spec: {source: {persistentVolumeClaimName: app}}}`, name),
	}
}

// TestNeverReady: a snapshot of which the driver complains for long, or nothing is heard, fails; one that is ready is completed, though what it was made
// by cannot be removed.
func TestNeverReady(t *testing.T) {
	w := newWorld(t)
	for name, status := range map[string]string{"bad": "{readyToUse: false, error: {message: the array is on fire}}", "mute": "{readyToUse: false}", "good": "{readyToUse: true}"} {
		w.apply(t, keptManifests(name, status)...)
	}
	look := func(want string) {
		t.Helper()
		have, err := w.DescribeSnapshots(t.Context(), []string{"d/bad", "d/mute", "d/good"})
		if got := fmt.Sprint(have["d/bad"].State, have["d/mute"].State, have["d/good"].State); err != nil || got != want {
			t.Errorf("after %s: %s, %v: %q, %q", w.now, got, err, have["d/bad"].Message, have["d/mute"].Message)
		}
	}
	states := func(bad, mute plugins.SnapshotState) string { return fmt.Sprint(bad, mute, plugins.SnapshotCompleted) }
	look(states(plugins.SnapshotPending, plugins.SnapshotPending))
	w.now = w.now.Add(20 * time.Minute)
	look(states(plugins.SnapshotPending, plugins.SnapshotPending))
	w.now = w.now.Add(11 * time.Minute)
	look(states(plugins.SnapshotFailed, plugins.SnapshotPending))
	w.now = w.now.Add(stuckTime)
	look(states(plugins.SnapshotFailed, plugins.SnapshotFailed))
	if c, there := w.content(t, "made-good"); !there || c.Spec.Policy != policyRetain {
		t.Errorf("what the snapshot was made by is there: %v, with policy %s", there, c.Spec.Policy)
	}
	for _, name := range []string{"bad", "mute", "good"} {
		if err := w.patch(t.Context(), snapshots.Path("default", "kedge-"+name), map[string]any{"metadata": map[string]any{"finalizers": nil}}); err != nil {
			t.Fatal(err)
		}
	}
	look(states(plugins.SnapshotFailed, plugins.SnapshotFailed))
	if _, there := w.content(t, "made-good"); there {
		t.Error("what the snapshot was made by is not removed by the next look")
	}
}

// TestHelperIsYoung: what a restore makes of an old snapshot is as old as the restore.
func TestHelperIsYoung(t *testing.T) {
	w := newWorld(t)
	w.apply(t, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: kedge-young, labels: {kedge.dev/csi-role: helper}, annotations: {kedge.dev/csi-tags: '{"young":"1"}'}}, spec: {driver: d, deletionPolicy: Retain, source: {snapshotHandle: old}, volumeSnapshotRef: {namespace: default, name: kedge-young}}, status: {creationTime: 1000000000}}`)
	found, err := w.FindSnapshots(t.Context(), map[string]string{"young": "1"})
	if err != nil || len(found) != 1 || time.Since(found[0].Started) > time.Hour {
		t.Errorf("found %+v, %v", found, err)
	}
}
