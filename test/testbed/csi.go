//go:build unix

package testbed

import (
	"context"
	"crypto/sha256"
	_ "embed" // the driver's source
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Versions of the controllers of CSI, and of what the driver is written with.
const (
	ProvisionerVersion = "6.4.0" // kubernetes-csi/external-provisioner
	SnapshotterVersion = "8.7.0" // kubernetes-csi/external-snapshotter: the sidecar and the common controller
	kubeletAPIVersion  = "0.37.0"
)

// What a cluster [WithCSI] has. Volumes of both classes are folders; those of CSIWaitClass are made when a pod needs them.
const (
	CSIDriver    = "folders.csi.example"
	CSIClass     = "csi"
	CSIWaitClass = "csi-wait"
	// CSISnapshotClass has the deletion policy Delete.
	CSISnapshotClass = "csi"
)

//go:embed csi/main.go.tmpl
var csiMain string

//go:embed csi/objects.yaml
var csiObjects string

// WithCSI gives the cluster's node ([WithNode] goes with it) a CSI driver of folders that can be snapshotted and cloned, with the upstream
// provisioner, snapshotter and snapshot controller. The driver is our own, since no registry of modules has one; what drives it is what drives others.
func WithCSI() ClusterOption {
	return func(o *clusterOptions) { o.withNode, o.withCSI = true, true }
}

// BuildCSI makes sure that everything is there that clusters [WithCSI] need, beyond a node.
func BuildCSI(ctx context.Context) error {
	_, err := csiPrograms(ctx)
	return err
}

func csiPrograms(ctx context.Context) (string, error) { return ensure(ctx, csiRecipe()) }

// The packages of the controllers.
const (
	provisionerModule = "github.com/kubernetes-csi/external-provisioner/v6"
	snapshotterModule = "github.com/kubernetes-csi/external-snapshotter/v8"
	crdModule         = "github.com/kubernetes-csi/external-snapshotter/client/v8"
)

var csiPackages = []string{provisionerModule + "/cmd/csi-provisioner", snapshotterModule + "/cmd/csi-snapshotter", snapshotterModule + "/cmd/snapshot-controller"}

// csiRecipe builds the controllers, which replace modules of their own and so cannot be installed as they are, and the driver; the definitions of
// snapshots' kinds lie beside them.
func csiRecipe() recipe {
	goMod := fmt.Sprintf("module kedge.dev/kedge/test/testbed/csi\n\ngo 1.26.0\n\ntool (\n\t%s\n)\n\nrequire (\n\t%s v%s\n\t%s v%s\n\tk8s.io/kubelet v%s\n)\n",
		strings.Join(csiPackages, "\n\t"), provisionerModule, ProvisionerVersion, snapshotterModule, SnapshotterVersion, kubeletAPIVersion)
	sum := sha256.Sum256([]byte(csiMain + goMod))
	return recipe{
		name:    "csi",
		advice:  "about 8 CPU minutes from cold",
		version: hex.EncodeToString(sum[:6]),
		build: func(ctx context.Context, src, out string, p *progress) error {
			if err := writeModule(ctx, src, p, csiMain, goMod); err != nil {
				return err
			}
			if err := goBuild(ctx, src, p, filepath.Join(out, "driver"), "-s -w"); err != nil {
				return err
			}
			args := append([]string{"build", "-v", "-trimpath", "-ldflags=-s -w", "-o", out + "/"}, csiPackages...)
			if _, err := goTool(ctx, src, p, nil, args...); err != nil {
				return err
			}
			return copyCRDs(ctx, src, out, p)
		},
	}
}

// copyCRDs copies the definitions of VolumeSnapshots, VolumeSnapshotContents and VolumeSnapshotClasses out of the module that has them.
func copyCRDs(ctx context.Context, src, out string, p *progress) error {
	dir, err := goTool(ctx, src, p, nil, "list", "-m", "-f", "{{.Dir}}", crdModule)
	if err != nil {
		return err
	}
	for _, name := range []string{"volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"} {
		file := "snapshot.storage.k8s.io_" + name + ".yaml"
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config", "crd", file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, file), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// driver is the command line of the CSI driver on the node; nil where there is none.
func (n *Node) driver() [][]string {
	if n.programs.csi == "" {
		return nil
	}
	return [][]string{{
		filepath.Join(n.programs.csi, "driver"), "-name=" + CSIDriver, "-node=" + n.Name, "-dir=" + n.file("csi"), "-socket=" + n.file("csi.sock"),
		"-registry=" + n.file("kubelet/plugins_registry/csi.sock"),
	}}
}

// CSIFolders is where the driver keeps what is of a kind, "volumes" or "snapshots": a folder each, and a record beside it.
func (n *Node) CSIFolders(kind string) string { return filepath.Join(n.file("csi"), kind) }

// startCSI starts the controllers, and returns when the node's driver is known.
func (c *Cluster) startCSI(ctx context.Context) error {
	n := c.node
	crds, err := filepath.Glob(filepath.Join(n.programs.csi, "*.yaml"))
	if err != nil || len(crds) == 0 {
		return errors.Join(err, fmt.Errorf("no definitions are in %s", n.programs.csi))
	}
	var manifests []string
	for _, file := range crds {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		manifests = append(manifests, string(text))
	}
	if err := c.ApplyYAML(ctx, append(manifests, csiObjects)...); err != nil {
		return fmt.Errorf("set up CSI: %w", err)
	}
	if err := n.answers(ctx, "csi.sock"); err != nil {
		return err
	}
	if n.controllers, err = c.startCSIControllers(); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.Master())
	if err != nil {
		return err
	}
	return waitReady(ctx, "the node's CSI driver", func(ctx context.Context) error {
		node, err := clients.StorageV1().CSINodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, d := range node.Spec.Drivers {
			if d.Name == CSIDriver {
				return nil
			}
		}
		return errors.New("the kubelet has not registered it")
	}, append(slices.Clone(n.controllers), n.process)...)
}

func (c *Cluster) startCSIControllers() (started []*process, err error) {
	access := []string{"--kubeconfig=" + c.files("master.kubeconfig")}
	socket := "--csi-address=" + c.node.file("csi.sock")
	for name, flags := range map[string][]string{
		"csi-provisioner":     {socket, "--feature-gates=Topology=true", "--extra-create-metadata", "--retry-interval-start=200ms", "--kube-api-qps=100", "--kube-api-burst=200"},
		"csi-snapshotter":     {socket, "--extra-create-metadata", "--retry-interval-start=200ms", "--kube-api-qps=100", "--kube-api-burst=200"},
		"snapshot-controller": {"--retry-interval-start=200ms", "--kube-api-qps=100", "--kube-api-burst=200"},
	} {
		p, err := c.start(name, filepath.Join(c.node.programs.csi, name), append(flags, access...)...)
		if err != nil {
			return nil, err
		}
		started = append(started, p)
	}
	return started, nil
}
