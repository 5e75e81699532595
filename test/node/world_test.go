//go:build linux

// Package node_test installs Kedge on a cluster with a real node, and has real pods' data backed up and restored by real movers.
package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"kedge.dev/kedge/test/testbed"
)

// The images of these tests. No registry has them.
const (
	appImage   = "registry.example/app:test"
	kedgeImage = "registry.example/kedge:test"
)

// Programs that are built once: kedge as it is released, and the application.
var kedgeBinary, appBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kedge-node-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		kedgeBinary, appBinary = filepath.Join(dir, "kedge"), filepath.Join(dir, "app")
		for binary, pkg := range map[string]string{kedgeBinary: "kedge.dev/kedge/cmd/kedge", appBinary: "kedge.dev/kedge/test/node/app"} {
			build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, pkg)
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// world is a cluster with a node that has the application's image.
type world struct {
	cluster *testbed.Cluster
	clients *kubernetes.Clientset
}

func newWorld(t *testing.T, opts ...testbed.ClusterOption) *world {
	t.Helper()
	w := &world{cluster: testbed.NewCluster(t, "1.36.3", append(opts, testbed.WithNode())...)}
	var err error
	if w.clients, err = kubernetes.NewForConfig(w.cluster.Master()); err != nil {
		t.Fatal(err)
	}
	app := testbed.Image{Name: appImage, Files: map[string]string{"/app": appBinary}, Entrypoint: []string{"/app"}}
	if err := w.cluster.Node().Import(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	return w
}

// ready waits until a pod is.
func (w *world) ready(t *testing.T, namespace, name string) {
	t.Helper()
	w.until(t, "pod "+namespace+"/"+name+" is ready", func(ctx context.Context) (bool, string) {
		pod, err := w.clients.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return podReady(pod), state(pod)
	})
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// state says how far a pod is.
func state(pod *corev1.Pod) string {
	text := fmt.Sprintf("%s %s %s", pod.Name, pod.Status.Phase, pod.Status.Message)
	for _, c := range pod.Status.ContainerStatuses {
		text += fmt.Sprintf("; %s: waiting %v, terminated %v", c.Name, c.State.Waiting, c.State.Terminated)
	}
	return text
}

// patience is how long something may take that takes a second on a machine with nothing else to do.
const patience = 2 * time.Minute

// until waits for a condition; what it says is shown where it does not come.
func (w *world) until(t *testing.T, what string, condition func(context.Context) (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		done, said := condition(ctx)
		if done {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it did not happen in %s that %s: %s%s", patience, what, said, w.events())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// events are the warnings in the cluster, for the messages of failures.
func (w *world) events() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := w.clients.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "\n" + err.Error()
	}
	text := ""
	for _, e := range list.Items {
		if e.Type == corev1.EventTypeWarning {
			text += fmt.Sprintf("\n%s %s/%s: %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Namespace, e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
	return text
}

// exec runs a command in a pod's first container and gives what it prints.
func (w *world) exec(t *testing.T, namespace, pod string, stdin io.Reader, command ...string) string {
	t.Helper()
	target := w.clients.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdin: stdin != nil, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(w.cluster.Master(), "GET", target.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: stdin, Stdout: &stdout, Stderr: &stderr}); err != nil {
		t.Fatalf("run %q in pod %s/%s: %v\n%s", command, namespace, pod, err, stderr.String())
	}
	return stdout.String()
}
