//go:build unix

package podrunner

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Kubelet is a node whose pods run nothing by themselves, but in which commands can be run through the API server: as processes of this machine, each
// in its pod's folder.
type Kubelet struct {
	// Node is the node's name.
	Node string

	clients kubernetes.Interface
	dir     string

	mu   sync.Mutex
	ran  []Command
	busy sync.WaitGroup
}

// Command is one that was run in a pod.
type Command struct {
	Namespace, Pod, Container string
	Argv                      []string
}

// StartKubelet makes a node, until the test ends.
func StartKubelet(t testing.TB, clients kubernetes.Interface, name string) *Kubelet {
	t.Helper()
	k := &Kubelet{Node: name, clients: clients, dir: t.TempDir()}
	server := httptest.NewTLSServer(k)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		k.busy.Wait()
	})
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, portText, err := net.SplitHostPort(address.Host)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(portText, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := clients.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error { // controllers look after nodes too
		return k.register(ctx, host, int32(port))
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// register writes the node's status.
func (k *Kubelet) register(ctx context.Context, host string, port int32) error {
	node, err := k.clients.CoreV1().Nodes().Get(ctx, k.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = port
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
	_, err = k.clients.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// Run makes a pod on the node and says that it runs. The pod may lack everything but its name and namespace.
func (k *Kubelet) Run(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "main"}}
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Image = "registry.example/app:1"
	}
	pod.Spec.NodeName = k.Node
	pod.Spec.AutomountServiceAccountToken = new(false)
	var made *corev1.Pod
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(lookEvery) { // the namespace's service account may be on its way
		var err error
		if made, err = k.clients.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	var running *corev1.Pod
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		fresh, err := k.clients.CoreV1().Pods(made.Namespace).Get(t.Context(), made.Name, metav1.GetOptions{})
		if err == nil {
			running, err = k.started(t.Context(), fresh)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return running
}

// started says that a pod runs, and gives it a folder.
func (k *Kubelet) started(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if err := os.MkdirAll(k.Folder(pod.Namespace, pod.Name), 0o700); err != nil {
		return nil, err
	}
	s := &pod.Status
	s.Phase = corev1.PodRunning
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, State: state, Ready: true})
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	return k.clients.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

// Take schedules the pods of a namespace that nobody has, says that they run, and lets go of those that are deleted, until the test ends.
func (k *Kubelet) Take(t testing.TB, namespace string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; ctx.Err() == nil; sleep(ctx, lookEvery) {
			pods, err := k.clients.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for i := range pods.Items {
				k.take(ctx, &pods.Items[i])
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// take brings a pod a step further. What fails is tried again at the next look.
func (k *Kubelet) take(ctx context.Context, pod *corev1.Pod) {
	switch {
	case pod.Spec.NodeName == "":
		_ = k.clients.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: k.Node},
		}, metav1.CreateOptions{})
	case pod.Spec.NodeName == k.Node && pod.Status.Phase == corev1.PodPending:
		_, _ = k.started(ctx, pod)
	case pod.Spec.NodeName == k.Node && pod.DeletionTimestamp != nil:
		now := int64(0)
		_ = k.clients.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	}
}

// Folder is where a pod's commands run.
func (k *Kubelet) Folder(namespace, pod string) string { return filepath.Join(k.dir, namespace, pod) }

// Ran are the commands that were begun, in their order.
func (k *Kubelet) Ran() []Command {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Command(nil), k.ran...)
}

// ServeHTTP serves what the API server asks of a kubelet for an exec: /exec/<namespace>/<pod>[/<uid>]/<container>.
func (k *Kubelet) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if parts[0] != "exec" || len(parts) != 4 && len(parts) != 5 {
		http.Error(w, "there is only exec here", http.StatusNotFound)
		return
	}
	opts, err := remotecommand.NewOptions(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	k.busy.Add(1)
	defer k.busy.Done()
	c := Command{Namespace: parts[1], Pod: parts[2], Container: parts[len(parts)-1], Argv: req.URL.Query()["command"]}
	const idle, creation = 4 * time.Hour, 30 * time.Second // a kubelet's own
	remotecommand.ServeExec(w, req, runningIn{k, c}, c.Pod, "", c.Container, c.Argv, opts, idle, creation, remotecommand.SupportedStreamingProtocols)
}

// runningIn runs one command; it implements remotecommand.Executor.
type runningIn struct {
	*Kubelet
	Command
}

// ExecInContainer implements remotecommand.Executor. As with a container's runtime, a command whose asker has gone runs on.
func (r runningIn) ExecInContainer(_ context.Context, _, _, _ string, argv []string, _ io.Reader, stdout, stderr io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	r.mu.Lock()
	r.ran = append(r.ran, r.Command)
	r.mu.Unlock()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.Folder(r.Namespace, r.Pod), stdout, stderr
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}
