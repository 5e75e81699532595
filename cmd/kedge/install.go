package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/deploy/install"
	"kedge.dev/kedge/deploy/render"
)

// installRelease is the name of what kedge installs, and defaultNamespace where.
const (
	installRelease   = "kedge"
	defaultNamespace = "kedge"
)

// installFlags are those of install and upgrade.
type installFlags struct {
	namespace   string
	image       string
	valueFiles  []string
	set         []string
	setString   []string
	policy      bool
	export      bool
	kubeVersion string
	wait        bool
	waitTimeout time.Duration
	reset       bool
}

func (f *installFlags) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", defaultNamespace, "`namespace` of the server")
	flags.StringVar(&f.image, "image", "", "the server's `image`, with its tag or digest: registry.example/kedge:v0.1.0")
	flags.StringArrayVarP(&f.valueFiles, "values", "f", nil, "`file` with values of the chart (YAML; \"-\" is stdin; repeatable, the last wins)")
	flags.StringArrayVar(&f.set, "set", nil, "one value of the chart: `key=value`, a.b=c, a[0]=c, a={x,y} (repeatable)")
	flags.StringArrayVar(&f.setString, "set-string", nil, "as --set, but the value is a string whatever it looks like: `key=value`")
	flags.BoolVar(&f.policy, "admission-policy", false, "refuse backups, restores and schedules whose author may not use the account that they name (Kubernetes 1.30 and later)")
	flags.BoolVar(&f.export, "export", false, "print the objects (YAML) and change nothing")
	flags.StringVar(&f.kubeVersion, "kube-version", "", "with --export: print for this `version` of Kubernetes (\"1.33\") and ask no cluster")
	flags.BoolVar(&f.wait, "wait", false, "wait until the server is ready")
	flags.DurationVar(&f.waitTimeout, "wait-timeout", 5*time.Minute, "how long --wait waits")
}

func (a *app) installCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the server in a cluster",
		Long: `Install the server in a cluster: the objects of the Helm chart, without Helm. Kinds and namespace come first, then the rest; everything
is applied server-side, so that an install that was cut off is simply begun again.

With --export the objects are printed, for kubectl, a GitOps repository, or a look.`,
		Example: `  kedge install --image registry.example/kedge:v0.1.0
  kedge install --image registry.example/kedge:v0.1.0 \
    --set 'serviceAccount.annotations.eks\.amazonaws\.com/role-arn=arn:aws:iam::111122223333:role/kedge'
  kedge install --values values.yaml --export --kube-version 1.33 > kedge.yaml`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			values, err := a.installValues(&f)
			if err != nil {
				return err
			}
			if f.export && f.kubeVersion != "" {
				return a.exportFor(&f, values)
			}
			i, err := a.openInstaller(cmd.Context(), &f)
			if err != nil {
				return err
			}
			if f.export {
				return a.exportObjects(&f, values, i.APIVersions())
			}
			if err := i.CheckOwner(cmd.Context()); err != nil {
				return err
			}
			_, version, err := i.Saved(cmd.Context())
			if err == nil {
				return fmt.Errorf("install: namespace %s: %w (%s)", f.namespace, install.ErrInstalled, version)
			}
			if !errors.Is(err, install.ErrNotInstalled) {
				return err
			}
			return a.applyInstall(cmd.Context(), i, &f, values)
		},
	}
	f.bind(cmd)
	a.kube.bind(cmd.Flags())
	return cmd
}

// openInstaller connects to the cluster and has what is done there told.
func (a *app) openInstaller(ctx context.Context, f *installFlags) (*install.Installer, error) {
	if f.kubeVersion != "" {
		return nil, usageError(errors.New("--kube-version: it goes with --export only; a cluster says its version itself"), "")
	}
	client, _, err := a.cluster(0)
	if err != nil {
		return nil, err
	}
	i, err := install.Open(ctx, client, installRelease, f.namespace)
	if err != nil {
		return nil, err
	}
	i.Changed = a.tellChange
	i.Warned = func(text string) { a.ui.Warn("the API server says: %s", text) }
	return i, nil
}

func (a *app) tellChange(c install.Change) {
	where := ""
	if c.Namespace != "" {
		where = " in " + c.Namespace
	}
	a.ui.Note("%s %s%s: %s", c.Kind, c.Name, where, c.Action)
}

