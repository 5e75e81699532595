package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/uuid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/restore/transform"
)

// restoreFlags are what "restore create" takes; most are bound to the API's spec.
type restoreFlags struct {
	object         v1alpha1.Restore
	binder         *binder
	file           string
	transformsFile string
	concurrency    int
	dryRun         bool
	wait           bool
	exitCode       bool
	out            outputFlag
}

func (a *app) restoreCreateCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "create [NAME] --from-backup BACKUP",
		Short: "Restore a backup, or a part of it, into a cluster",
		Long: `Restore a backup, or the part of it that flags select, into the cluster that the kubeconfig names.

With --dry-run nothing is written: the target is asked about every object, and what would be created, updated (with the difference) or
refused (by whom and why) is printed.

The server restores into its own cluster; the command returns when that is asked for, or with --wait when it is done. With --local this
process restores: Ctrl-C cancels cleanly, and "kedge restore resume NAME" goes on, also after a crash. --dry-run needs --local.

The exit code is 3 where some objects could not be
restored: each is named in the report.`,
		Example: `  # look first
  kedge restore create --from-backup nightly --dry-run

  # one namespace, under another name
  kedge restore create try --from-backup nightly --include-namespaces shop --namespace-mappings shop:shop-test

  # into a new cluster, with what must be different there
  kedge restore create --from-backup nightly --storage-class-mappings gp2:gp3 --transforms-file green.yaml`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("create restore", err)
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if r != nil {
				return r.createRestore(cmd, name, &f)
			}
			return a.createRestore(cmd.Context(), c, name, &f)
		},
	}
	flags := cmd.Flags()
	f.out.bind(flags, formatTable, formatWide, formatJSON, formatYAML, formatName)
	f.bind(cmd)
	flags.StringVarP(&f.file, "from-file", "f", "", "`file` with a Restore (YAML or JSON; - is stdin); flags are laid over it")
	flags.BoolVar(&f.wait, "wait", false, "with a server: follow the restore to its end (with --local a command always does)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would happen to each object, and write nothing")
	flags.BoolVar(&f.exitCode, "exit-code", false, "with --dry-run: exit with code 3 where something would be changed or refused")
	flags.IntVar(&f.concurrency, "concurrency", 0, "most requests to the API server at once (default: it adapts)")
	a.keys.bindIdentities(flags)
	flags.StringArrayVar(&a.keys.trustedFiles, "trusted-key-file", nil, "`file` with an Ed25519 public key (PEM) whose signatures are accepted, beside the location's (repeatable)")
	annotate(flags, groupKeys, "trusted-key-file")
	bindMovers(flags, &a.movers)
	a.kube.bind(flags)
	return cmd
}

