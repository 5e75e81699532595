package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/podexec"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/backup"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/volume/mover"
)

// keepFor bounds how long the report and the log of a restore that has ended are tried to be written.
const keepFor = time.Minute

// Runner carries out one restore with the engine.
type Runner struct {
	// Config reaches the cluster as the server itself.
	Config *rest.Config
	// KubeOptions are for the clients that write to the cluster.
	KubeOptions kube.Options
	// Client writes the Secrets of journals; Secrets lists them, not from a cache.
	Client  client.Client
	Secrets client.Reader
	// ClusterName is what people call the cluster; Version is Kedge's own.
	ClusterName, Version string
	// Namespace is Kedge's own: what is in it already is not changed.
	Namespace string
	// Movers say how Jobs for the files of volumes are run. They run as the server's, whoever the restore's account is.
	Movers mover.Settings
	// Metrics counts what could not be restored; nil does not.
	Metrics *metrics.Recorder
	Log     *slog.Logger
	Now     func() time.Time
	// NewID makes a text that no other process makes.
	NewID func() string
}

// attempt is one run of one restore.
type attempt struct {
	*Runner
	object  *v1alpha1.Restore
	place   *location.Place
	store   *journal.Store
	journal *journal.Journal
	start   *restore.Start // of an earlier attempt; nil where there is none
	log     *slog.Logger
	lines   *journal.Log
	givenUp string // why nothing more is restored; what was is reported
}

// Work is the carrying out of a restore, or its going on. Its result is the report of a restore that has come to its end.
func (r *Runner) Work(object *v1alpha1.Restore, place *location.Place) pool.Work[*restore.Report] {
	return r.work(object, place, "")
}

// GiveUp is the end of a restore of which nothing more is tried: as for a cancelled one the journal is read and nothing is written to the cluster. The report
// that is its result says that it failed, and why.
func (r *Runner) GiveUp(object *v1alpha1.Restore, place *location.Place, why string) pool.Work[*restore.Report] {
	object = object.DeepCopy()
	object.Spec.Cancel = true
	return r.work(object, place, why)
}

func (r *Runner) work(object *v1alpha1.Restore, place *location.Place, givenUp string) pool.Work[*restore.Report] {
	return func(ctx context.Context, report func(v1alpha1.Progress)) (*restore.Report, error) {
		a := &attempt{
			Runner: r, object: object, place: place, lines: &journal.Log{}, givenUp: givenUp,
			store: &journal.Store{Client: r.Client, Lister: r.Secrets, Owner: object, Writer: r.NewID()},
		}
		handler := slog.NewMultiHandler(r.Log.Handler(), slog.NewJSONHandler(a.lines, nil))
		a.log = slog.New(handler).With("restore", object.Name)
		kept, err := journal.ReadReport(ctx, a.store)
		switch {
		case err != nil:
			return nil, stalledIfDamaged(err)
		case kept != nil: // a server that died had come to the end, but not told
			a.clean(ctx)
			return kept, nil
		}
		made, err := a.run(ctx, report)
		if made == nil && err != nil {
			return a.inVain(ctx, err)
		}
		return made, err
	}
}

// run goes from the journal to the kept report.
func (a *attempt) run(ctx context.Context, progress func(v1alpha1.Progress)) (*restore.Report, error) {
	if err := a.open(ctx); err != nil {
		return nil, a.stopped(ctx, err)
	}
	engine, plan, err := a.plan(ctx)
	if err != nil {
		return nil, a.stopped(ctx, err)
	}
	a.log.Info("restore begins", "backup", plan.Source.Name, "backupUID", plan.Source.UID, "objects", plan.Len(), "attempt", a.object.Status.Attempts, "goesOn", a.start != nil)
	a.listen(engine, progress)
	report, err := a.carryOut(ctx, engine, plan)
	cancelled := errors.Is(context.Cause(ctx), pool.ErrCancelled)
	last := a.object.Status.Failures+1 >= maxFailures
	switch {
	case a.journal.Failed() != nil:
		return nil, a.stopped(ctx, a.journal.Failed()) // maybe another server's by now
	case ctx.Err() != nil && !cancelled:
		return nil, a.stopped(ctx, ctx.Err()) // the next leader goes on
	case report == nil && errors.Is(err, restore.ErrJournalMismatch):
		return nil, a.stopped(ctx, outcome.Stalled("JournalMismatch", err))
	case report == nil, err != nil && !last:
		return nil, a.stopped(ctx, err)
	}
	if a.givenUp != "" && report.Phase == v1alpha1.PhaseCancelled {
		report.Phase, report.Message = v1alpha1.PhaseFailed, a.givenUp
	}
	if err := a.keep(ctx, report); err != nil {
		return nil, err
	}
	return report, nil
}