// applyInstall applies the objects, remembers the values, removes what is no longer wanted, and waits.
func (a *app) applyInstall(ctx context.Context, i *install.Installer, f *installFlags, values map[string]any) error {
	objects, err := a.renderInstall(f, values, i.APIVersions())
	if err != nil {
		return err
	}
	if err := i.CheckNamespaces(ctx, objects); err != nil {
		return err
	}
	if err := i.Apply(ctx, objects); err != nil {
		return err
	}
	if err := i.Save(ctx, values, version); err != nil {
		return err
	}
	if err := i.Prune(ctx, objects); err != nil {
		return err
	}
	if f.wait {
		if err := a.waitInstalled(ctx, i, f, objects); err != nil {
			return err
		}
	}
	a.ui.Note("Kedge %s is installed in namespace %s.", version, f.namespace)
	return nil
}

func (a *app) waitInstalled(ctx context.Context, i *install.Installer, f *installFlags, objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		a.ui.Note("Waiting until the server is ready…")
		if err := i.WaitReady(ctx, o.GetName(), f.waitTimeout); err != nil {
			return err
		}
	}
	return nil
}

// installValues collects the values of files and flags, in the order in which they go before each other.
func (a *app) installValues(f *installFlags) (map[string]any, error) {
	values := map[string]any{}
	for _, name := range f.valueFiles {
		data, err := a.readInput(name)
		if err != nil {
			return nil, usageError(fmt.Errorf("--values: %w", err), "")
		}
		own, err := render.ReadValues(data)
		if err != nil {
			return nil, fmt.Errorf("--values %s: %w", name, err)
		}
		values = render.Merge(values, own)
	}
	if f.image != "" {
		image, err := imageValues(f.image)
		if err != nil {
			return nil, err
		}
		values = render.Merge(values, map[string]any{"image": image})
	}
	if f.policy {
		values = render.Merge(values, map[string]any{"admissionPolicy": map[string]any{"enabled": true}})
	}
	for _, assignment := range f.set {
		if err := render.Set(values, assignment, false); err != nil {
			return nil, fmt.Errorf("--set: %w", err)
		}
	}
	for _, assignment := range f.setString {
		if err := render.Set(values, assignment, true); err != nil {
			return nil, fmt.Errorf("--set-string: %w", err)
		}
	}
	return values, nil
}

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// imageValues takes an image's name apart: the registry's port is no tag.
func imageValues(image string) (map[string]any, error) {
	name, sum, pinned := strings.Cut(image, "@")
	tag := ""
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
	}
	if name == "" || (pinned && !digest.MatchString(sum)) || strings.HasSuffix(image, ":") {
		return nil, usageError(fmt.Errorf("--image: %q is no name of an image", image), "write it as registry.example/kedge:v0.1.0, or with @sha256:… in the place of the tag")
	}
	return map[string]any{"registry": "", "repository": name, "tag": tag, "digest": sum}, nil
}

// releaseVersion recognizes the version of a released program.
var releaseVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`)

// renderInstall makes the objects.
func (a *app) renderInstall(f *installFlags, values map[string]any, versions []string) ([]*unstructured.Unstructured, error) {
	opts := render.Options{Release: installRelease, Namespace: f.namespace, APIVersions: versions}
	if releaseVersion.MatchString(version) {
		opts.AppVersion = version
	}
	opts.Values = render.Merge(map[string]any{"namespace": map[string]any{"create": true}}, values)
	return render.Objects(deploy.Chart, opts)
}

// exportFor prints the objects for a version of Kubernetes.
func (a *app) exportFor(f *installFlags, values map[string]any) error {
	minor, ok := strings.CutPrefix(strings.TrimPrefix(f.kubeVersion, "v"), "1.")
	minor, _, _ = strings.Cut(minor, ".")
	n, err := strconv.Atoi(minor)
	if !ok || err != nil {
		return usageError(fmt.Errorf("--kube-version: %q is no version of Kubernetes", f.kubeVersion), "write it as 1.33")
	}
	if n < oldestMinor {
		return usageError(fmt.Errorf("--kube-version: the server needs Kubernetes 1.%d or later", oldestMinor), "")
	}
	return a.exportObjects(f, values, render.VersionsOf(n))
}

// oldestMinor is the oldest version of Kubernetes that the chart is tested with.
const oldestMinor = 24

func (a *app) exportObjects(f *installFlags, values map[string]any, versions []string) error {
	objects, err := a.renderInstall(f, values, versions)
	if err != nil {
		return err
	}
	data, err := render.YAML(objects)
	if err != nil {
		return err
	}
	return a.write(data)
}