// bind binds the flags that are fields of the spec.
func (f *restoreFlags) bind(cmd *cobra.Command) {
	s := &f.object.Spec
	b := &binder{flags: cmd.Flags()}
	f.binder = b
	b.text(&s.BackupName, "from-backup", "name", "backup to restore, by name or uid")
	b.text(&s.StorageLocation, "storage-location", "name", "location that holds the backup (default: the default one)")
	b.text(&s.ServiceAccountName, "service-account", "name", "with a server: service account, in its namespace, as which it writes to the cluster (default: its own)")
	b.duration(&s.WaitTimeout, "wait-timeout", "longest wait for one thing to become ready (default 5m)")
	b.group = groupKeys
	b.toggle(&s.RequireSignature, "require-signature", "refuse a backup that no trusted key signed")
	b.group = groupSelection
	bindSelection(b, &s.Selection)
	b.group = groupChange
	b.add(&boundFlag{kind: "policy", set: func(value string) error {
		policy, err := parsePolicy(value)
		s.ExistingResourcePolicy = policy
		return err
	}}, "existing-resource-policy", "", "what happens to objects that exist: skip (or none), update, recreate, fail (default skip)")
	b.add(&boundFlag{kind: "mode", set: func(value string) error {
		mode, err := parseUpdateMode(value)
		s.UpdateMode = mode
		return err
	}}, "update-mode", "", "how update works: merge (fields that the backup lacks stay) or exact (they go) (default merge)")
	b.pairs(&s.NamespaceMapping, ":", "namespace-mappings", "old:new", "rename namespaces, and references to them")
	b.add(&boundFlag{kind: "what", set: func(value string) error {
		for _, v := range []v1alpha1.VolumeRestore{v1alpha1.VolumesFromBackup, v1alpha1.VolumesKeep} {
			if strings.EqualFold(strings.ReplaceAll(value, "-", ""), string(v)) {
				s.Volumes = v
				return nil
			}
		}
		return fmt.Errorf("%q is neither from-backup nor keep", value)
	}}, "volumes", "", "from-backup gives claims new volumes with the data of the backup; keep restores volumes as they were archived (default from-backup, and keep for the files of EFS volumes)")
	b.toggle(&s.PreserveNodePorts, "preserve-nodeports", "keep all node ports of Services")
	b.toggle(&s.PreserveClusterIPs, "preserve-cluster-ips", "keep the cluster IPs of Services")
	b.toggle(&s.IncludeControlled, "include-controlled", "restore also what controllers would make again: pods of ReplicaSets, …")
	b.list(&s.RestoreStatus, "status-include-resources", "resources whose status is restored")
	b.text(&s.EBSDriver, "ebs-driver", "driver", "CSI driver that EBS volumes and storage classes get: ebs.csi.eks.amazonaws.com for EKS Auto Mode, or ebs.csi.aws.com (default: as archived)")
	f.bindTransforms(b)
	cmd.Flags().StringVar(&f.transformsFile, "transforms-file", "", "`file` with Transforms (YAML or JSON): mappings and resource modifiers; flags are laid over it")
	annotate(cmd.Flags(), groupChange, "transforms-file")
}

// bindTransforms binds the mappings. The spec's transforms are made when the first of them is given.
func (f *restoreFlags) bindTransforms(b *binder) {
	mapping := func(field func(*v1alpha1.Transforms) *map[string]string, sep, name, kind, text string) {
		transforms := func() *v1alpha1.Transforms {
			if f.object.Spec.Transforms == nil {
				f.object.Spec.Transforms = &v1alpha1.Transforms{}
			}
			return f.object.Spec.Transforms
		}
		b.add(&boundFlag{kind: kind, reset: func() { *field(transforms()) = nil }, set: func(value string) error {
			return addPairs(field(transforms()), kind, sep, value)
		}}, name, "", text)
	}
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.StorageClasses }, ":", "storage-class-mappings", "old:new", "replace storage classes")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.Zones }, ":", "zone-mappings", "old:new", "replace availability zones")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.FileSystems }, ":", "file-system-mappings", "old:new", "replace EFS file systems")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.KMSKeys }, "=", "kms-key-mappings", "old=new", "replace KMS keys of EBS volumes and storage classes; a trailing * stands for a prefix")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.NodeSelectors }, ":", "node-selector-mappings", "k=v:k=v", "replace node selectors; nothing after the colon removes one")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.Images }, "=", "image-mappings", "old=new", "replace image references; a trailing * stands for a prefix")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.RoleARNs }, "=", "role-arn-mappings", "old=new", "replace IAM roles of service accounts")
	mapping(func(t *v1alpha1.Transforms) *map[string]string { return &t.LoadBalancerValues }, "=", "load-balancer-mappings", "old=new", "replace security groups, subnets and certificates in annotations")
}

// parsePolicy reads a policy in any case; Velero's "none" is Skip.
func parsePolicy(text string) (v1alpha1.ExistingResourcePolicy, error) {
	if strings.EqualFold(text, "none") {
		return v1alpha1.PolicySkip, nil
	}
	for _, p := range []v1alpha1.ExistingResourcePolicy{v1alpha1.PolicySkip, v1alpha1.PolicyUpdate, v1alpha1.PolicyRecreate, v1alpha1.PolicyFail} {
		if strings.EqualFold(text, string(p)) {
			return p, nil
		}
	}
	return "", fmt.Errorf("%q is not one of skip, update, recreate, fail", text)
}

