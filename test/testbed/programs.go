//go:build unix

package testbed

import (
	"context"
	_ "embed" // the programs' sources
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Versions of what is not asked for by version.
const (
	EtcdVersion      = "3.6.16" // serves progress requests, which API servers since 1.34 need for consistent reads from cache
	VersityGWVersion = "1.8.0"  // the S3 server
	// MinioVersion is of the S3 server for encryption and web identities: the last one there is.
	MinioVersion = "0.0.0-20260212201848-7aac2a2c5b7c"
	KopiaVersion = "0.23.1" // kopia's own command: the version of go.mod
)

//go:embed kubernetes/main.go.tmpl
var kubernetesMain string

//go:embed etcd/main.go.tmpl
var etcdMain string

var kubernetesVersion = regexp.MustCompile(`^v?1\.([0-9]+)\.([0-9]+)$`)

// parseVersion takes "1.36.3" or "v1.36.3" apart into "1.36.3" and 36.
func parseVersion(version string) (string, int, error) {
	m := kubernetesVersion.FindStringSubmatch(version)
	if m == nil {
		return "", 0, fmt.Errorf("kubernetes version %q is not of the form 1.36.3", version)
	}
	minor, err := strconv.Atoi(m[1])
	if err != nil {
		return "", 0, err
	}
	return "1." + m[1] + "." + m[2], minor, nil
}

// BuildMinio makes sure that minio is built, which few tests need.
func BuildMinio(ctx context.Context) error {
	_, err := minio(ctx)
	return err
}

// Build makes sure that everything is built that clusters of these versions and buckets need, one after the other.
func Build(ctx context.Context, versions ...string) error {
	for _, v := range versions {
		if _, err := controlPlanePrograms(ctx, v); err != nil {
			return err
		}
	}
	_, err := versitygw(ctx)
	return err
}

// programs are the paths of a control plane's programs.
type programs struct {
	etcd, apiserver, manager string
	node                     machinePrograms // where a node is asked for
}

// controlPlanePrograms finds or builds the programs of a version. Ready-made ones in $KUBEBUILDER_ASSETS are used where
// they report the version that is asked for.
func controlPlanePrograms(ctx context.Context, version string) (programs, error) {
	version, minor, err := parseVersion(version)
	if err != nil {
		return programs{}, err
	}
	p := programs{
		etcd:      readyMade(ctx, "etcd", "etcd Version: 3.6."),
		apiserver: readyMade(ctx, "kube-apiserver", "Kubernetes v"+version+"\n"),
		manager:   readyMade(ctx, "kube-controller-manager", "Kubernetes v"+version+"\n"),
	}
	group, ctx := errgroup.WithContext(ctx)
	if p.etcd == "" {
		group.Go(func() error {
			dir, err := ensure(ctx, etcdRecipe())
			p.etcd = filepath.Join(dir, "etcd")
			return err
		})
	}
	if p.apiserver == "" || p.manager == "" {
		group.Go(func() error {
			dir, err := ensure(ctx, kubernetesRecipe(version, minor))
			if p.apiserver == "" {
				p.apiserver = filepath.Join(dir, "kube-apiserver")
			}
			if p.manager == "" {
				p.manager = filepath.Join(dir, "kube-controller-manager")
			}
			return err
		})
	}
	return p, group.Wait()
}

// readyMade is the path of a program in $KUBEBUILDER_ASSETS whose --version output starts with want, or "".
func readyMade(ctx context.Context, name, want string) string {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		return ""
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), want) {
		return ""
	}
	return path
}

func kubernetesRecipe(version string, minor int) recipe {
	return kubernetesProgram("kubernetes-v"+version, "about 15 CPU minutes from cold", kubernetesMain, version, minor,
		"kube-apiserver", "kube-controller-manager")
}

