package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/repository"
)

// restoreRun is an engine with its backup and its target.
type restoreRun struct {
	engine  *restore.Engine
	found   *found
	cluster string
}

// openRestore opens the backup and connects to the target.
func (a *app) openRestore(ctx context.Context, c *config, spec v1alpha1.RestoreSpec, concurrency int) (*restoreRun, error) {
	client, cluster, err := a.cluster(concurrency)
	if err != nil {
		return nil, err
	}
	f, err := a.findBackup(ctx, c, spec.StorageLocation, spec.BackupName)
	if err != nil {
		return nil, err
	}
	reader, err := a.read(ctx, f)
	if err != nil {
		return nil, err
	}
	engine := &restore.Engine{
		Kube: client, Source: restore.FromArchive(reader), TargetName: cluster, Version: version, Now: a.env.Now, Concurrency: concurrency,
	}
	engine.Providers, engine.Unconfigured = location.RestoreProviders(ctx, &f.object.Spec, nil, client, reader.Record(), spec.Volumes)
	engine.Repository = func(ctx context.Context) (*repository.Repository, error) { return a.openRepository(ctx, f.place) }
	if engine.Mover, err = a.mover(client, f.object.Name); err != nil {
		return nil, err
	}
	if engine.Exec, err = a.commands(); err != nil {
		return nil, err
	}
	return &restoreRun{engine: engine, found: f, cluster: cluster}, nil
}

// runRestore carries a plan out, with its journal in the restore's folder.
func (a *app) runRestore(ctx context.Context, run *restoreRun, plan *restore.Plan, state *restoreState, out *outputFlag) (err error) {
	request := plan.Request
	request.Spec.StorageLocation = run.found.object.Name
	started := a.env.Now()
	object := restoreObject(request.Name, request.UID, request.Spec, v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseInProgress, StartTime: timePointer(started), Target: &plan.Target})
	if err := state.saveObject(object); err != nil {
		return err
	}
	journal, err := restore.OpenFileJournal(state.path(stateJournal))
	if err != nil {
		return fmt.Errorf("open the restore's journal: %w", err)
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	log, err := os.OpenFile(state.path(stateLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the restore's log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	logger := slog.New(slog.NewJSONHandler(log, nil))
	logger.Info("restore begins", "restore", request.Name, "backup", plan.Source.Name, "backupUID", plan.Source.UID, "target", run.cluster, "objects", plan.Len())

	run.engine.Journal = journal
	bar := a.ui.Progress("restore "+request.Name, "objects")
	warn := a.warnings()
	run.engine.Events = restore.Events{
		Progress: func(p restore.Progress) { bar.Set(restoreProgress(p)) },
		Remark: func(e restore.Entry) {
			logger.Warn("object", "ref", e.Ref.String(), "outcome", e.Outcome.String(), "reason", string(e.Reason), "by", e.By, "message", e.Message)
			warn(entryText(e))
		},
	}
	report, err := run.engine.Run(ctx, plan)
	bar.Done()
	if report == nil {
		return fmt.Errorf("restore %s: %w", request.Name, err)
	}
	logger.Info("restore ends", "phase", string(report.Phase), "created", report.Counts.Created, "failed", report.Counts.Failed)
	if err != nil && untouched(report) {
		return errors.Join(err, state.drop())
	}
	object.Status = report.Status()
	if err := errors.Join(state.saveReport(report), state.saveObject(object)); err != nil {
		return err
	}
	a.keepReport(ctx, run, report)
	if err != nil {
		return codeError(0, err, "go on with: kedge restore resume "+request.Name)
	}
	return a.printRestored(report, object, out)
}

// untouched says that a run that failed had not come to its first write: there is nothing to resume, and nothing to report but the
// error itself.
func untouched(r *restore.Report) bool {
	c := r.Counts
	return !r.Resumed && c.Created+c.Updated+c.Failed == 0
}

// keepReport writes the report beside the backup, where the bucket may be written, also after a cancel.
func (a *app) keepReport(ctx context.Context, run *restoreRun, report *restore.Report) {
	if run.found.object.Spec.ReadOnly {
		return
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer done()
	if err := restore.ToLocation(run.found.location).PutReport(ctx, report); err != nil {
		a.ui.Warn("the report is on this machine only: %s", oneLine(err.Error()))
	}
}

// reportTimeout bounds the last write of a restore, which a cancel does not stop.
const reportTimeout = 30 * time.Second

func restoreProgress(p restore.Progress) term.State {
	doing := p.Step
	if p.Waiting > 0 {
		doing += fmt.Sprintf(" (%s waiting)", plural(p.Waiting, "object"))
	}
	if p.Failed > 0 {
		doing += fmt.Sprintf(" (%d failed)", p.Failed)
	}
	return term.State{Done: int64(p.Done), Total: int64(p.Total), Doing: doing}
}

// printRestored prints how a restore ended, and gives its exit code.
func (a *app) printRestored(report *restore.Report, object *v1alpha1.Restore, out *outputFlag) error {
	switch {
	case out.structured():
		if err := a.printStructured(out.format, object); err != nil {
			return err
		}
	case out.format == formatName:
		a.printf("%s\n", report.Name)
	default:
		a.printf("Restore %s: %s, %s, took %s\n", report.Name, report.Phase, restoreCountsText(report.Counts), term.Duration(report.Completed.Sub(report.Started)))
		if report.Message != "" {
			a.printf("%s\n", report.Message)
		}
	}
	hint := `"kedge restore describe ` + report.Name + `" names what is not simply created`
	if report.Phase == v1alpha1.PhaseCancelled {
		a.ui.Note("Go on with: kedge restore resume %s", report.Name)
	}
	if report.Phase == v1alpha1.PhaseCompleted && len(report.Entries) > 0 {
		a.ui.Note("%s.", hint)
	}
	return phaseError(report.Phase, hint, a)
}
