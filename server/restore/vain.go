package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
)

// attemptEnds is the line of the log for an attempt that was not the restore's end.
const attemptEnds = "attempt ends"

// inVain makes the report of a restore whose last attempt failed before its engine made one: the log of the attempts says why each of them did. Where an
// attempt is not the last, or another server may be at work, the error is all there is.
func (a *attempt) inVain(ctx context.Context, err error) (*restore.Report, error) {
	last := a.object.Status.Failures+1 >= maxFailures
	if !last || a.givenUp != "" || ctx.Err() != nil || errors.Is(err, pool.ErrCancelled) || outcome.Of(err).Kind == outcome.IsStalled || a.journal == nil || a.journal.Failed() != nil {
		return nil, err
	}
	o := a.object
	report := &restore.Report{
		Name: o.Name, UID: string(o.UID), Backup: o.Spec.BackupName, BackupUID: o.Status.BackupUID, Phase: v1alpha1.PhaseFailed,
		Message: fmt.Sprintf("given up after %d attempts that failed, the last: %v", maxFailures, err), Completed: a.Now(), Resumed: a.start != nil,
	}
	report.Target.Name = a.ClusterName
	if o.Status.StartTime != nil {
		report.Started = o.Status.StartTime.Time
	}
	report.Remarks = a.failures(ctx)
	if a.start != nil {
		report.Remarks = append(report.Remarks, plugins.Remark{
			Reason: string(restore.CountsUnknown), Message: "an earlier attempt may have restored objects, which this report does not count: the log names them where something was remarkable. Restore again: what is there already is left alone",
		})
	}
	report.Counts.Warnings = len(report.Remarks)
	if keepErr := a.keep(ctx, report); keepErr != nil {
		a.Log.Warn("the report of a restore is not kept", "restore", o.Name, "error", keepErr.Error())
		return nil, err
	}
	return report, nil
}

// failures are the remarks on why attempts failed, of all whose log was kept.
func (a *attempt) failures(ctx context.Context) []plugins.Remark {
	var log bytes.Buffer
	if err := journal.CopyLog(ctx, a.store, &log); err != nil {
		return []plugins.Remark{{Reason: string(restore.AttemptFailed), Message: fmt.Sprintf("the log of the attempts cannot be read: %v", err)}}
	}
	var remarks []plugins.Remark
	for line := range bytes.Lines(log.Bytes()) {
		var l struct {
			Msg, Error string
			Attempt    int
		}
		if json.Unmarshal(line, &l) == nil && l.Msg == attemptEnds {
			remarks = append(remarks, plugins.Remark{Reason: string(restore.AttemptFailed), Message: fmt.Sprintf("attempt %d: %s", l.Attempt, l.Error)})
		}
	}
	return remarks
}