// open takes the journal over and reads how it begins.
func (a *attempt) open(ctx context.Context) (err error) {
	if a.journal, err = journal.Open(ctx, a.store, a.Now); err != nil {
		return stalledIfDamaged(err)
	}
	a.start, err = restore.ReadStart(ctx, a.journal)
	return stalledIfDamaged(err)
}

func stalledIfDamaged(err error) error {
	if errors.Is(err, journal.ErrDamaged) {
		return outcome.Stalled("JournalDamaged", err)
	}
	return err
}

// plan opens the backup and asks the target.
func (a *attempt) plan(ctx context.Context) (*restore.Engine, *restore.Plan, error) {
	request := restore.Request{Name: a.object.Name, UID: string(a.object.UID), Spec: a.object.Spec}
	name := orElse(a.object.Status.BackupUID, a.object.Spec.BackupName)
	if a.start != nil {
		if a.start.UID != request.UID {
			return nil, nil, outcome.Stalled("JournalMismatch", fmt.Errorf("%w: it is of the restore %s", restore.ErrJournalMismatch, a.start.UID))
		}
		request.Spec, name = a.start.Spec, a.start.BackupUID // as it was begun
		request.Spec.ServiceAccountName = a.object.Spec.ServiceAccountName
	}
	reader, err := a.backup(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	own, err := kube.New(a.Config, a.KubeOptions)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	account := backup.As(a.Config, a.object.Namespace, a.object.Spec.ServiceAccountName)
	as, err := kube.New(account, a.KubeOptions)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	commands, err := podexec.New(account)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	providers, unconfigured := a.place.RestoreProviders(ctx, own, reader.Record(), request.Spec.Volumes)
	engine := &restore.Engine{
		Exec:      commands,
		Mover:     a.Movers.With(own, a.place.Object.Name, a.Now),
		Providers: providers, Unconfigured: unconfigured, Repository: a.place.Repository,
		Kube: as, Look: own, Source: restore.FromArchive(reader), Journal: a.journal, TargetName: a.ClusterName, Version: a.Version,
		OwnNamespace: a.Namespace, Now: a.Now,
	}
	plan, err := engine.Plan(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	if plan.Len() == 0 {
		return nil, nil, outcome.Stalled("NothingSelected", fmt.Errorf("plan restore %s: backup %s holds nothing that is selected", request.Name, plan.Source.Name))
	}
	return engine, plan, nil
}

// backup opens the backup for reading.
func (a *attempt) backup(ctx context.Context, name string) (*archive.Reader, error) {
	entry, err := a.place.Archive.Find(ctx, name)
	if errors.Is(err, archive.ErrBackupNotFound) || errors.Is(err, plugins.ErrNotFound) {
		return nil, outcome.Stalled("BackupNotFound", fmt.Errorf("find backup %s in location %s: %w", name, a.place.Object.Name, err))
	}
	if err != nil {
		return nil, fmt.Errorf("find backup %s in location %s: %w", name, a.place.Object.Name, err)
	}
	keys, err := a.place.Keys(ctx)
	if err != nil {
		return nil, err
	}
	trusted, err := a.place.TrustedKeys()
	if err != nil {
		return nil, err
	}
	reader, err := a.place.Archive.OpenBackup(ctx, entry, keys, archive.ReadOptions{TrustedKeys: trusted, RequireSignature: a.object.Spec.RequireSignature})
	if err == nil {
		return reader, nil
	}
	err = fmt.Errorf("open backup %s: %w", entry.Name, err)
	if reason := refusal(err); reason != "" {
		return nil, outcome.Stalled(reason, err)
	}
	return nil, err
}

// refusal is the reason of an error that says of a backup that it cannot be used; "" is any other.
func refusal(err error) string {
	_, damaged := errors.AsType[*archive.DamageError](err)
	switch {
	case damaged:
		return "BackupDamaged"
	case errors.Is(err, archive.ErrSignature):
		return "SignatureRefused"
	case errors.Is(err, archive.ErrDeleting):
		return "BackupDeleting"
	case errors.Is(err, archive.ErrKeyMismatch), errors.Is(err, archive.ErrNewerFormat):
		return "BackupUnreadable"
	}
	return ""
}

// listen passes on what the engine tells.
func (a *attempt) listen(engine *restore.Engine, progress func(v1alpha1.Progress)) {
	engine.Events = restore.Events{
		Progress: func(p restore.Progress) {
			progress(v1alpha1.Progress{Stage: p.Step, Done: int64(p.Done), Total: int64(p.Total)})
		},
		Remark: func(e restore.Entry) {
			a.log.Warn("object", "ref", e.Ref.String(), "outcome", e.Outcome.String(), "reason", string(e.Reason), "by", e.By, "message", e.Message)
			if e.Outcome == restore.Failed && !e.Warning {
				a.Metrics.ItemError(metrics.KindRestore, string(e.Reason), 1)
			}
		},
	}
}

// carryOut runs the engine, and beside it what writes the journal.
func (a *attempt) carryOut(ctx context.Context, engine *restore.Engine, plan *restore.Plan) (report *restore.Report, err error) {
	group, groupCtx := errgroup.WithContext(ctx)
	journalCtx, stop := context.WithCancel(groupCtx)
	defer stop()
	group.Go(func() error { return a.journal.Run(journalCtx) })
	group.Go(func() (err error) {
		defer stop()
		engineCtx, cancel := context.WithCancel(groupCtx)
		defer cancel()
		if a.object.Spec.Cancel {
			engine.Journal = readOnce{a.journal, cancel}
		}
		report, err = engine.Run(engineCtx, plan)
		return err
	})
	err = group.Wait()
	return report, err
}

// readOnce is the journal of a restore that was cancelled when its server was dead already: once it is read, there is nothing more to do.
type readOnce struct {
	restore.Journal
	cancel context.CancelFunc
}

// Replay cancels the restore when everything is read.
func (j readOnce) Replay(ctx context.Context, fn func(restore.Record) error) error {
	err := j.Journal.Replay(ctx, fn)
	if err == nil {
		j.cancel()
	}
	return err
}

// stopped keeps the log of an attempt that is not the restore's end.
func (a *attempt) stopped(ctx context.Context, err error) error {
	a.lines.End()
	a.log.Error(attemptEnds, "attempt", a.object.Status.Attempts, "error", strings.ToValidUTF8(err.Error()[:min(len(err.Error()), maxError)], ""))
	keepCtx, done := context.WithTimeout(context.WithoutCancel(ctx), keepFor/4)
	defer done()
	if keepErr := a.lines.Keep(keepCtx, a.store); keepErr != nil {
		a.Log.Warn("the log of a restore is not kept", "restore", a.object.Name, "error", keepErr.Error())
	}
	return err
}

// keep writes the report: beside the backups, where the location may be written, and always into the cluster, where it is the mark that
// the restore has come to its end. Then the journal is not needed any more.
func (a *attempt) keep(ctx context.Context, report *restore.Report) error {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), keepFor)
	defer done()
	report.Message = strings.TrimSuffix(report.Message, "; it can be resumed")
	if !a.place.Object.Spec.ReadOnly {
		if err := restore.KeepOnce(ctx, a.place.Archive, report); err != nil {
			report.Remarks = append(report.Remarks, plugins.Remark{Reason: string(restore.ReportNotKept), Message: err.Error()})
			report.Counts.Warnings++
		}
	}
	c := report.Counts
	a.lines.End()
	a.log.Info("restore ends", "phase", string(report.Phase), "created", c.Created, "updated", c.Updated, "unchanged", c.Unchanged, "skipped", c.Skipped, "failed", c.Failed)
	if err := a.lines.Keep(ctx, a.store); err != nil {
		a.Log.Warn("the log of a restore is not kept", "restore", a.object.Name, "error", err.Error())
	}
	if err := journal.PutReport(ctx, a.store, report); err != nil {
		return err
	}
	a.clean(ctx)
	return nil
}

// tidy removes the journal of a restore that is over, where more than one server worked on it: a write that one of them had sent before it was
// replaced may arrive when another has removed what it was for.
func (r *Runner) tidy(ctx context.Context, o *v1alpha1.Restore) error {
	if o.Status.Attempts < 2 {
		return nil
	}
	return journal.Remove(ctx, &journal.Store{Client: r.Client, Lister: r.Secrets, Owner: o})
}

// clean removes the journal. What is left of it goes with the object.
func (a *attempt) clean(ctx context.Context) {
	if err := journal.Remove(ctx, a.store); err != nil {
		a.Log.Warn("the journal of a restore stays until its object is deleted", "restore", a.object.Name, "error", err.Error())
	}
}
