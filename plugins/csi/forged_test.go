package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/testbed"
)

// world is a real API server that knows snapshots, without controllers of them: tests write what these would. Its clock goes on where somebody waits.
type world struct {
	*Provider
	cluster *testbed.Cluster
	now     time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cluster: testbed.SharedCluster(t, "1.36.3"), now: time.Now()}
	for kind, scope := range map[string]string{"VolumeSnapshot": "Namespaced", "VolumeSnapshotContent": "Cluster", "VolumeSnapshotClass": "Cluster"} {
		plural := strings.ToLower(kind) + "s"
		if kind == "VolumeSnapshotClass" {
			plural = "volumesnapshotclasses"
		}
		w.apply(t, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %s.%s, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: %[2]s
  scope: %s
  names: {kind: %s, plural: %[1]s, singular: %[5]s, listKind: %[4]sList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, plural, snapshotGroup, scope, kind, strings.ToLower(kind)))
	}
	w.apply(t, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: d}, driver: d, deletionPolicy: Delete}`)
	client, err := kube.New(w.cluster.Master(), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Provider = New(t.Context(), client, Options{
		Now:   func() time.Time { return w.now },
		Sleep: func(ctx context.Context, d time.Duration) error { w.now = w.now.Add(d); return ctx.Err() },
	})
	if !w.Takes() {
		t.Fatal(w.broken)
	}
	return w
}

func (w *world) apply(t *testing.T, manifests ...string) {
	t.Helper()
	if err := w.cluster.ApplyYAML(t.Context(), manifests...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) content(t *testing.T, name string) (c content, there bool) {
	t.Helper()
	err := w.get(t.Context(), contents.Path("", name), &c)
	if unlessGone(err) != nil {
		t.Fatal(err)
	}
	return c, err == nil
}

// policies wants a PersistentVolume and a content to be as they were.
func (w *world) untouched(t *testing.T, pv, name string) {
	t.Helper()
	var have corev1.PersistentVolume
	if err := w.get(t.Context(), volumes.Path("", pv), &have); err != nil || have.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || have.Labels[LabelRole] != "" {
		t.Errorf("PersistentVolume %s has policy %s and labels %v, %v", pv, have.Spec.PersistentVolumeReclaimPolicy, have.Labels, err)
	}
	if c, there := w.content(t, name); !there || c.Spec.Policy != policyRetain || c.Metadata.DeletionTimestamp != nil {
		t.Errorf("content %s is there: %v, with policy %s", name, there, c.Spec.Policy)
	}
}

const forged = `labels: {kedge.dev/csi-role: %s, kedge.dev/csi-token: %s}, annotations: {kedge.dev/csi-tags: '{"kedge.dev/backup-uid":"u"}'}`

// TestForged has a tenant make a claim and VolumeSnapshots as Kedge makes them. They name what is not the tenant's, which nobody touches.
func TestForged(t *testing.T) {
	w := newWorld(t)
	tags := map[string]string{"kedge.dev/backup-uid": "u"}
	req := plugins.VolumeRequest{Token: "restore", Namespace: "tenant", SizeBytes: 1 << 20, For: &corev1.PersistentVolume{}}
	req.For.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d"}
	name := nameOf(req.Token, "volume")
	helper := fmt.Sprintf(forged, RoleHelper, digest(req.Token))
	w.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: tenant}}`,
		`{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: d}, provisioner: d}`,
		`{apiVersion: v1, kind: PersistentVolume, metadata: {name: victim}, spec: {storageClassName: d, capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, csi: {driver: d, volumeHandle: victim}}}`,
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: %s}, spec: {driver: d, deletionPolicy: Retain, source: {snapshotHandle: other}, volumeSnapshotRef: {namespace: other, name: other}}}`, name),
		fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {namespace: tenant, name: %s, %s}, spec: {storageClassName: d, volumeName: victim, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`, name, helper),
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {namespace: tenant, name: %s, %s}, spec: {source: {volumeSnapshotContentName: %[1]s}}}`, name, helper),
	)
	for range 200 {
		var claim corev1.PersistentVolumeClaim
		if err := w.get(t.Context(), claims.Path("tenant", name), &claim); err != nil {
			t.Fatal(err)
		} else if claim.Status.Phase == corev1.ClaimBound {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if found, err := w.FindVolumes(t.Context(), tags); err != nil || len(found) > 0 {
		t.Errorf("found volumes %v, %v", found, err)
	}
	if found, err := w.FindSnapshots(t.Context(), tags); err != nil || len(found) > 0 {
		t.Errorf("found snapshots %v, %v", found, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
		w.untouched(t, "victim", name)
	}
	refused("delete the claim", w.DeleteVolume(t.Context(), idClaim+"tenant/"+name))
	refused("delete the source", w.DeleteSnapshot(t.Context(), idHelper+"tenant/"+name))
	_, err := w.CreateVolume(t.Context(), req)
	refused("take the claim for one's own", err)

	// Also where Kedge has a content of that name, the PersistentVolume was not made for the claim.
	patch := fmt.Sprintf(`{"metadata": {"labels": {"kedge.dev/csi-role": %q, "kedge.dev/csi-token": %q}}, "spec": {"volumeSnapshotRef": {"namespace": "tenant", "name": %q}}}`, RoleHelper, digest(req.Token), name)
	if err := w.patch(t.Context(), contents.Path("", name), json.RawMessage(patch)); err != nil {
		t.Fatal(err)
	}
	refused("delete the claim with a content", w.DeleteVolume(t.Context(), idClaim+"tenant/"+name))
}

// TestForgedSnapshot: neither is a content that a VolumeSnapshot names deleted, nor taken for the snapshot of a volume, unless it was made for them.
func TestForgedSnapshot(t *testing.T) {
	w := newWorld(t)
	pv := &corev1.PersistentVolume{}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "mine"}
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "tenant2", Name: "app"}
	req := &plugins.SnapshotRequest{Token: "backup", Handles: []string{"d/mine"}}
	name := nameOf(req.Token, "d/mine")
	w.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: tenant2}}`,
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: elses}, spec: {driver: d, deletionPolicy: Retain, source: {volumeHandle: mine}, volumeSnapshotRef: {namespace: tenant2, name: %s, uid: other}}, status: {snapshotHandle: theirs}}`, name),
		fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {namespace: tenant2, name: %s, %s}, spec: {source: {persistentVolumeClaimName: app}}, status: {boundVolumeSnapshotContentName: elses}}`, name, fmt.Sprintf(forged, RoleSnapshot, digest(req.Token))),
	)
	if made, err := w.moment(t.Context(), req, pv, name); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("somebody else's content is %v, %v", made, err)
	}
	var s snapshot
	if err := w.get(t.Context(), snapshots.Path("tenant2", name), &s); err != nil {
		t.Fatal(err)
	}
	other := &content{Spec: contentSpec{Source: contentSource{Volume: "mine"}, Ref: map[string]any{"namespace": "tenant2", "name": name, "uid": string(s.Metadata.UID)}}}
	if !other.isOf(&s) {
		t.Error("the content that was made for a VolumeSnapshot is not taken for it")
	}
	if err := w.DeleteSnapshot(t.Context(), idPending+"tenant2/"+name); err != nil {
		t.Error(err)
	}
	if c, there := w.content(t, "elses"); !there || c.Spec.Policy != policyRetain {
		t.Errorf("somebody else's content is there: %v, with policy %s", there, c.Spec.Policy)
	}
}