func parseUpdateMode(text string) (v1alpha1.UpdateMode, error) {
	for _, m := range []v1alpha1.UpdateMode{v1alpha1.UpdateMerge, v1alpha1.UpdateExact} {
		if strings.EqualFold(text, string(m)) {
			return m, nil
		}
	}
	return "", fmt.Errorf("%q is not one of merge, exact", text)
}

// completeRestore reads the files, lays the flags over them, and checks the result.
func (a *app) completeRestore(f *restoreFlags, name string) error {
	if err := a.readRestoreFiles(f); err != nil {
		return err
	}
	if name != "" {
		f.object.Name = name
	}
	s := &f.object.Spec
	switch {
	case s.BackupName == "":
		return usageError(errors.New("create restore: no backup is named"), `name one with --from-backup; "kedge backup get" lists them`)
	case f.exitCode && !f.dryRun:
		return usageError(errors.New("create restore: --exit-code is given without --dry-run"), "")
	case f.concurrency < 0 || f.concurrency > 1000:
		return usageError(fmt.Errorf("create restore: --concurrency: %d is not between 0 and 1000", f.concurrency), "")
	}
	if f.object.Name == "" {
		f.object.Name = generatedName(s.BackupName, a.env.Now())
	}
	if err := checkName("restore", f.object.Name); err != nil {
		return usageError(fmt.Errorf("create restore: the name: %w", err), "")
	}
	if err := restore.CheckSpec(s); err != nil {
		return usageError(fmt.Errorf("create restore: %w", err), "")
	}
	return nil
}

func (a *app) readRestoreFiles(f *restoreFlags) error {
	if f.file == "" && f.transformsFile == "" {
		return nil
	}
	if f.file != "" {
		var object v1alpha1.Restore
		if err := a.readObject(f.file, "Restore", &object); err != nil {
			return usageError(fmt.Errorf("create restore: %w", err), "")
		}
		f.object = object
	}
	if f.transformsFile != "" {
		data, err := readSmallFile(f.transformsFile)
		if err != nil {
			return usageError(fmt.Errorf("create restore: %w", err), "")
		}
		if err := oneDocument(f.transformsFile, data); err != nil {
			return usageError(fmt.Errorf("create restore: %w", err), "")
		}
		transforms, err := transform.Load(bytes.NewReader(data))
		if err != nil {
			return usageError(fmt.Errorf("create restore: %s: %w", f.transformsFile, err), "")
		}
		f.object.Spec.Transforms = transforms
	}
	if err := f.binder.overlay(); err != nil {
		return usageError(fmt.Errorf("create restore: %w", err), "")
	}
	return nil
}

func (a *app) createRestore(ctx context.Context, c *config, name string, f *restoreFlags) error {
	if err := a.completeRestore(f, name); err != nil {
		return err
	}
	if err := noAccount("create restore", f.object.Spec.ServiceAccountName); err != nil {
		return err
	}
	if _, err := a.findRestoreState(f.object.Name); err == nil && !f.dryRun {
		return restoreExists(f.object.Name)
	}
	a.keys.require = f.object.Spec.RequireSignature
	run, err := a.openRestore(ctx, c, f.object.Spec, f.concurrency)
	if err != nil {
		return err
	}
	request := restore.Request{Name: f.object.Name, UID: string(uuid.NewUUID()), Spec: f.object.Spec}
	plan, err := run.engine.Plan(ctx, request)
	if err != nil {
		return err
	}
	for _, remark := range plan.Remarks {
		a.ui.Warn("%s: %s", remark.Reason, remark.Message)
	}
	if plan.Len() == 0 {
		return codeError(exitNotFound, fmt.Errorf("create restore: backup %s holds nothing that is selected", plan.Source.Name), `"kedge backup items" with the same flags lists what is`)
	}
	if f.dryRun {
		return a.previewRestore(ctx, run, plan, f)
	}
	state, err := a.newRestoreState(request.Name)
	if err != nil {
		return err
	}
	return a.runRestore(ctx, run, plan, state, &f.out)
}
