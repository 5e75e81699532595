package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/uuid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/repository"
)

// backupFlags are what "backup create" takes; most are bound to the API's spec.
type backupFlags struct {
	object  v1alpha1.Backup
	binder  *binder
	file    string
	signKey string
	tuning  tuningFlags
	dryRun  bool
	wait    bool
	out     outputFlag
}

// tuningFlags say how hard a command works.
type tuningFlags struct {
	concurrency int
	spoolDir    string
}

func (a *app) backupCreateCommand() *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Back up the objects of a cluster",
		Long: `Back up the objects of a cluster, all or those that flags select, as they are at one moment.

The server makes the backup; the command returns when it is asked for, or with --wait when it is made. With --local the backup is made by
this process.

Without a name the backup is called <cluster>-<time>. The exit code is 3 where some objects could not be taken: each is named in
"kedge backup describe".`,
		Example: `  # everything
  kedge backup create nightly --ttl 30d

  # two namespaces, with the cluster-scoped objects that they need
  kedge backup create --include-namespaces shop,payments

  # what is written in a file, but kept longer
  kedge backup create nightly -f backup.yaml --ttl 90d

  # which objects would it be?
  kedge backup create --include-namespaces shop --dry-run`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("create backup", err)
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if r != nil {
				return r.createBackup(cmd, name, &f)
			}
			return a.createBackup(cmd.Context(), c, name, &f)
		},
	}
	flags := cmd.Flags()
	f.out.bind(flags, formatTable, formatJSON, formatYAML, formatName)
	f.binder = &binder{flags: flags}
	bindBackup(f.binder, &f.object.Spec, &f.object.Labels)
	flags.StringVarP(&f.file, "from-file", "f", "", "`file` with a Backup (YAML or JSON; - is stdin); flags are laid over it")
	flags.BoolVar(&f.wait, "wait", false, "with a server: follow the backup to its end (with --local a command always does)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "count what would be backed up, and write nothing")
	flags.StringVar(&f.signKey, "sign-key-file", "", "`file` with an Ed25519 private key (PKCS #8 PEM) that signs the backup")
	annotate(flags, groupKeys, "sign-key-file")
	f.tuning.bind(cmd)
	bindMovers(flags, &a.movers)
	f.binder.group = groupSelection
	bindSelection(f.binder, &f.object.Spec.Selection)
	a.kube.bind(flags)
	return cmd
}

// bindBackup binds the flags of what a backup is, but for its selection.
func bindBackup(b *binder, s *v1alpha1.BackupSpec, labels *map[string]string) {
	b.text(&s.StorageLocation, "storage-location", "name", "location that takes the backup (default: the default one)")
	b.duration(&s.TTL, "ttl", "how long the backup is kept: 72h, 30d, 12w (default: until it is deleted)")
	b.pairs(labels, "=", "labels", "key=value", "labels of the backup")
	b.add(&boundFlag{kind: "method", set: func(value string) error {
		method, err := parseVolumeMethod(value)
		if err != nil {
			return err
		}
		if s.Volumes == nil {
			s.Volumes = &v1alpha1.VolumeSelection{}
		}
		s.Volumes.Method = method
		return nil
	}}, "volumes", "", "what is done with the data of claims: snapshot, copy, both, skip; policies per claim come from a file (default skip)")
	bindSnapshotCopies(b, s)
	b.list(&s.AlsoVersions, "also-versions", "served versions to archive beside the chosen one: ingresses.v1beta1.extensions")
	b.text(&s.ServiceAccountName, "service-account", "name", "with a server: service account, in its namespace, as which it reads the cluster (default: its own)")
}

func (t *tuningFlags) bind(cmd *cobra.Command) {
	cmd.Flags().IntVar(&t.concurrency, "concurrency", 0, "most requests to the API server at once (default: it adapts)")
	cmd.Flags().StringVar(&t.spoolDir, "spool-dir", "", "`folder` for temporary files, which are encrypted (default $TMPDIR)")
}

