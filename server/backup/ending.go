package backup

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/status"
)

// ending is the end of a backup that nothing is made of any more, while what attempts at it have left is undone: hooks may have left applications
// frozen. This process remembers it; the next finds for the same reason that the backup has to end.
type ending struct {
	message string           // of a backup that failed; "" is of one that was cancelled
	ready   status.Condition // how that one will stand
	tries   int              // that failed
	done    bool
}

// beginning is work that is to begin once that is noted.
type beginning struct {
	work   pool.Work[*archive.Record]
	ending *ending // of work that undoes
}

// endingOf gives the end that a backup is on its way to; nil where there is none.
func (r *Reconciler) endingOf(id types.UID) *ending {
	e, _ := r.endings.Load(id)
	found, _ := e.(*ending)
	return found
}

// cutOff says whether an attempt may have been, of which the pool knows nothing. What waits for its turn is not counted yet.
func cutOff(b *v1alpha1.Backup, phase pool.Phase) bool {
	return phase != pool.Running && b.Status.Attempts > 0
}

// end brings a backup that is on its way to its end a step further.
func (r *Reconciler) end(ctx context.Context, b *v1alpha1.Backup, e *ending, state pool.State[*archive.Record]) (*beginning, error) {
	switch state.Phase {
	case pool.Queued, pool.Running: // its end is told by the pool
		return nil, nil
	case pool.Ended:
		return nil, r.undone(b, e, state.Err)
	case pool.Unknown:
	}
	return r.thaw(ctx, b, e)
}

// thaw gives the work that undoes what attempts have left.
func (r *Reconciler) thaw(ctx context.Context, b *v1alpha1.Backup, e *ending) (*beginning, error) {
	place, err := r.Registry.Get(ctx, locationOf(b))
	if err != nil {
		return nil, err
	}
	what := "is being cancelled"
	if e.message != "" {
		what = "has failed (" + e.message + ")"
	}
	r.set(b, status.Condition{
		Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "InProgress",
		Message: "The backup " + what + ": what an attempt that was cut off has left is undone.",
	})
	return &beginning{work: r.Runner.Thaw(b.DeepCopy(), place), ending: e}, nil
}

// undone takes over how undoing went. What cannot be undone does not keep the backup from its end.
func (r *Reconciler) undone(b *v1alpha1.Backup, e *ending, err error) error {
	failed := !errors.Is(err, pool.ErrCancelled)
	if failed {
		if e.tries++; e.tries < maxFailures {
			return outcome.Waiting(reasonAttemptFailed, retryAfter<<(e.tries-1), fmt.Errorf("undo what attempts have left, failure %d of %d: %w", e.tries, maxFailures, err))
		}
		e.tries-- // where this cannot be written down, it is done once more
	}
	e.done = true
	switch {
	case e.message == "" && failed:
		r.finish(b, v1alpha1.PhaseFailed, err.Error())
	case e.message == "":
		r.finish(b, v1alpha1.PhaseCancelled, "It was cancelled; nothing of it stays.")
	case failed:
		r.finish(b, v1alpha1.PhaseFailed, e.message+"; "+notUndone(err))
		r.set(b, e.ready)
	default:
		r.finish(b, v1alpha1.PhaseFailed, e.message)
		r.set(b, e.ready)
	}
	return nil
}

func notUndone(err error) string {
	return fmt.Sprintf("what an attempt has left was not undone, run the post hooks yourself where something is frozen: %v", err)
}

// owed gives the work that comes before the end of a backup that has just failed after attempts at it; nil where there is none. The end is put off
// then.
func (r *Reconciler) owed(ctx context.Context, b *v1alpha1.Backup) *beginning {
	if e := r.endingOf(b.UID); b.Status.Phase != v1alpha1.PhaseFailed || b.Status.Attempts == 0 || e != nil && e.done {
		return nil
	}
	s := &b.Status
	e := &ending{message: s.Message}
	if ready := meta.FindStatusCondition(s.Conditions, status.Ready); ready != nil {
		e.ready = status.Condition{Type: ready.Type, Status: ready.Status, Reason: ready.Reason, Message: ready.Message}
	}
	begin, err := r.thaw(ctx, b, e)
	if err != nil {
		s.Message += "; " + notUndone(err)
		return nil
	}
	s.Phase, s.CompletionTime = v1alpha1.PhaseQueued, nil // the message stays: a server that follows has it from there
	return begin
}

// locationOf is where a backup is made: once it was begun it stays there, whatever becomes the default.
func locationOf(b *v1alpha1.Backup) string {
	if b.Status.StorageLocation != "" {
		return b.Status.StorageLocation
	}
	return b.Spec.StorageLocation
}
