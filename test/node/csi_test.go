//go:build linux

package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/test/testbed"
)

var (
	volumeSnapshots = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}
	snapshotContent = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotcontents"}
)

// claimAndPod is a claim, and a pod that fills it.
const claimAndPod = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: NAME, namespace: SPACE}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: CLASS
  resources: {requests: {storage: 64Mi}}
  SOURCE
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: SPACE}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: IMAGE
    imagePullPolicy: Never
    args: [hold, /data, NAME]
    env: [{name: NAME, value: NAME}]
    readinessProbe: {exec: {command: [/app, filled, /data]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: NAME}}]
`

func csiManifest(namespace, name, class, source string) string {
	return strings.NewReplacer(
		"{name: NAME, value: NAME}", "{name: NAME, value: "+name+"}", "NAME", name, "SPACE", namespace, "CLASS", class, "IMAGE", appImage, "SOURCE", source,
	).Replace(claimAndPod)
}

// csiControllers: the testbed's CSI driver has made a volume that a pod writes to, the snapshot controller makes a snapshot of it, and the driver a volume
// of that, which another pod reads. In the end only the first is left.
func csiControllers(t *testing.T, w *world) {
	client, err := dynamic.NewForConfig(w.cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, "default", "app", strings.NewReader("before"), "/app", "put", "/data/note")
	err = w.cluster.ApplyYAML(t.Context(), `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: moment, namespace: default}
