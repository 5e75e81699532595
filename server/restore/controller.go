// Package restore carries out the restores that Restore objects ask for, also across the deaths of servers.
package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/status"
)

// The bounds of patience.
const (
	// maxFailures is how many attempts at a restore may fail. Those that ended with their server did not fail.
	maxFailures = 5
	// retryAfter is the wait before the second attempt; each further one waits twice as long.
	retryAfter = 15 * time.Second
	// unableFor is how long a restore waits for a location that cannot be used.
	unableFor = time.Hour
	// reasonNotReady is of a restore whose backup is still being made.
	reasonNotReady = "BackupNotReady"
	// lateFor is when a restore that several servers worked on is looked at once more: what an earlier one sent may have come late.
	lateFor = time.Minute
	// backupAgain is how often a backup that is still being made is looked at.
	backupAgain = 10 * time.Second
)

// reasonAttemptFailed is the reason of the condition Ready between an attempt that failed and the next.
const reasonAttemptFailed = "AttemptFailed"

// Pool runs the restores of a server.
type Pool = pool.Pool[*restore.Report]

// Reconciler carries out the restores that objects ask for. Work runs in the pool; a Reconcile only begins it and notes where it stands.
type Reconciler struct {
	Client   client.Client
	Registry *location.Registry
	Pool     *Pool
	Runner   *Runner
	Events   events.EventRecorder
	// RequireServiceAccount refuses restores that do not name an account to write as.
	RequireServiceAccount bool
	// Patience bounds how often a restore is gone on with over which servers end; nil does not.
	Patience *attempts.Patience
	// Metrics counts how restores end; nil does not.
	Metrics *metrics.Recorder
	Now     func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Restore{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(r.Pool.Changed()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile brings one restore a step further.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.Restore
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.Pool.ForgetKey(req.NamespacedName) // deleting the object of a running restore cancels it
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !object.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if object.Status.Phase.Final() {
		r.Pool.Forget(object.UID)
		r.Patience.Forget(object.UID)
		return ctrl.Result{}, r.Runner.tidy(ctx, &object)
	}
	before := object.DeepCopy()
	o := &object
	o.Status.ObservedGeneration = o.Generation
	begin, err := r.step(ctx, o)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if err != nil {
		r.unable(o, err)
	}
	if patchErr := status.Patch(ctx, r.Client, o, before); patchErr != nil {
		return status.Lost(patchErr)
	}
	if err != nil && outcome.Of(err).Reason == reasonAttemptFailed { // only now, so that a failure that could not be written is not lost
		r.Pool.Forget(o.UID)
	}
	if begin != nil { // it is written down that it is queued, so that a crash leaves an object that is gone on with
		r.Pool.Start(o.UID, req.NamespacedName, o.Spec.StorageLocation, begin)
	}
	if o.Status.Phase.Final() {
		r.announce(o)
		if o.Status.Attempts > 1 {
			return ctrl.Result{RequeueAfter: lateFor}, nil
		}
		return ctrl.Result{}, nil
	}
	return outcome.Result(err)
}

// step looks at where the work stands and changes the status accordingly. It gives the work that is to begin, once that is noted.
func (r *Reconciler) step(ctx context.Context, o *v1alpha1.Restore) (pool.Work[*restore.Report], error) {
	state := r.Pool.State(o.UID)
	if state.Phase == pool.Unknown && o.Status.Phase == v1alpha1.PhaseInProgress && o.Status.Attempts > 0 { // it is counted once: from here on it is not InProgress
		r.Metrics.AttemptFailed(metrics.KindRestore, attempts.ReasonInterrupted)
	}
	if o.Spec.Cancel {
		switch state.Phase {
		case pool.Running:
			r.Pool.Cancel(o.UID)
			return nil, nil // its end is told by the pool
		case pool.Queued:
			r.Pool.Forget(o.UID)
			state.Phase = pool.Unknown
		case pool.Unknown, pool.Ended:
		}
		if state.Phase == pool.Unknown && o.Status.Attempts <= 0 {
			r.finish(o, v1alpha1.PhaseCancelled, "It was cancelled before it was begun.")
			return nil, nil
		}
		// Where an earlier server had begun, the work reads the journal, writes nothing to the cluster, and makes the report.
	}
	switch state.Phase {
	case pool.Queued, pool.Running:
		r.note(o, state)
		return nil, nil
	case pool.Ended:
		return nil, r.ended(o, state)
	case pool.Unknown:
	}
	return r.prepare(ctx, o)
}

// prepare checks the spec and gives the work. Where an earlier attempt, of this server or another, was cut off, this is how it goes on.
func (r *Reconciler) prepare(ctx context.Context, o *v1alpha1.Restore) (pool.Work[*restore.Report], error) {
	if err := r.check(o); err != nil {
		return nil, err
	}
	locationName, uid, err := r.backupOf(ctx, o)
	if err != nil {
		return nil, err
	}
	place, err := r.Registry.Get(ctx, locationName)
	if err != nil {
		return nil, err
	}
	if err := r.interrupted(o); err != nil {
		if outcome.Of(err).Reason == attempts.ReasonTooOften && !givenUp(o) {
			return r.giveUp(o, place, uid, err), nil
		}
		return nil, err
	}
	s := &o.Status
	s.Phase, s.BackupUID, s.RefusedSince = v1alpha1.PhaseQueued, uid, nil
	if s.StartTime == nil {
		now := metav1.NewTime(r.Now())
		s.StartTime = &now
	}
	r.set(o, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "Queued", Message: "The restore waits for its turn."})
	return r.noted(o.DeepCopy(), place), nil
}

// noted is the work of a restore, with what is written down of it: an attempt counts from when it runs, so that a server that ends over one restore
// counts against none that waited for its turn.
func (r *Reconciler) noted(o *v1alpha1.Restore, place *location.Place) pool.Work[*restore.Report] {
	key := client.ObjectKeyFromObject(o)
	begins := func(ctx context.Context) error {
		return status.Change(ctx, r.Client, key, o.UID, func(now *v1alpha1.Restore) {
			now.Status.Attempts++
			r.note(now, pool.State[*restore.Report]{Phase: pool.Running})
			o.Status = *now.Status.DeepCopy()
		})
	}
	stopped := func(ctx context.Context) error {
		return status.Change(ctx, r.Client, key, o.UID, func(now *v1alpha1.Restore) {
			now.Status.Stops++
			now.Status.Phase, now.Status.Progress = v1alpha1.PhaseQueued, nil
			r.set(now, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "Queued", Message: "Its server was stopped; the next goes on."})
		})
	}
	return pool.Noted(r.Runner.Work(o, place), begins, stopped)
}