// TestProvisionedFor: a PersistentVolume that was there before its claim, or is another claim's, was not made for it.
func TestProvisionedFor(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{}
	claim.UID = "c"
	claim.CreationTimestamp.Time = time.Unix(100, 0)
	for want, change := range map[string]func(*corev1.PersistentVolume){
		"true":   func(*corev1.PersistentVolume) {},
		"false":  func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.UID = types.UID("d") },
		"false ": func(pv *corev1.PersistentVolume) { pv.CreationTimestamp.Time = time.Unix(99, 0) },
		" false": func(pv *corev1.PersistentVolume) { pv.Annotations[boundByController] = "yes" },
		"false.": func(pv *corev1.PersistentVolume) { delete(pv.Annotations, provisionedBy) },
	} {
		pv := &corev1.PersistentVolume{}
		pv.Annotations, pv.CreationTimestamp.Time = map[string]string{provisionedBy: "d"}, time.Unix(100, 0)
		pv.Spec.CSI, pv.Spec.ClaimRef = &corev1.CSIPersistentVolumeSource{}, &corev1.ObjectReference{UID: "c"}
		if change(pv); fmt.Sprint(provisionedFor(pv, claim)) != strings.Trim(want, " .") {
			t.Errorf("%s: %+v", want, pv)
		}
	}
}
