//go:build unix

package testbed

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

//go:embed kubernetes/node.go.tmpl
var nodeMain string

//go:embed node/*_linux.go
var nodeSource embed.FS

// machinePrograms are the paths of what a node runs.
type machinePrograms struct {
	kubelet, scheduler string
	node               string // the program in the folder "node"
	debian             string // where the packages of containerd are unpacked
	csi                string // where the CSI driver and its controllers are; empty where they are not asked for
}

// BuildNode makes sure that everything is there that nodes of a version need. It fails with [ErrNoNode] where this machine cannot run one.
func BuildNode(ctx context.Context, version string) error {
	_, err := nodePrograms(ctx, version)
	return err
}

func nodePrograms(ctx context.Context, version string) (machinePrograms, error) {
	version, minor, err := parseVersion(version)
	if err != nil {
		return machinePrograms{}, err
	}
	if err := canRunNode(minor); err != nil {
		return machinePrograms{}, err
	}
	var p machinePrograms
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		dir, err := ensure(ctx, kubernetesProgram("kubernetes-node-v"+version, "a few CPU minutes after the control plane, else about 10", nodeMain, version, minor,
			"kubelet", "kube-scheduler"))
		p.kubelet, p.scheduler = filepath.Join(dir, "kubelet"), filepath.Join(dir, "kube-scheduler")
		return err
	})
	group.Go(func() error {
		dir, err := ensure(ctx, containersRecipe())
		p.debian = dir
		return err
	})
	group.Go(func() error {
		recipe, err := nodeRecipe()
		if err != nil {
			return err
		}
		dir, err := ensure(ctx, recipe)
		p.node = filepath.Join(dir, "node")
		return err
	})
	return p, group.Wait()
}

// nodeRecipe builds the program in the folder "node" from the sources that are in this program, so that those who run elsewhere than in the tree
// can, too.
func nodeRecipe() (recipe, error) {
	files, err := nodeSource.ReadDir("node")
	if err != nil {
		return recipe{}, err
	}
	texts, sum := map[string]string{"go.mod": "module kedge.dev/kedge/test/testbed/node\n\ngo 1.26.0\n"}, sha256.New()
	for _, f := range files {
		text, err := nodeSource.ReadFile(path.Join("node", f.Name()))
		if err != nil {
			return recipe{}, err
		}
		texts[f.Name()] = string(text)
		_, _ = fmt.Fprintf(sum, "%s\n%s\n", f.Name(), text)
	}
	return recipe{
		name:    "node",
		advice:  "a few seconds",
		version: hex.EncodeToString(sum.Sum(nil)[:6]),
		build: func(ctx context.Context, src, out string, p *progress) error {
			if err := os.RemoveAll(src); err != nil { // files of an older version would be built with it
				return err
			}
			if err := os.MkdirAll(src, 0o755); err != nil {
				return err
			}
			for name, text := range texts {
				if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return goBuild(ctx, src, p, filepath.Join(out, "node"), "-s -w")
		},
	}, nil
}

// containersRecipe unpacks Debian's packages of containerd, runc and the CNI plugins. They are not installed: nothing on the machine changes, and no
// service is started.
func containersRecipe() recipe {
	return recipe{
		name:    "debian-containers",
		advice:  "35 MB of packages",
		version: "1",
		build: func(ctx context.Context, src, out string, p *progress) error {
			packages := []string{"containerd", "runc", "containernetworking-plugins"}
			get := append([]string{"apt-get", "download", "-q"}, packages...)
			if err := tool(ctx, src, get...); err != nil {
				p.say("asking for the list of packages first")
				if err := tool(ctx, src, "apt-get", "update", "-q"); err != nil {
					return err
				}
				if err := tool(ctx, src, get...); err != nil {
					return err
				}
			}
			for _, name := range packages {
				debs, err := filepath.Glob(filepath.Join(src, name+"_*.deb"))
				if err != nil || len(debs) == 0 {
					return errors.Join(err, fmt.Errorf("apt-get download left no package of %s", name))
				}
				if err := tool(ctx, src, "dpkg-deb", "--extract", debs[len(debs)-1], out); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// tool runs a program in a folder. An error holds what it said.
func tool(ctx context.Context, dir string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}