// completeBackup reads the file, lays the flags over it, and checks the result.
func (a *app) completeBackup(f *backupFlags, name string) error {
	if f.file != "" {
		var object v1alpha1.Backup
		if err := a.readObject(f.file, "Backup", &object); err != nil {
			return usageError(fmt.Errorf("create backup: %w", err), "")
		}
		f.object = object
		if err := f.binder.overlay(); err != nil {
			return usageError(fmt.Errorf("create backup: %w", err), "")
		}
	}
	if name != "" {
		f.object.Name = name
	}
	if f.object.Name != "" {
		if err := checkName("backup", f.object.Name); err != nil {
			return usageError(fmt.Errorf("create backup: the name: %w", err), "")
		}
	}
	if f.tuning.concurrency < 0 || f.tuning.concurrency > 1000 {
		return usageError(fmt.Errorf("create backup: --concurrency: %d is not between 0 and 1000", f.tuning.concurrency), "")
	}
	if dir := f.tuning.spoolDir; dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usageError(fmt.Errorf("create backup: --spool-dir: there is no folder %q", dir), "")
		}
	}
	if f.object.Spec.TTL.Duration < 0 {
		return usageError(errors.New("create backup: spec.ttl: it is negative"), "")
	}
	if err := checkLabels(f.object.Labels); err != nil {
		return usageError(fmt.Errorf("create backup: labels: %w", err), "")
	}
	if _, err := selection.Compile(f.object.Spec.Selection); err != nil {
		return usageError(fmt.Errorf("create backup: %w", err), "")
	}
	if _, err := volumes.Compile(f.object.Spec.Volumes); err != nil {
		return usageError(fmt.Errorf("create backup: %w", err), "")
	}
	if _, err := hooks.Compile(f.object.Spec.Hooks); err != nil {
		return usageError(fmt.Errorf("create backup: %w", err), "")
	}
	return nil
}

func (a *app) createBackup(ctx context.Context, c *config, name string, f *backupFlags) error {
	if err := a.completeBackup(f, name); err != nil {
		return err
	}
	if err := noAccount("create backup", f.object.Spec.ServiceAccountName); err != nil {
		return err
	}
	engine := &backup.Engine{
		Version: version, Now: a.env.Now, Rand: rand.Reader,
		Concurrency: f.tuning.concurrency, SpoolDir: orElse(f.tuning.spoolDir, os.TempDir()),
	}
	if f.signKey != "" {
		signer, err := readSigner(f.signKey)
		if err != nil {
			return err
		}
		engine.Signer = signer
	}
	object, err := c.location(f.object.Spec.StorageLocation)
	if err != nil {
		return err
	}
	if object.Spec.ReadOnly && !f.dryRun {
		return codeError(exitRefused, fmt.Errorf("create backup: location %s is read-only", object.Name), "name another with --storage-location")
	}
	start := a.env.Now()
	client, cluster, err := a.cluster(f.tuning.concurrency)
	if err != nil {
		return err
	}
	engine.Kube = client
	if engine.Exec, err = a.commands(); err != nil {
		return err
	}
	if f.object.Name == "" {
		f.object.Name = generatedName(cluster, a.env.Now())
	}
	request := backup.Request{Name: f.object.Name, UID: string(uuid.NewUUID()), Labels: f.object.Labels, Spec: f.object.Spec, ClusterName: cluster}
	request.Spec.StorageLocation = object.Name
	if f.dryRun {
		return a.previewBackup(ctx, engine, request, &f.out)
	}
	var p *place // once the engine has opened it
	if request.Spec.Volumes != nil {
		engine.Providers, engine.Unconfigured = location.BackupProviders(ctx, &object.Spec, nil, client)
		engine.Repository = func(ctx context.Context) (*repository.Repository, error) { return a.openRepository(ctx, p) }
		if engine.Mover, err = a.mover(client, object.Name); err != nil {
			return err
		}
	}
	engine.PublicKey = object.Spec.PublicKey
	switch ttl := request.Spec.TTL.Duration; {
	case object.Spec.ObjectLock && ttl > 0:
		request.RetainUntil = a.env.Now().Add(ttl)
	case object.Spec.ObjectLock:
		a.ui.Warn("location %s has object lock, but without --ttl the backup has no end until which it could be retained", object.Name)
	}
	engine.Open = func(ctx context.Context) (*archive.Location, error) {
		var err error
		if p, err = a.openPlace(ctx, c, object.Name); err != nil {
			return nil, err
		}
		return p.location, unusedName(ctx, p, request.Name)
	}
	record, err := a.runBackup(ctx, engine, request)
	if err != nil {
		return err
	}
	return a.printBackup(record, f, p, start)
}

