package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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
	var found ends
	if err := journal.CopyLog(ctx, a.store, &found); err != nil {
		return append(found.remarks, plugins.Remark{Reason: string(restore.AttemptFailed), Message: fmt.Sprintf("the log of the attempts cannot be read: %v", err)})
	}
	if found.seen != maxFailures {
		found.remarks = append(found.remarks, plugins.Remark{
			Reason:  string(restore.AttemptFailed),
			Message: fmt.Sprintf("%d attempts failed, and the log says of %d how they ended, of which at most the first %d are named: the log of an attempt may not have been kept, and one that is put down with its server ends too", maxFailures, found.seen, maxEnds),
		})
	}
	return found.remarks
}

// inVain says whether a report is one that inVain made: no other remarks on attempts.
func inVain(report *restore.Report) bool {
	return slices.ContainsFunc(report.Remarks, func(r plugins.Remark) bool { return r.Reason == string(restore.AttemptFailed) })
}

// The bounds of what is read of how attempts end.
const (
	maxError = 16 << 10 // of one, as it is written
	maxLine  = 128 << 10
	maxEnds  = 32
)

// ends takes a log and keeps of it only how attempts ended.
type ends struct {
	line    []byte // what came of the line so far
	long    bool   // it is longer than maxLine, and none of ours
	seen    int
	remarks []plugins.Remark
}

// Write takes a piece of the log.
func (e *ends) Write(p []byte) (int, error) {
	for part := range bytes.Lines(p) {
		if !e.long && len(e.line)+len(part) <= maxLine {
			e.line = append(e.line, part...)
		} else {
			e.long = true
		}
		if part[len(part)-1] == '\n' {
			if !e.long {
				e.take()
			}
			e.line, e.long = e.line[:0], false
		}
	}
	return len(p), nil
}

// take looks at a whole line.
func (e *ends) take() {
	var l struct {
		Msg, Error string
		Attempt    int
	}
	if !bytes.Contains(e.line, []byte(attemptEnds)) || json.Unmarshal(e.line, &l) != nil || l.Msg != attemptEnds {
		return
	}
	e.seen++
	if len(e.remarks) < maxEnds {
		e.remarks = append(e.remarks, plugins.Remark{Reason: string(restore.AttemptFailed), Message: fmt.Sprintf("attempt %d: %s", l.Attempt, l.Error)})
	}
}
