//go:build linux

package node_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/test/testbed"
)

// shop is an application of a database with a claim of its own on a disk of the node, and of two pods that share one claim.
const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: disks
  local: {path: DISK}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [NODE]}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: shared}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: folders
  hostPath: {path: SHARED, type: Directory}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared, namespace: shop}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: folders
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: POD
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: disks, resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: shop}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: POD
      volumes: [{name: data, persistentVolumeClaim: {claimName: shared}}]
`

// shopPod is what the pods of both have in common.
const shopPod = `
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: IMAGE
        imagePullPolicy: Never
        args: [hold, /data, $(NAME)]
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {exec: {command: [/app, filled, /data]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
`

// shopWorld is a cluster in which Kedge and the shop run.
type shopWorld struct {
	*installed
	disk, shared string // the folders of its volumes
}

func openShop(t *testing.T, opts ...testbed.ClusterOption) *shopWorld {
	t.Helper()
	w := &shopWorld{installed: install(t, opts...), disk: t.TempDir(), shared: t.TempDir()}
	manifests := strings.ReplaceAll(shop, " POD\n", shopPod)
	err := w.cluster.ApplyYAML(t.Context(), strings.NewReplacer("DISK", w.disk, "SHARED", w.shared, "NODE", w.cluster.Node().Name, "IMAGE", appImage).Replace(manifests))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var shopPods = []string{"db-0", "web-0", "web-1"}

// trees are what pods of the shop see of their data.
func (w *shopWorld) trees(t *testing.T, pods ...string) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, pod := range pods {
		w.ready(t, "shop", pod)
		tree := map[string]string{}
		if err := json.Unmarshal([]byte(w.exec(t, "shop", pod, nil, "/app", "tree", "/data")), &tree); err != nil {
			t.Fatal(err)
		}
		out[pod] = tree
	}
	return out
}

// lose removes the shop, its volumes and all that is in them.
func (w *shopWorld) lose(t *testing.T) {
	t.Helper()
	if err := w.clients.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the namespace is gone", func(ctx context.Context) (bool, string) {
		_, err := w.clients.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		return apierrors.IsNotFound(err), "it is still there"
	})
	for _, name := range []string{"disk", "shared"} {
		if err := w.clients.CoreV1().PersistentVolumes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{w.disk, w.shared} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d entries in %s before the loss, %v", len(entries), dir, err)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// leftovers fails the test where something of a mover is left in the cluster.
func (w *shopWorld) leftovers(t *testing.T) {
	t.Helper()
	w.until(t, "nothing of the movers is left", func(ctx context.Context) (bool, string) {
		options := metav1.ListOptions{LabelSelector: "kedge.dev/mover"}
		jobs, err := w.clients.BatchV1().Jobs(moverNamespace).List(ctx, options)
		if err != nil {
			return false, err.Error()
		}
		claims, err := w.clients.CoreV1().PersistentVolumeClaims(moverNamespace).List(ctx, options)
		if err != nil {
			return false, err.Error()
		}
		volumes, err := w.clients.CoreV1().PersistentVolumes().List(ctx, options)
		if err != nil {
			return false, err.Error()
		}
		data, _ := json.Marshal([]any{jobs.Items, claims.Items, volumes.Items})
		return len(jobs.Items)+len(claims.Items)+len(volumes.Items) == 0, string(data)
	})
}

// TestVolumesOfPods: what pods wrote into a disk of their own and into a shared folder is backed up by movers that the node runs, is lost with the
// application, and comes back equal in every respect, as the pods of the restored application see it.
func TestVolumesOfPods(t *testing.T) {
	w := openShop(t)
	before := w.trees(t, shopPods...)
	for pod, tree := range before {
		if len(tree) < 30 {
			t.Fatalf("%s has %d files only", pod, len(tree))
		}
	}
	w.kedge(t, "backup", "create", "good", "--include-namespaces", "shop", "--volumes", "copy", "--wait")
	w.leftovers(t)
	w.lose(t)
	w.kedge(t, "restore", "create", "back", "--from-backup", "good", "--include-namespaces", "shop", "--wait")
	w.leftovers(t)
	after := w.trees(t, shopPods...)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the restored data is other (-want +got):\n%s", diff)
	}
	for _, pod := range shopPods {
		log, err := w.clients.CoreV1().Pods("shop").GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(t.Context())
		if err != nil || !strings.Contains(string(log), "found /data/"+pod) {
			t.Errorf("%s did not find its data: %q, %v", pod, log, err)
		}
	}
}

// TestMoverIsKilled: a mover's process that is killed while it copies is followed by another, and the backup is whole.
func TestMoverIsKilled(t *testing.T) {
	w := openShop(t)
	file, err := os.Create(filepath.Join(w.disk, "random"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(file, rand.Reader, 512<<20); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	before := w.trees(t, shopPods...)
	backup := w.command(t.Context(), "backup", "create", "good", "--include-namespaces", "shop", "--volumes", "copy", "--wait")
	var said strings.Builder
	backup.Stdout, backup.Stderr = &said, &said
	if err := backup.Start(); err != nil {
		t.Fatal(err)
	}
	killed := w.killMover(t, "shop/data-db-0")
	if err := backup.Wait(); err != nil {
		t.Fatalf("the backup: %v\n%s%s\n%s", err, said.String(), w.events(), w.serverLog())
	}
	t.Logf("killed %s", killed)
	w.leftovers(t)
	w.lose(t)
	w.kedge(t, "restore", "create", "back", "--from-backup", "good", "--include-namespaces", "shop", "--wait")
	if diff := cmp.Diff(before, w.trees(t, shopPods...)); diff != "" {
		t.Errorf("the restored data is other (-want +got):\n%s", diff)
	}
}

// killMover kills the process of the mover of a claim, as the kernel does where memory is short, and waits until the pod is known to have failed by that.
func (w *shopWorld) killMover(t *testing.T, claim string) string {
	t.Helper()
	var pod *corev1.Pod
	w.until(t, "a mover of "+claim+" runs", func(ctx context.Context) (bool, string) {
		pod = w.moverOf(ctx, claim)
		return pod != nil && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Running != nil, "it does not run"
	})
	time.Sleep(500 * time.Millisecond) // it is reading by now
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	if err := syscall.Kill(pidOf(t, id), syscall.SIGKILL); err != nil {
		t.Fatalf("kill the mover: %v", err)
	}
	w.until(t, "the mover is known to have been killed", func(ctx context.Context) (bool, string) {
		got, err := w.clients.CoreV1().Pods(moverNamespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		ended := got.Status.ContainerStatuses[0].State.Terminated
		return ended != nil && ended.ExitCode == 137, state(got)
	})
	return pod.Name
}

func (w *shopWorld) moverOf(ctx context.Context, claim string) *corev1.Pod {
	jobs, err := w.clients.BatchV1().Jobs(moverNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	for _, job := range jobs.Items {
		if job.Annotations["kedge.dev/claim"] != claim {
			continue
		}
		pods, err := w.clients.CoreV1().Pods(moverNamespace).List(ctx, metav1.ListOptions{LabelSelector: "job-name=" + job.Name})
		if err != nil || len(pods.Items) == 0 {
			return nil
		}
		return &pods.Items[0]
	}
	return nil
}