// giveUp gives the work that reports what was restored, before a restore over which too many servers ended is Failed. That is tried once: it may be what
// ends servers. The message is the mark that it was.
func (r *Reconciler) giveUp(o *v1alpha1.Restore, place *location.Place, uid string, why error) pool.Work[*restore.Report] {
	o.Status.Phase, o.Status.Progress, o.Status.BackupUID, o.Status.Message = v1alpha1.PhaseQueued, nil, uid, why.Error()
	r.set(o, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "InProgress", Message: "The restore is given up; the report of what was done is made."})
	return r.Runner.GiveUp(o, place, why.Error())
}

// givenUp says whether a restore that has not ended is on its way to that, and only its report is made.
func givenUp(o *v1alpha1.Restore) bool { return o.Status.Message != "" && !o.Status.Phase.Final() }

// interrupted looks whether the servers that ended over the restore were too many. An attempt that failed ended by itself; ended
// bounds those. A cancelled one only makes its report.
func (r *Reconciler) interrupted(o *v1alpha1.Restore) error {
	if o.Spec.Cancel {
		return nil
	}
	return r.Patience.Check(o.UID, o.Status.Attempts-o.Status.Failures-o.Status.Stops, r.Now())
}

// check refuses what the API server's own validation cannot, or on old versions does not.
func (r *Reconciler) check(o *v1alpha1.Restore) error {
	if o.Spec.BackupName == "" {
		return outcome.Stalled("InvalidSpec", errors.New("read the spec: spec.backupName: it is empty: name the backup, or its uid"))
	}
	if err := restore.CheckSpec(&o.Spec); err != nil {
		return outcome.Stalled("InvalidSpec", fmt.Errorf("read the spec: %w", err))
	}
	if r.RequireServiceAccount && o.Spec.ServiceAccountName == "" {
		return outcome.Stalled("ServiceAccountRequired", errors.New("read the spec: spec.serviceAccountName: this server restores only as an account that the restore names"))
	}
	return nil
}

// backupOf finds where the backup is. The uid is "" where no Backup object tells it, and the location is searched for the name. Once
// a restore has begun, its backup does not change, whatever the name comes to stand for.
func (r *Reconciler) backupOf(ctx context.Context, o *v1alpha1.Restore) (locationName, uid string, err error) {
	locationName, uid = o.Spec.StorageLocation, o.Status.BackupUID
	var b v1alpha1.Backup
	err = r.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Spec.BackupName}, &b)
	if apierrors.IsNotFound(err) {
		return locationName, uid, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("find backup %s: %w", o.Spec.BackupName, err)
	}
	held := b.Status.StorageLocation
	switch {
	case locationName != "" && held != "" && held != locationName, uid != "" && uid != b.Status.ArchiveUID:
		return locationName, uid, nil // the object is about another backup of that name
	case !b.Status.Phase.Final():
		return "", "", outcome.Waiting(reasonNotReady, backupAgain, fmt.Errorf("find backup %s: it is not done yet (%s)", b.Name, orElse(string(b.Status.Phase), "not begun")))
	case !b.Status.Phase.Usable():
		return "", "", outcome.Stalled("BackupUnusable", fmt.Errorf("find backup %s: it is %s and holds nothing: %s", b.Name, b.Status.Phase, orElse(b.Status.Message, "see its log")))
	}
	return orElse(locationName, held), b.Status.ArchiveUID, nil
}