spec: {volumeSnapshotClassName: csi, source: {persistentVolumeClaimName: app}}
`)
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, "the snapshot is ready", func(ctx context.Context) (bool, string) {
		s, err := client.Resource(volumeSnapshots).Namespace("default").Get(ctx, "moment", metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		ready, _, _ := unstructured.NestedBool(s.Object, "status", "readyToUse")
		return ready, w.cluster.Log("csi-snapshotter", 1000) + w.cluster.Log("snapshot-controller", 1000)
	})
	w.exec(t, "default", "app", strings.NewReader("after"), "/app", "put", "/data/note")
	err = w.cluster.ApplyYAML(t.Context(), csiManifest("default", "second", testbed.CSIWaitClass, "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: moment}"))
	if err != nil {
		t.Fatal(err)
	}
	w.ready(t, "default", "second")
	if got := w.exec(t, "default", "second", nil, "/app", "cat", "/data/note"); got != "before" {
		t.Errorf("the volume of the snapshot has %q", got)
	}
	if err := errors.Join(
		w.clients.CoreV1().Pods("default").Delete(t.Context(), "second", metav1.DeleteOptions{}),
		w.clients.CoreV1().PersistentVolumeClaims("default").Delete(t.Context(), "second", metav1.DeleteOptions{}),
		client.Resource(volumeSnapshots).Namespace("default").Delete(t.Context(), "moment", metav1.DeleteOptions{}),
	); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the driver has one volume and no snapshot", func(context.Context) (bool, string) {
		volumes, snapshots := folders(t, w, "volumes"), folders(t, w, "snapshots")
		return len(volumes) == 1 && len(snapshots) == 0, fmt.Sprint(volumes, snapshots)
	})
}

// csiWorld is a cluster with Kedge and an application whose claim is of a CSI driver with snapshots.
type csiWorld struct {
	*installed
	objects dynamic.Interface
}

func openCSI(t *testing.T) *csiWorld {
	t.Helper()
	w := &csiWorld{installed: install(t, testbed.WithCSI())}
	var err error
	if w.objects, err = dynamic.NewForConfig(w.cluster.Master()); err != nil {
		t.Fatal(err)
	}
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
	if err := w.cluster.ApplyYAML(t.Context(), namespace+csiManifest("shop", "db", testbed.CSIWaitClass, "")); err != nil {
		t.Fatal(err)
	}
	return w
}

// local is a kedge command that works from this machine.
func (w *csiWorld) local(t *testing.T, args ...string) string {
	t.Helper()
	cmd := w.command(t.Context(), args...)
	cmd.Env = append(cmd.Env, "KEDGE_LOCAL=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kedge %s: %v\n%s%s\n%s\n%s\n%s", strings.Join(args, " "), err, out, w.events(), w.state(t),
			w.cluster.Log("csi-snapshotter", 3000), w.cluster.Log("snapshot-controller", 3000))
	}
	return string(out)
}

// state is what there is of snapshots and volumes, for the messages of failures.
func (w *csiWorld) state(t *testing.T) string {
	t.Helper()
	text := ""
	for _, r := range []schema.GroupVersionResource{volumeSnapshots, snapshotContent, {Version: "v1", Resource: "persistentvolumes"}, {Version: "v1", Resource: "persistentvolumeclaims"}} {
		list, err := w.objects.Resource(r).List(context.WithoutCancel(t.Context()), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		for i := range list.Items {
			unstructured.RemoveNestedField(list.Items[i].Object, "metadata", "managedFields")
			data, _ := json.Marshal(list.Items[i].Object)
			text += string(data) + "\n"
		}
	}
	return text
}

func (w *csiWorld) tree(t *testing.T) map[string]string {
	t.Helper()
	w.ready(t, "shop", "db")
	tree := map[string]string{}
	if err := json.Unmarshal([]byte(w.exec(t, "shop", "db", nil, "/app", "tree", "/data")), &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// has waits until the driver has so many volumes and snapshots, and the cluster so many contents, all of which are Kedge's and none of which is
// bound to a VolumeSnapshot.
func (w *csiWorld) has(t *testing.T, volumes, snapshots int) {
	t.Helper()
	w.until(t, fmt.Sprintf("there are %d volumes and %d snapshots", volumes, snapshots), func(ctx context.Context) (bool, string) {
		count := map[string]int{}
		for _, kind := range []string{"volumes", "snapshots"} {
			entries, _ := os.ReadDir(w.cluster.Node().CSIFolders(kind))
			for _, e := range entries {
				if e.IsDir() {
					count[kind]++
				}
			}
		}
		asked, err := w.objects.Resource(volumeSnapshots).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		kept, err := w.objects.Resource(snapshotContent).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		helpers := 0
		for _, resource := range []string{"persistentvolumes", "persistentvolumeclaims"} {
			list, err := w.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: resource}).List(ctx, metav1.ListOptions{LabelSelector: "kedge.dev/csi-role"})
			if err != nil {
				return false, err.Error()
			}
			helpers += len(list.Items)
		}
		return count["volumes"] == volumes && count["snapshots"] == snapshots && len(asked.Items) == 0 && len(kept.Items) == snapshots && helpers == 0, fmt.Sprint(count, "\n", w.state(t))
	})
}

// lose removes the application, and with it, by the class's policy, its volume.
func (w *csiWorld) lose(t *testing.T) {
	t.Helper()
	if err := w.clients.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the namespace is gone", func(ctx context.Context) (bool, string) {
		_, err := w.clients.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		return apierrors.IsNotFound(err), "it is still there"
	})
}

// killBackup kills a backup while its snapshot is made.
func (w *csiWorld) killBackup(t *testing.T) {
	t.Helper()
	cmd := w.command(t.Context(), "backup", "create", "killed", "--include-namespaces", "shop", "--volumes", "snapshot")
	cmd.Env = append(cmd.Env, "KEDGE_LOCAL=true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the backup asks for a snapshot", func(ctx context.Context) (bool, string) {
		asked, err := w.objects.Resource(volumeSnapshots).List(ctx, metav1.ListOptions{})
		return err == nil && len(asked.Items) > 0, fmt.Sprint(err)
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestCSISnapshot: a snapshot of a CSI driver outlives the namespace; a restore gives the claim a new volume of it, which the driver owns as it owned
// the first; nothing else is left of either; and the deletion of the backup deletes the snapshot.
func TestCSISnapshot(t *testing.T) {
	w := openCSI(t)
	before := w.tree(t)
	if len(before) < 30 {
		t.Fatalf("there are %d files only", len(before))
	}
	w.killBackup(t)
	w.local(t, "volume", "orphans", "--older-than", "0s", "--delete", "--yes")
	w.has(t, 1, 0)
	w.local(t, "backup", "create", "moment", "--include-namespaces", "shop", "--volumes", "snapshot")
	w.has(t, 1, 1)
	w.exec(t, "shop", "db", strings.NewReader("later"), "/app", "put", "/data/later")
	w.lose(t)
	w.has(t, 0, 1)
	w.local(t, "restore", "create", "again", "--from-backup", "moment", "--include-namespaces", "shop")
	if diff := cmp.Diff(before, w.tree(t)); diff != "" {
		t.Errorf("the restored files differ (-before +after):\n%s", diff)
	}
	w.has(t, 1, 1)
	w.lose(t)
	w.has(t, 0, 1)
	w.local(t, "backup", "delete", "moment", "--yes")
	w.has(t, 0, 0)
}

// copyWithKill makes a backup whose servers are killed when the clone is there. Another one goes on.
func (w *csiWorld) copyWithKill(t *testing.T) {
	t.Helper()
	cmd := w.command(t.Context(), "backup", "create", "copy", "--include-namespaces", "shop", "--volumes", "copy", "--wait")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, "there is a clone", func(ctx context.Context) (bool, string) {
		list, err := w.clients.CoreV1().PersistentVolumeClaims(moverNamespace).List(ctx, metav1.ListOptions{LabelSelector: "kedge.dev/csi-role"})
		return err == nil && len(list.Items) > 0, said.String()
	})
	pods, err := w.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	for i := range pods {
		if err := w.clients.CoreV1().Pods(kedgeNamespace).Delete(t.Context(), pods[i].Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the backup after the kill: %v\n%s%s\n%s", err, said.String(), w.serverLog(), w.state(t))
	}
}

// TestCSICopy: what goes into the location is of one moment, read from a clone of a snapshot, neither of which is left; the claim gets a new volume with
// these files though the driver has nothing of the old one any more. That is so though the servers are killed while the files are copied. A backup with both has both, and the copy serves where the snapshot is gone.
func TestCSICopy(t *testing.T) {
	w := openCSI(t)
	before := w.tree(t)
	w.copyWithKill(t)
	w.has(t, 1, 0)
	w.kedge(t, "backup", "create", "both", "--include-namespaces", "shop", "--volumes", "both", "--wait")
	w.has(t, 1, 1)
	w.lose(t)
	w.has(t, 0, 1)
	w.kedge(t, "restore", "create", "from-copy", "--from-backup", "copy", "--include-namespaces", "shop", "--wait")
	if diff := cmp.Diff(before, w.tree(t)); diff != "" {
		t.Errorf("the files of the copy differ (-before +after):\n%s", diff)
	}
	w.has(t, 1, 1)
	w.lose(t)
	w.removeSnapshots(t)
	w.kedge(t, "restore", "create", "from-both", "--from-backup", "both", "--include-namespaces", "shop", "--wait")
	if diff := cmp.Diff(before, w.tree(t)); diff != "" {
		t.Errorf("the files of the other copy differ (-before +after):\n%s", diff)
	}
}

// removeSnapshots has the storage lose its snapshots.
func (w *csiWorld) removeSnapshots(t *testing.T) {
	t.Helper()
	dir := w.cluster.Node().CSIFolders("snapshots")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("no snapshots are in %s: %v", dir, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}
