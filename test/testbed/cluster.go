//go:build unix

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Cluster is a control plane that runs: etcd, an API server, and unless it was started without, a controller manager. It has no
// nodes, so pods stay Pending, unless it was started [WithNode].
type Cluster struct {
	// Version is what was asked for, without "v": "1.36.3".
	Version string
	// Minor is the second number of Version.
	Minor int
	// Name is what kubeconfigs call the cluster.
	Name string
	// URL is the API server's, on 127.0.0.1.
	URL string
	// CA is the authority of the server's certificate, in PEM.
	CA []byte

	dir      string
	node     *Node  // nil where it has none
	token    string // of the master
	opts     clusterOptions
	stopOnce sync.Once

	mu       sync.Mutex
	servers  []*process
	accounts map[string]*rest.Config
	api      *apiClient
}

type clusterOptions struct {
	name          string
	apiFlags      []string
	managerFlags  []string
	noControllers bool
	withNode      bool
	withCSI       bool
}

// ClusterOption changes how a cluster is started.
type ClusterOption func(*clusterOptions)

// Name is what kubeconfigs call the cluster; else "kubernetes-<version>".
func Name(name string) ClusterOption { return func(o *clusterOptions) { o.name = name } }

// APIServerFlags are added to the API server's command line and override what is set already:
// "--enable-admission-plugins=PodSecurityPolicy", "--encryption-provider-config=…".
func APIServerFlags(flags ...string) ClusterOption {
	return func(o *clusterOptions) { o.apiFlags = append(o.apiFlags, flags...) }
}

// ControllerFlags are added to the controller manager's command line: "--controllers=*,-horizontal-pod-autoscaler-controller".
func ControllerFlags(flags ...string) ClusterOption {
	return func(o *clusterOptions) { o.managerFlags = append(o.managerFlags, flags...) }
}

// NoControllers starts no controller manager: nothing changes in the cluster but by requests. Namespaces are then not emptied when
// they are deleted, and pods need a service account that somebody makes.
func NoControllers() ClusterOption { return func(o *clusterOptions) { o.noControllers = true } }

// startTimeout bounds a start; a machine whose processors ten others share takes half of it.
const startTimeout = 5 * time.Minute

// StartCluster starts a control plane of a Kubernetes version ("1.36.3") and returns when it serves and its controllers work. It
// builds the programs first where they are missing, which takes minutes. The caller stops it; it also ends with the process.
func StartCluster(ctx context.Context, version string, opts ...ClusterOption) (*Cluster, error) {
	programs, err := controlPlanePrograms(ctx, version)
	if err != nil {
		return nil, err
	}
	var asked clusterOptions
	for _, opt := range opts {
		opt(&asked)
	}
	if asked.withNode {
		if programs.node, err = nodePrograms(ctx, version); err != nil {
			return nil, err
		}
	}
	if asked.withCSI {
		if programs.node.csi, err = csiPrograms(ctx); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := retryPorts(func() (*Cluster, error) { return startCluster(ctx, version, programs, opts) })
	if err != nil {
		return nil, fmt.Errorf("start kubernetes %s: %w", version, err)
	}
	return c, nil
}

func startCluster(ctx context.Context, version string, programs programs, opts []ClusterOption) (_ *Cluster, err error) {
	version, minor, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Version: version, Minor: minor, token: randomHex(16)}
	c.opts.name = "kubernetes-" + version
	for _, opt := range opts {
		opt(&c.opts)
	}
	c.Name = c.opts.name
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.URL = "https://127.0.0.1:" + strconv.Itoa(port)
	if c.dir, err = workDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if err := c.writeFiles(); err != nil {
		return nil, err
	}
	if err := c.startServers(ctx, programs, port); err != nil {
		return nil, err
	}
	if c.api, err = newAPIClient(c.Master()); err != nil || !c.opts.withNode {
		return c, err
	}
	if err := c.startNode(ctx, programs.node); err != nil || !c.opts.withCSI {
		return c, err
	}
	return c, c.startCSI(ctx)
}