// note shows progress.
func (r *Reconciler) note(o *v1alpha1.Restore, state pool.State[*restore.Report]) {
	if state.Phase == pool.Queued {
		return
	}
	o.Status.Phase = v1alpha1.PhaseInProgress
	progress := state.Progress
	o.Status.Progress = &progress
	r.set(o, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "InProgress", Message: "The restore is at work."})
}

// ended takes over what the work returned.
func (r *Reconciler) ended(o *v1alpha1.Restore, state pool.State[*restore.Report]) error {
	err, s := state.Err, &o.Status
	switch {
	case errors.Is(err, pool.ErrNotBegun):
		r.Pool.Forget(o.UID)
		return err
	case givenUp(o) && state.Result == nil:
		return outcome.Stalled(attempts.ReasonTooOften, fmt.Errorf("%s; no report was made of what was done: %w", s.Message, err))
	case state.Result != nil:
		r.reported(o, state.Result)
	case errors.Is(err, pool.ErrCancelled):
		r.finish(o, v1alpha1.PhaseCancelled, "It was cancelled: "+err.Error())
	case outcome.Of(err).Kind == outcome.IsStalled:
		return err
	case s.Failures+1 >= maxFailures:
		s.Failures++
		r.finish(o, v1alpha1.PhaseFailed, err.Error())
	default:
		s.Failures++
		r.Metrics.AttemptFailed(metrics.KindRestore, outcome.Of(err).Reason)
		return outcome.Waiting(reasonAttemptFailed, retryAfter<<(s.Failures-1), fmt.Errorf("failure %d of %d, the next attempt goes on from there: %w", s.Failures, maxFailures, err))
	}
	return nil
}

// reported shows what the report says.
func (r *Reconciler) reported(o *v1alpha1.Restore, report *restore.Report) {
	gaveUp := givenUp(o)
	s := report.Status()
	s.ObservedGeneration, s.Conditions, s.BackupUID = o.Generation, o.Status.Conditions, report.BackupUID
	s.Attempts, s.Failures, s.Stops = o.Status.Attempts, o.Status.Failures, o.Status.Stops
	if o.Status.StartTime != nil {
		s.StartTime = o.Status.StartTime
	}
	if inVain(report) { // the last of them was not counted yet
		s.Failures = max(s.Failures, maxFailures)
	}
	o.Status = s
	ready := readyCondition(s.Phase, s.Message)
	if gaveUp && s.Phase == v1alpha1.PhaseFailed {
		ready.Reason = attempts.ReasonTooOften
	}
	r.set(o, ready)
}

// finish ends a restore that has no report.
func (r *Reconciler) finish(o *v1alpha1.Restore, phase v1alpha1.Phase, message string) {
	now := metav1.NewTime(r.Now())
	o.Status.Phase, o.Status.Message, o.Status.CompletionTime, o.Status.Progress = phase, message, &now, nil
	r.set(o, readyCondition(phase, message))
}

// readyCondition is the condition of a restore that has ended.
func readyCondition(phase v1alpha1.Phase, message string) status.Condition {
	c := status.Condition{Type: status.Ready, Status: metav1.ConditionFalse, Reason: string(phase), Message: message}
	if phase == v1alpha1.PhaseCompleted {
		c.Status = metav1.ConditionTrue
		c.Message = orElse(message, "Everything selected is in the cluster.")
	}
	return c
}

// unable notes why a restore cannot go on; what only a change of its spec could mend, or has lasted too long since it was first noted, is its end. One
// that has begun is not given up for that.
func (r *Reconciler) unable(o *v1alpha1.Restore, err error) {
	late := false
	if outcome.Of(err).Reason == reasonNotReady { // the backup has bounds of its own, and may take days
		o.Status.RefusedSince = nil
	} else {
		late = o.Status.StartTime == nil && status.Refused(&o.Status.RefusedSince, r.Now()) > unableFor
	}
	if outcome.Of(err).Kind == outcome.IsStalled || late {
		if late {
			err = fmt.Errorf("given up after %s: %w", unableFor, err)
		}
		r.finish(o, v1alpha1.PhaseFailed, err.Error())
	} else {
		o.Status.Phase, o.Status.Progress = v1alpha1.PhaseQueued, nil
	}
	r.set(o, status.Failed(status.Ready, err))
}

func (r *Reconciler) set(o *v1alpha1.Restore, c status.Condition) {
	status.Set(&o.Status.Conditions, r.Now(), o.Generation, c)
}

// announce tells of the end of a restore by an event.
func (r *Reconciler) announce(o *v1alpha1.Restore) {
	kind, note := "Warning", o.Status.Message
	if o.Status.Phase == v1alpha1.PhaseCompleted {
		c := o.Status.Counts
		kind, note = "Normal", fmt.Sprintf("%d created, %d updated, %d unchanged, %d skipped", c.Created, c.Updated, c.Unchanged, c.Skipped)
	}
	r.Events.Eventf(o, nil, kind, string(o.Status.Phase), "Restore", "%s", note)
	r.Metrics.RestoreEnded(o)
}

func orElse(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}