// unusedName refuses a name that a backup has already: names are how people tell backups apart.
func unusedName(ctx context.Context, p *place, name string) error {
	have, err := p.location.Named(ctx, name)
	if err == nil && len(have) > 0 {
		return usageError(fmt.Errorf("create backup %s: location %s holds a backup of that name already", name, p.object.Name), "choose another name, or none: it is then made of the cluster's name and the time")
	}
	return err
}

func (a *app) runBackup(ctx context.Context, engine *backup.Engine, request backup.Request) (*archive.Record, error) {
	bar := a.ui.Progress("backup "+request.Name, "objects")
	warn := a.warnings()
	engine.Events = backup.Events{
		Progress: func(s backup.Progress) { bar.Set(backupState(s)) },
		Remark: func(severity backup.Severity, r archive.Remark) {
			if severity != backup.SeveritySkipped {
				warn(remarkText(r))
			}
		},
	}
	record, err := engine.Run(ctx, request)
	bar.Done()
	return record, err
}

func (a *app) printBackup(record *archive.Record, f *backupFlags, p *place, start time.Time) error {
	var err error
	entry := archive.Entry{Name: record.Name, UID: record.UID, Record: record}
	switch {
	case f.out.structured():
		err = a.printStructured(f.out.format, backupObject(&entry, p.object.Name))
	case f.out.format == formatName:
		a.printf("%s\n", record.Name)
	default:
		a.printf("Backup %s: %s, %s, %s stored in %s, took %s\n", record.Name, record.Phase, countsText(record.Counts), term.Bytes(record.StoredBytes()), p.store, term.Duration(a.env.Now().Sub(start)))
	}
	if err != nil {
		return err
	}
	return phaseError(record.Phase, `"kedge backup describe `+record.Name+`" names what is missing`, a)
}

// parseVolumeMethod takes the methods of the API in any case.
func parseVolumeMethod(value string) (v1alpha1.VolumeMethod, error) {
	for _, m := range []v1alpha1.VolumeMethod{v1alpha1.VolumeSnapshot, v1alpha1.VolumeCopy, v1alpha1.VolumeBoth, v1alpha1.VolumeSkip} {
		if strings.EqualFold(value, string(m)) {
			return m, nil
		}
	}
	return "", fmt.Errorf("%q is none of snapshot, copy, both, skip", value)
}

// noAccount refuses a service account where no server could act as it.
func noAccount(command, account string) error {
	if account == "" {
		return nil
	}
	return usageError(fmt.Errorf("%s: spec.serviceAccountName: only a server acts as a service account", command), "with --local name the account with --as system:serviceaccount:NAMESPACE:NAME")
}

// phaseError turns the phase of a result into an exit code.
func phaseError(phase v1alpha1.Phase, hint string, a *app) error {
	switch phase {
	case v1alpha1.PhaseCompleted:
		return nil
	case v1alpha1.PhasePartiallyFailed:
		a.ui.Note("%s.", hint)
		return silent(exitPartial)
	case v1alpha1.PhaseCancelled:
		return silent(exitCancelled)
	default:
		a.ui.Note("%s.", hint)
		return silent(exitFailed)
	}
}