// kubernetesProgram makes one program of a version's components, each of which is called by its name.
func kubernetesProgram(name, advice, mainGo, version string, minor int, components ...string) recipe {
	return recipe{
		name:    name,
		advice:  advice,
		version: "1",
		build: func(ctx context.Context, src, out string, p *progress) error {
			upstream, err := upstreamGoMod(ctx, src, "k8s.io/kubernetes@v"+version, p)
			if err != nil {
				return err
			}
			err = writeModule(ctx, src, p, mainGo, kubernetesGoMod(upstream, version))
			if err != nil {
				return err
			}
			binary := filepath.Join(out, "kubernetes")
			if err := goBuild(ctx, src, p, binary, kubernetesLinkFlags(version, minor)); err != nil {
				return err
			}
			for _, name := range components {
				if err := os.Symlink("kubernetes", filepath.Join(out, name)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func etcdRecipe() recipe {
	return recipe{
		name:    "etcd-v" + EtcdVersion,
		advice:  "about 2 CPU minutes from cold",
		version: "1",
		build: func(ctx context.Context, src, out string, p *progress) error {
			goMod := "module kedge.dev/kedge/test/testbed/etcd\n\ngo 1.26.0\n\nrequire go.etcd.io/etcd/server/v3 v" + EtcdVersion + "\n"
			if err := writeModule(ctx, src, p, etcdMain, goMod); err != nil {
				return err
			}
			return goBuild(ctx, src, p, filepath.Join(out, "etcd"), "-s -w")
		},
	}
}

// versitygw finds or builds the S3 server.
func versitygw(ctx context.Context) (string, error) {
	return installed(ctx, "versitygw", VersityGWVersion, "github.com/versity/versitygw/cmd/versitygw", "about 4 CPU minutes from cold")
}

// minio finds or builds the other S3 server. It is under the AGPL: a program that tests start, never a library.
func minio(ctx context.Context) (string, error) {
	return installed(ctx, "minio", MinioVersion, "github.com/minio/minio", "about 11 CPU minutes from cold")
}

// Kopia finds or builds kopia's own command, beside which benchmarks measure copies of volumes, and gives its path. Few need it, so Build does not
// make it.
func Kopia(ctx context.Context) (string, error) {
	const pkg = "github.com/kopia/kopia"
	dir, err := ensure(ctx, recipe{
		name:    "kopia-v" + KopiaVersion,
		advice:  "about 5 CPU minutes from cold",
		version: "1",
		// Not "go install": that asks for the list of all versions too, which not every proxy has.
		build: func(ctx context.Context, src, out string, p *progress) error {
			goMod := "module kedge.dev/kedge/test/testbed/kopia\n\ngo 1.26.0\n\ntool " + pkg + "\n\nrequire " + pkg + " v" + KopiaVersion + "\n"
			if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte(goMod), 0o644); err != nil {
				return err
			}
			if _, err := goTool(ctx, src, p, nil, "mod", "tidy", "-e"); err != nil {
				return err
			}
			p.packages.Store(0)
			_, err := goTool(ctx, src, p, nil, "build", "-v", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(out, "kopia"), pkg)
			return err
		},
	})
	return filepath.Join(dir, "kopia"), err
}

// installed finds or builds a program whose main package can be installed as it is.
func installed(ctx context.Context, name, version, pkg, advice string) (string, error) {
	dir, err := ensure(ctx, recipe{
		name:    name + "-v" + version,
		advice:  advice,
		version: "1",
		build: func(ctx context.Context, src, out string, p *progress) error {
			_, err := goTool(ctx, src, p, []string{"GOBIN=" + out}, "install", "-v", "-trimpath", "-ldflags=-s -w", pkg+"@v"+version)
			return err
		},
	})
	return filepath.Join(dir, name), err
}

// upstreamGoMod is the text of a module's go.mod.
func upstreamGoMod(ctx context.Context, dir, module string, p *progress) (string, error) {
	out, err := goTool(ctx, dir, p, nil, "mod", "download", "-json", module)
	if err != nil {
		return "", err
	}
	var info struct{ GoMod string }
	if err := json.Unmarshal(out, &info); err != nil {
		return "", fmt.Errorf("read what go mod download says of %s: %w", module, err)
	}
	text, err := os.ReadFile(info.GoMod)
	return string(text), err
}

var (
	stagingReplace = regexp.MustCompile(`(?m)^\s*(?:replace\s+)?(k8s\.io/\S+)\s+=>\s+\./staging/`)
	goDirective    = regexp.MustCompile(`(?m)^go (\S+)$`)
)

// kubernetesGoMod makes the go.mod of a module that imports k8s.io/kubernetes: its staging modules, which it finds in its own
// tree, are published as v0.<minor>.<patch>.
func kubernetesGoMod(upstream, version string) string {
	var staging []string
	for _, m := range stagingReplace.FindAllStringSubmatch(upstream, -1) {
		staging = append(staging, m[1])
	}
	slices.Sort(staging)
	staging = slices.Compact(staging)
	goVersion := "1.19"
	if m := goDirective.FindStringSubmatch(upstream); m != nil {
		goVersion = m[1]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module kedge.dev/kedge/test/testbed/kubernetes\n\ngo %s\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n", goVersion, version)
	for _, module := range staging {
		fmt.Fprintf(&b, "\t%s => %s v0.%s\n", module, module, strings.TrimPrefix(version, "1."))
	}
	b.WriteString(")\n")
	return b.String()
}

// kubernetesLinkFlags sets the version that /version reports; before 1.28 discovery's own copy needs it too.
func kubernetesLinkFlags(version string, minor int) string {
	flags := []string{"-s", "-w"}
	if minor < 31 { // modules of that age reach into the standard library in ways that the linker now refuses
		flags = append(flags, "-checklinkname=0")
	}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X "+pkg+".gitVersion=v"+version, "-X "+pkg+".gitMajor=1", "-X "+pkg+".gitMinor="+strconv.Itoa(minor))
	}
	return strings.Join(flags, " ")
}

func writeModule(ctx context.Context, src string, p *progress, mainGo, goMod string) error {
	for name, text := range map[string]string{"main.go": mainGo, "go.mod": goMod} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// -e: tests of modules deep below may import packages that no longer exist.
	_, err := goTool(ctx, src, p, nil, "mod", "tidy", "-e")
	return err
}

func goBuild(ctx context.Context, src string, p *progress, out, linkFlags string) error {
	p.packages.Store(0)
	_, err := goTool(ctx, src, p, nil, "build", "-v", "-trimpath", "-ldflags="+linkFlags, "-o", out, ".")
	return err
}