// files is the folder of keys, tokens and kubeconfigs. It is the API server's own, so it goes when that ends.
func (c *Cluster) files(name string) string { return filepath.Join(c.dir, "kube-apiserver", name) }

func (c *Cluster) writeFiles() error {
	if err := os.MkdirAll(c.files(""), 0o700); err != nil {
		return err
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	c.CA = authority.pem
	if err := authority.writeServer(c.files("")); err != nil {
		return err
	}
	if err := authority.writeClient(c.files(""), "kubelet-client", "kube-apiserver", "system:masters"); err != nil {
		return err
	}
	if err := writeNewKey(c.files("sa.key")); err != nil {
		return err
	}
	if err := os.WriteFile(c.files("egress.yaml"), []byte(egressConfig(filepath.Join(c.dir, "node"))), 0o600); err != nil {
		return err
	}
	managerToken, schedulerToken, nodeToken := randomHex(16), randomHex(16), randomHex(16)
	tokens := fmt.Sprintf("%s,master,master,\"system:masters\"\n%s,system:kube-controller-manager,manager\n", c.token, managerToken) +
		fmt.Sprintf("%s,system:kube-scheduler,scheduler\n%s,system:node:%s,node,\"system:nodes\"\n", schedulerToken, nodeToken, nodeName)
	if err := os.WriteFile(c.files("tokens.csv"), []byte(tokens), 0o600); err != nil {
		return err
	}
	if err := c.writeKubeconfig(c.files("master.kubeconfig"), c.config(c.token)); err != nil {
		return err
	}
	if err := c.writeKubeconfig(c.files("scheduler.kubeconfig"), c.config(schedulerToken)); err != nil {
		return err
	}
	if err := c.writeKubeconfig(c.files("node.kubeconfig"), c.insideConfig(nodeToken)); err != nil {
		return err
	}
	return c.writeKubeconfig(c.files("manager.kubeconfig"), c.config(managerToken))
}

// startServers starts one server when the one below it answers: an API server that finds no etcd waits a second before it asks again.
func (c *Cluster) startServers(ctx context.Context, programs programs, port int) error {
	// Sockets need no port. etcd wants their names, in its own folder, to look like host:port.
	const clients, peers = "unix://localhost:1", "unix://localhost:2"
	etcd, err := c.start("etcd", programs.etcd,
		"--name=testbed", "--data-dir=data", "--unsafe-no-fsync",
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=testbed="+peers,
		"--quota-backend-bytes=8589934592", "--snapshot-count=100000", "--log-level=warn")
	if err != nil {
		return err
	}
	socket := filepath.Join(c.dir, "etcd", "localhost:1")
	err = waitReady(ctx, "etcd", func(context.Context) error { _, err := os.Stat(socket); return err }, etcd)
	if err != nil {
		return err
	}
	apiserver, err := c.start("kube-apiserver", programs.apiserver, append(c.apiServerFlags("unix://"+socket, port), c.opts.apiFlags...)...)
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	err = waitReady(ctx, "the API server", func(ctx context.Context) error {
		return kube.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}, apiserver, etcd)
	if err != nil || c.opts.noControllers {
		return err
	}
	manager, err := c.start("kube-controller-manager", programs.manager, append(c.managerFlags(), c.opts.managerFlags...)...)
	if err != nil {
		return err
	}
	return waitReady(ctx, "the controllers", func(ctx context.Context) error { return controllersWork(ctx, kube) }, manager, apiserver, etcd)
}

func (c *Cluster) start(name, program string, args ...string) (*process, error) {
	p, err := startProcess(c.dir, name, program, args...)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = append(c.servers, p)
	return p, nil
}

func (c *Cluster) apiServerFlags(etcd string, port int) []string {
	flags := []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
		// An address kept for documentation (RFC 5737): what the endpoints of the "kubernetes" service say. Nothing is bound to it.
		"--advertise-address=192.0.2.10",
		"--tls-cert-file=tls.crt", "--tls-private-key-file=tls.key", "--cert-dir=.",
		"--token-auth-file=tokens.csv",
		"--service-account-issuer=https://kubernetes.default.svc", "--api-audiences=https://kubernetes.default.svc",
		"--service-account-key-file=sa.key", "--service-account-signing-key-file=sa.key",
		"--service-cluster-ip-range=10.96.0.0/16",
		// Webhooks and API services are reached by their endpoints, never by a cluster address, which here would leave the machine.
		"--enable-aggregator-routing=true",
		"--authorization-mode=Node,RBAC", "--allow-privileged=true", "--profiling=false",
	}
	if c.opts.withNode {
		flags = append(flags, "--kubelet-preferred-address-types=InternalIP", "--egress-selector-config-file=egress.yaml",
			"--kubelet-client-certificate=kubelet-client.crt", "--kubelet-client-key=kubelet-client.key")
	}
	return flags
}

