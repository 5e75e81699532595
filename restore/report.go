package restore

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Entry is one line of a report: what became of an object that was not simply created, or a remark on it.
type Entry struct {
	// Ref is the object in the backup.
	Ref plugins.Ref `json:"ref"`
	// Outcome is what became of the object; a remark has that of its object.
	Outcome Outcome `json:"outcome"`
	Reason  Reason  `json:"reason"`
	// By names who refused the object: "webhook policy.example.com", "ResourceQuota compute".
	By      string `json:"by,omitempty"`
	Message string `json:"message,omitempty"`
	// Warning marks a remark beside the outcome.
	Warning bool `json:"warning,omitempty"`
}

// Report says what a restore did. Every object of the plan that is not simply created has an entry.
type Report struct {
	Name      string                 `json:"name"`
	UID       string                 `json:"uid"`
	Backup    string                 `json:"backup"`
	BackupUID string                 `json:"backupUID"`
	Target    v1alpha1.ClusterInfo   `json:"target"`
	Phase     v1alpha1.Phase         `json:"phase"`
	Message   string                 `json:"message,omitempty"`
	Counts    v1alpha1.RestoreCounts `json:"counts"`
	Started   time.Time              `json:"started"`
	Completed time.Time              `json:"completed"`
	// Resumed says that the run went on with the journal of an earlier one.
	Resumed bool             `json:"resumed,omitempty"`
	Entries []Entry          `json:"entries,omitempty"`
	Remarks []plugins.Remark `json:"remarks,omitempty"`

	hooksFailed int // that must not
}

// Status is the report as the status of a Restore.
func (r *Report) Status() v1alpha1.RestoreStatus {
	s := v1alpha1.RestoreStatus{Phase: r.Phase, Message: r.Message, Counts: r.Counts, StartTime: &metav1.Time{Time: r.Started}}
	if !r.Completed.IsZero() {
		s.CompletionTime = &metav1.Time{Time: r.Completed}
	}
	target := r.Target
	s.Target = &target
	return s
}

// decidePhase derives the phase from the counts. An object without an outcome lacks as much as one that failed.
func (r *Report) decidePhase(cancelled bool, stopped error) {
	c := r.Counts
	done := c.Created + c.Updated + c.Unchanged + c.Skipped + c.Failed
	lacking := c.Failed + max(0, c.Planned-done)
	switch {
	case stopped != nil:
		r.Phase, r.Message = v1alpha1.PhaseFailed, stopped.Error()
	case cancelled:
		r.Phase = v1alpha1.PhaseCancelled
		r.Message = fmt.Sprintf("stopped after %d of %d objects; it can be resumed", done, c.Planned)
	case lacking == 0 && r.hooksFailed > 0:
		r.Phase = v1alpha1.PhasePartiallyFailed
		r.Message = fmt.Sprintf("all objects were restored, but hooks failed: %d", r.hooksFailed)
	case lacking == 0:
		r.Phase = v1alpha1.PhaseCompleted
	case c.Created+c.Updated+c.Unchanged == 0:
		r.Phase = v1alpha1.PhaseFailed
		r.Message = fmt.Sprintf("none of %d objects could be restored", lacking)
	default:
		r.Phase = v1alpha1.PhasePartiallyFailed
		r.Message = fmt.Sprintf("%d of %d objects could not be restored", lacking, c.Planned)
	}
}

// WriteSummary prints the report for people: the counts, each failure, and the reasons of all else with how often they occur.
func (r *Report) WriteSummary(w io.Writer) error {
	var b bytes.Buffer
	c := r.Counts
	fmt.Fprintf(&b, "%s: %d created, %d updated, %d unchanged, %d skipped, %d failed of %d", r.Phase, c.Created, c.Updated, c.Unchanged, c.Skipped, c.Failed, c.Planned)
	if !r.Completed.IsZero() {
		fmt.Fprintf(&b, " in %s", r.Completed.Sub(r.Started).Round(100*time.Millisecond))
	}
	b.WriteByte('\n')
	if r.Message != "" {
		fmt.Fprintf(&b, "%s\n", r.Message)
	}
	type group struct {
		outcome Outcome
		reason  Reason
	}
	counts := map[group]int{}
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Outcome == Failed && !e.Warning {
			by := ""
			if e.By != "" {
				by = " by " + e.By
			}
			fmt.Fprintf(&b, "failed: %s: %s%s: %s\n", e.Ref, e.Reason, by, e.Message)
			continue
		}
		counts[group{e.Outcome, e.Reason}]++
	}
	groups := make([]group, 0, len(counts))
	for g := range counts {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b group) int {
		if c := cmp.Compare(a.outcome, b.outcome); c != 0 {
			return c
		}
		return cmp.Compare(a.reason, b.reason)
	})
	for _, g := range groups {
		fmt.Fprintf(&b, "%s, %s: %d (%s)\n", g.outcome, g.reason, counts[g], reasonTexts[g.reason])
	}
	for _, m := range r.Remarks {
		fmt.Fprintf(&b, "note: %s: %s\n", m.Reason, m.Message)
	}
	_, err := w.Write(b.Bytes())
	return err
}
