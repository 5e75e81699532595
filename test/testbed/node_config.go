//go:build unix

package testbed

import (
	"fmt"
	"path/filepath"
	"strings"
)

// sandboxImage holds the namespaces of each pod.
const sandboxImage = "kedge.example/testbed/pause:1"

// egressConfig makes an API server reach the kubelet, webhooks and pods through the network of the node in a folder.
func egressConfig(dir string) string {
	return `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds:
        udsName: ` + filepath.Join(dir, "node.sock") + "\n"
}

// nodeSettings are those of the program in the folder "node".
type nodeSettings struct {
	Dir, Name        string
	Addresses        []string
	Forward          map[string]string
	Shadow           map[string][]string
	Kernel           map[string]string
	Path             string
	Runtime, Kubelet []string
	RuntimeSocket    string
	Beside           [][]string
}

func (n *Node) settings() nodeSettings {
	return nodeSettings{
		Dir: n.dir, Name: n.Name,
		Addresses: []string{nodeAddress, apiServiceAddress},
		Forward:   map[string]string{apiServiceAddress + ":443": strings.TrimPrefix(n.cluster.URL, "https://")},
		// What containerd, the kubelet and CNI plugins write to, wherever they are told to keep their files.
		Shadow: map[string][]string{"/run": {"containerd", "netns", "runc"}, "/var/lib": {"kubelet", "cni"}, "/var/log": {"pods", "containers"}},
		// A kubelet sets these for the whole machine, and wants a broken kernel to start again by itself: not here.
		Kernel: map[string]string{
			"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
			"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
		},
		Path:          filepath.Join(n.programs.debian, "usr/bin") + ":" + filepath.Join(n.programs.debian, "usr/sbin"),
		Runtime:       []string{"containerd", "--config", n.file("containerd.toml")},
		RuntimeSocket: n.file("containerd.sock"),
		Kubelet: []string{
			n.programs.kubelet, "--config=" + n.file("kubelet.yaml"), "--kubeconfig=" + n.cluster.files("node.kubeconfig"), "--root-dir=" + n.file("kubelet"),
			"--hostname-override=" + n.Name, "--node-ip=" + nodeAddress, "--cert-dir=" + n.file("kubelet-certs"),
			"--node-labels=topology.kubernetes.io/zone=zone-a,topology.kubernetes.io/region=region-a",
		},
		Beside: n.driver(),
	}
}

// containerdConfig: restrict_oom_score_adj because machines inside of machines may lack the right to lower scores.
func (n *Node) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = %q

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
`, n.file("containerd"), n.file("containerd.sock"), sandboxImage, filepath.Join(n.programs.debian, "usr/lib/cni"), n.file("cni"))
}

// kubeletConfig: a name service that nobody runs, without whose address each pod would be warned of; no cgroups by quality of service, which would be at the root of the machine's; no eviction of what fits the machine.
func (n *Node) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]s}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%[3]s
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
resolvConf: %[4]s
clusterDNS: [10.96.0.10]
volumePluginDir: %[5]s
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
`, nodeAddress, n.cluster.files("ca.crt"), n.file("containerd.sock"), n.file("resolv.conf"), n.file("volume-plugins"))
}

// networkConfig gives each pod a link to the node, and to nothing else.
func (n *Node) networkConfig() string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0", "name": "pods",
  "plugins": [{
    "type": "ptp", "ipMasq": false,
    "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`, n.file("addresses"))
}
