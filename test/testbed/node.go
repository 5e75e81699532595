//go:build unix

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	nodeName = "node-1"
	// nodeAddress is the node's own, which pods reach, and nobody outside of the node's network.
	nodeAddress = "192.0.2.20"
	// oldestNode is the first minor version whose kubelet takes the configuration that nodes get here.
	oldestNode = 31
	// nodeGrace is how long a node gets to take its cgroups away with it.
	nodeGrace = 15 * time.Second
)

// ErrNoNode means that this machine cannot run a node; the text around it says why.
var ErrNoNode = errors.New("this machine cannot run a node")

// WithNode gives the cluster a machine that runs pods: containerd, a kubelet and a scheduler, for real. It needs root on Linux and Debian's
// package tools, else the start fails with [ErrNoNode].
func WithNode() ClusterOption { return func(o *clusterOptions) { o.withNode = true } }

// Node runs the pods of a cluster. Its processes, mounts, network and host name are its own: on the machine it leaves nothing but files in the
// cluster's folder, and cgroups named kedge-testbed-*, which the next node removes where a kill left some.
//
// Pods reach each other, the API server (as the service "kubernetes", by address) and what [Node.Reach] shows them. There is no name service, no
// proxy for other services, nothing that enforces NetworkPolicies, and no way out.
type Node struct {
	// Name is the Node object's.
	Name string

	cluster  *Cluster
	programs machinePrograms
	dir      string
	process  *process
	// controllers are those of CSI, where the node has a driver.
	controllers []*process

	mu      sync.Mutex
	reached map[string]string // by address of this machine, that of the node
}

// Node is the cluster's; nil where it was started without.
func (c *Cluster) Node() *Node { return c.node }

// insideConfig is that of a client in the node's network.
func (c *Cluster) insideConfig(token string) *rest.Config {
	cfg := c.config(token)
	cfg.Host = "https://" + apiServiceAddress
	return cfg
}

// canRunNode says why this machine cannot.
func canRunNode(minor int) error {
	switch {
	case runtime.GOOS != "linux":
		return fmt.Errorf("%w: it takes Linux, and this is %s", ErrNoNode, runtime.GOOS)
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: it takes root, and this is user %d", ErrNoNode, os.Geteuid())
	case minor < oldestNode:
		return fmt.Errorf("%w of Kubernetes 1.%d: it takes 1.%d or later", ErrNoNode, minor, oldestNode)
	}
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: containerd comes from Debian's packages, and there is no %s", ErrNoNode, tool)
		}
	}
	return nil
}

// startNode starts the scheduler and the node, and returns when pods can run.
func (c *Cluster) startNode(ctx context.Context, programs machinePrograms) error {
	scheduler, err := c.start("kube-scheduler", programs.scheduler, "--kubeconfig="+c.files("scheduler.kubeconfig"),
		"--authentication-kubeconfig="+c.files("scheduler.kubeconfig"), "--authorization-kubeconfig="+c.files("scheduler.kubeconfig"),
		"--secure-port=0", "--leader-elect=false", "--profiling=false", "--kube-api-qps=500", "--kube-api-burst=1000")
	if err != nil {
		return err
	}
	n := &Node{Name: nodeName, cluster: c, programs: programs, dir: filepath.Join(c.dir, "node")}
	if err := n.writeFiles(); err != nil {
		return fmt.Errorf("set up the node: %w", err)
	}
	if n.process, err = c.start("node", programs.node, "outside", n.file("settings.json")); err != nil {
		return err
	}
	c.node = n
	if err := n.answers(ctx, "containerd.sock"); err != nil {
		return err
	}
	sandbox := Image{Name: sandboxImage, Files: map[string]string{"/node": programs.node}, Entrypoint: []string{"/node", "pause"}}
	if err := n.Import(ctx, sandbox); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	return waitReady(ctx, "the node", func(ctx context.Context) error { return nodeReady(ctx, clients) }, n.process, scheduler)
}

// nodeReady succeeds when the node takes pods.
func nodeReady(ctx context.Context, clients kubernetes.Interface) error {
	node, err := clients.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("it has taints: %v", node.Spec.Taints)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("it is not ready: %s", condition.Message)
		}
	}
	return errors.New("it says nothing of itself")
}

// Reach lets pods connect to a server of this machine's loopback interface ("127.0.0.1:7070"), and gives the address by which they do.
func (n *Node) Reach(ctx context.Context, address string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if inside := n.reached[address]; inside != "" {
		return inside, nil
	}
	inside, err := n.reach(ctx, address)
	if err != nil {
		return "", fmt.Errorf("show %s to pods: %w", address, err)
	}
	if n.reached == nil {
		n.reached = map[string]string{}
	}
	n.reached[address] = inside
	return inside, nil
}

func (n *Node) reach(ctx context.Context, address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	inside := net.JoinHostPort(nodeAddress, port)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.file("node.sock"))
	}}}
	defer client.CloseIdleConnections()
	query := url.Values{"by": {n.file("host.sock")}, "from": {inside}, "to": {address}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/forward?"+query.Encode(), nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return "", errors.New(strings.TrimSpace(string(text)))
	}
	return inside, nil
}

// Import gives the node an image, so that pods with pull policy Never or IfNotPresent can use it.
func (n *Node) Import(ctx context.Context, image Image) error {
	file, err := os.CreateTemp(n.dir, "image-*.tar")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	err = image.write(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("make image %s: %w", image.Name, err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(n.programs.debian, "usr/bin/ctr"),
		"--address", n.file("containerd.sock"), "--namespace", "k8s.io", "images", "import", file.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import image %s: %w\n%s", image.Name, err, out)
	}
	return nil
}

// end tells the node to end, so that it can remove its cgroups.
func (n *Node) end() {
	select {
	case <-n.process.done: // its id may be another's by now
		return
	default:
	}
	_ = syscall.Kill(n.process.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-n.process.done:
	case <-time.After(nodeGrace):
	}
}

func (n *Node) file(name string) string { return filepath.Join(n.dir, name) }

// writeFiles writes all that the node's programs read.
func (n *Node) writeFiles() error {
	settings, err := json.MarshalIndent(n.settings(), "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{
		"settings.json": string(settings), "containerd.toml": n.containerdConfig(), "kubelet.yaml": n.kubeletConfig(),
		"cni/10-pods.conflist": n.networkConfig(), "resolv.conf": "# There is no name service.\n",
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(n.file(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(n.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