func (c *Cluster) managerFlags() []string {
	return []string{
		"--kubeconfig=" + c.files("manager.kubeconfig"),
		"--authentication-kubeconfig=" + c.files("manager.kubeconfig"), "--authorization-kubeconfig=" + c.files("manager.kubeconfig"),
		"--secure-port=0", "--leader-elect=false", "--profiling=false",
		"--use-service-account-credentials=true", "--flex-volume-plugin-dir=" + filepath.Join(c.dir, "kube-controller-manager", "flex"),
		"--service-account-private-key-file=" + c.files("sa.key"), "--root-ca-file=" + c.files("ca.crt"),
		"--service-cluster-ip-range=10.96.0.0/16",
		// Tests wait for controllers, so that these are asked to be quick.
		"--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-namespace-syncs=20", "--concurrent-gc-syncs=20",
		"--namespace-sync-period=10s", "--pvclaimbinder-sync-period=1s", "--horizontal-pod-autoscaler-sync-period=5s",
	}
}

// controllersWork succeeds when the namespace "default" has what controllers put there.
func controllersWork(ctx context.Context, clients kubernetes.Interface) error {
	if _, err := clients.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err
	}
	_, err := clients.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return err
}

// Stop ends the servers and removes their data. It may be called more than once.
func (c *Cluster) Stop() {
	c.stopOnce.Do(func() {
		c.mu.Lock()
		servers := c.servers
		c.servers = nil
		c.mu.Unlock()
		if c.node != nil {
			c.node.end()
		}
		var group errgroup.Group
		for _, p := range servers {
			group.Go(func() error { p.stop(); return nil })
		}
		_ = group.Wait()
		_ = os.RemoveAll(c.dir)
	})
}

// Wait returns when a server has ended by itself, with the reason, or when ctx is done.
func (c *Cluster) Wait(ctx context.Context) error {
	c.mu.Lock()
	servers := c.servers
	c.mu.Unlock()
	ended := make(chan error, len(servers))
	for _, p := range servers {
		go func() { // ends with the server, at the latest with Stop
			<-p.done
			ended <- p.failure()
		}()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return err
	}
}

// Log is the end of a server's log: "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler" or "node"; at most n bytes.
func (c *Cluster) Log(server string, n int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.servers {
		if p.name == server {
			return p.logTail(n)
		}
	}
	return ""
}

// PeakMemory is the highest resident set size that a server's process has had, in bytes (Linux only, else 0).
func (c *Cluster) PeakMemory(server string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.servers {
		if p.name == server {
			return peakMemory(p.cmd.Process.Pid)
		}
	}
	return 0
}

// Master is a client configuration of a member of system:masters. It passes RBAC and priority and fairness, so it is for setting
// tests up; Kedge itself runs as [Cluster.ServiceAccountConfig].
func (c *Cluster) Master() *rest.Config { return c.config(c.token) }

func (c *Cluster) config(token string) *rest.Config {
	return &rest.Config{
		Host: c.URL, BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.CA},
		QPS:             -1, // no limit on our side
		WarningHandler:  rest.NoWarnings{},
	}
}

// isExists says that an object is there already.
func isExists(err error) bool {
	return err != nil && (apierrors.IsAlreadyExists(err) || errors.Is(err, os.ErrExist))
}
