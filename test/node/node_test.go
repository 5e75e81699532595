//go:build linux

package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodsRun: the node runs a pod of one of our images, with a folder of the machine mounted; commands run in it, its log can be read, it reaches
// the API server as itself, and nothing of it is mounted on this machine.
func TestPodsRun(t *testing.T) {
	w := newWorld(t)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "from-machine"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := w.cluster.ApplyYAML(t.Context(), strings.NewReplacer("FOLDER", folder, "IMAGE", appImage).Replace(guest))
	if err != nil {
		t.Fatal(err)
	}
	w.ready(t, "default", "guest")
	if got := w.exec(t, "default", "guest", nil, "/app", "cat", "/data/from-machine"); got != "hello" {
		t.Errorf("the pod reads %q", got)
	}
	w.exec(t, "default", "guest", strings.NewReader("and back"), "/app", "put", "/data/from-pod")
	if got, err := os.ReadFile(filepath.Join(folder, "from-pod")); err != nil || string(got) != "and back" {
		t.Errorf("the pod wrote %q, %v", got, err)
	}
	log, err := w.clients.CoreV1().Pods("default").GetLogs("guest", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || !strings.Contains(string(log), "filled /data/made") {
		t.Errorf("its log is %q, %v", log, err)
	}
	if ca := w.exec(t, "default", "guest", nil, "/app", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"); ca != string(w.cluster.CA) {
		t.Errorf("its authority of the API server is %q", ca)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	pod, err := w.clients.CoreV1().Pods("default").Get(t.Context(), "guest", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), string(pod.UID)) {
		t.Errorf("mounts of the pod are seen on the machine:\n%s", mounts)
	}
}

// guest is a pod that writes to a folder of the machine.
const guest = `
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: default}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: IMAGE
    imagePullPolicy: Never
    args: [hold, /data, made]
    env: [{name: NAME, value: made}]
    readinessProbe: {exec: {command: [/app, filled, /data]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, hostPath: {path: FOLDER, type: Directory}}]
`

// TestNodeRestarts: a pod runs again on a node that has lost its power, and finds what it had written.
func TestNodeRestarts(t *testing.T) {
	w := newWorld(t)
	err := w.cluster.ApplyYAML(t.Context(), strings.NewReplacer("FOLDER", t.TempDir(), "IMAGE", appImage).Replace(guest))
	if err != nil {
		t.Fatal(err)
	}
	w.ready(t, "default", "guest")
	for restarts := range int32(2) {
		if err := w.cluster.Node().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.until(t, "the pod runs again", func(ctx context.Context) (bool, string) {
			pod, err := w.clients.CoreV1().Pods("default").Get(ctx, "guest", metav1.GetOptions{})
			if err != nil {
				return false, err.Error()
			}
			return podReady(pod) && pod.Status.ContainerStatuses[0].RestartCount > restarts, state(pod)
		})
	}
	log, err := w.clients.CoreV1().Pods("default").GetLogs("guest", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || !strings.Contains(string(log), "found /data/made") {
		t.Errorf("its log is %q, %v", log, err)
	}
}
