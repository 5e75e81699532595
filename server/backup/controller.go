// Package backup makes the backups that Backup objects ask for.
package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/server/status"
)

// The bounds of patience.
const (
	// maxFailures is how many attempts at a backup may fail. Those that ended with their server did not fail.
	maxFailures = 3
	// retryAfter is the wait after the first failure; each further one waits twice as long.
	retryAfter = 15 * time.Second
	// unableFor is how long a backup waits for a location that cannot be used, so that its schedule is not stopped for ever.
	unableFor = time.Hour
)

// reasonAttemptFailed is the reason of the condition Ready between an attempt that failed and the next.
const reasonAttemptFailed = "AttemptFailed"

// Pool runs the backups of a server.
type Pool = pool.Pool[*archive.Record]

// Reconciler makes the backups that objects ask for. Work runs in the pool; a Reconcile only begins it and notes where it stands.
type Reconciler struct {
	Client client.Client
	// Look reads schedules as they are now, not from a cache.
	Look client.Reader
	// Marks tell the Backups that schedules made from others.
	Marks    *schedule.Marks
	Registry *location.Registry
	Pool     *Pool
	Runner   *Runner
	Events   events.EventRecorder
	// RequireServiceAccount refuses backups that do not name an account to read as.
	RequireServiceAccount bool
	// Patience bounds how often a backup is begun over which servers end; nil does not.
	Patience *attempts.Patience
	Metrics  *metrics.Recorder
	Now      func() time.Time

	endings sync.Map // by uid, of backups of which the pool's work is to undo what attempts have left
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Backup{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(r.Pool.Changed()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile brings one backup a step further.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.Backup
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.Pool.ForgetKey(req.NamespacedName) // deleting the object of a backup in the making cancels it
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if object.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" || !object.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if object.Status.Phase.Final() {
		r.Pool.Forget(object.UID)
		r.Patience.Forget(object.UID)
		r.endings.Delete(object.UID)
		return ctrl.Result{}, nil
	}
	before := object.DeepCopy()
	b := &object
	if err := r.origin(ctx, b); err != nil && !b.Spec.Cancel { // what is cancelled makes no archive that could count
		return r.unlooked(ctx, b, before, err)
	}
	b.Status.ObservedGeneration = b.Generation
	begin, err := r.step(ctx, b)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if err != nil {
		r.unable(b, err)
	}
	if owed := r.owed(ctx, b); owed != nil {
		begin = owed
	}
	if patchErr := status.Patch(ctx, r.Client, b, before); patchErr != nil {
		return status.Lost(patchErr)
	}
	if err != nil && outcome.Of(err).Reason == reasonAttemptFailed { // only now, so that a failure that could not be written is not lost
		r.Pool.Forget(b.UID)
	}
	if begin != nil { // it is written down that it is queued, so that a crash leaves an object that is begun again
		r.Pool.Forget(b.UID) // what waits for its turn, and never gets it, or has failed
		if begin.ending != nil {
			r.endings.Store(b.UID, begin.ending)
		}
		r.Pool.Start(b.UID, req.NamespacedName, b.Status.StorageLocation, begin.work)
	}
	if b.Status.Phase.Final() {
		r.endings.Delete(b.UID)
		r.announce(b)
		return ctrl.Result{}, nil
	}
	return outcome.Result(err)
}

// step looks at where the work stands and changes the status accordingly. It gives the work that is to begin, once that is noted.
func (r *Reconciler) step(ctx context.Context, b *v1alpha1.Backup) (*beginning, error) {
	state := r.Pool.State(b.UID)
	if state.Phase == pool.Unknown && b.Status.Phase == v1alpha1.PhaseInProgress && b.Status.Attempts > 0 { // it is counted once: from here on it is not InProgress
		r.Metrics.AttemptFailed(metrics.KindBackup, attempts.ReasonInterrupted)
	}
	if e := r.endingOf(b.UID); e != nil {
		return r.end(ctx, b, e, state)
	}
	if b.Spec.Cancel && state.Phase != pool.Ended {
		if cutOff(b, state.Phase) {
			return r.thaw(ctx, b, &ending{})
		}
		r.Pool.Cancel(b.UID)
		if state.Phase == pool.Running {
			return nil, nil // its end is told by the pool
		}
		r.finish(b, v1alpha1.PhaseCancelled, "It was cancelled before it was begun.")
		return nil, nil
	}
	switch state.Phase {
	case pool.Queued, pool.Running:
		r.note(b, state)
		return nil, nil
	case pool.Ended:
		return nil, r.ended(b, state)
	case pool.Unknown:
	}
	return r.prepare(ctx, b)
}

// prepare checks the spec and gives the work. Where an earlier attempt, of this server or another, was cut off, this is how it begins again.
func (r *Reconciler) prepare(ctx context.Context, b *v1alpha1.Backup) (*beginning, error) {
	if b.Status.Failures >= maxFailures { // a server that knew it ended while it undid what attempts had left
		return nil, outcome.Stalled(string(v1alpha1.PhaseFailed), errors.New(cmp.Or(b.Status.Message, "its attempts failed")))
	}
	if err := r.check(b); err != nil {
		return nil, err
	}
	place, err := r.Registry.Get(ctx, locationOf(b))
	if err != nil {
		return nil, err
	}
	if place.Object.Spec.ReadOnly {
		return nil, outcome.Stalled("LocationReadOnly", fmt.Errorf("location %s is read-only: name another in spec.storageLocation", place.Object.Name))
	}
	if over, err := r.interrupted(ctx, b, place); over || err != nil {
		return nil, err
	}
	s := &b.Status
	s.StorageLocation, s.ArchiveUID = place.Object.Name, string(b.UID)
	s.Phase, s.RefusedSince = v1alpha1.PhaseQueued, nil
	if s.StartTime == nil {
		now := metav1.NewTime(r.Now())
		s.StartTime = &now
	}
	r.set(b, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "Queued", Message: "The backup waits for its turn."})
	return &beginning{work: r.noted(b.DeepCopy(), place)}, nil
}

// noted is the work of a backup, with what is written down of it: an attempt counts from when it runs, so that a server that ends over one backup
// counts against none that waited for its turn.
func (r *Reconciler) noted(b *v1alpha1.Backup, place *location.Place) pool.Work[*archive.Record] {
	key := client.ObjectKeyFromObject(b)
	begins := func(ctx context.Context) error {
		return status.Change(ctx, r.Client, key, b.UID, func(now *v1alpha1.Backup) {
			now.Status.Attempts++
			r.note(now, pool.State[*archive.Record]{Phase: pool.Running})
			b.Status = *now.Status.DeepCopy()
		})
	}
	stopped := func(ctx context.Context) error {
		return status.Change(ctx, r.Client, key, b.UID, func(now *v1alpha1.Backup) {
			now.Status.Stops++
			now.Status.Phase, now.Status.Progress = v1alpha1.PhaseQueued, nil
			r.set(now, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "Queued", Message: "Its server was stopped; the next begins it again."})
		})
	}
	return pool.Noted(r.Runner.Work(b, place), begins, stopped)
}

// interrupted looks whether the servers that ended over the backup were too many. One that is given up may have been sealed all the same, unseen.
func (r *Reconciler) interrupted(ctx context.Context, b *v1alpha1.Backup, place *location.Place) (over bool, err error) {
	lost := b.Status.Attempts - b.Status.Failures - b.Status.Stops
	err = r.Patience.Check(b.UID, lost, r.Now())
	switch outcome.Of(err).Kind {
	case outcome.IsWaiting:
		return false, err
	case outcome.IsStalled:
		record, readErr := recorded(ctx, place, string(b.UID))
		if readErr != nil {
			return false, readErr
		}
		if record != nil {
			b.Status.StorageLocation = place.Object.Name
			r.sealed(b, record)
			return true, nil
		}
	case outcome.Retry:
	}
	return false, err
}

// check refuses what the API server's own validation cannot, or on old versions does not.
func (r *Reconciler) check(b *v1alpha1.Backup) error {
	if _, err := selection.Compile(b.Spec.Selection); err != nil {
		return outcome.Stalled("InvalidSpec", fmt.Errorf("read the spec: %w", err))
	}
	if _, err := volumes.Compile(b.Spec.Volumes); err != nil {
		return outcome.Stalled("InvalidSpec", fmt.Errorf("read the spec: %w", err))
	}
	if _, err := hooks.Compile(b.Spec.Hooks); err != nil {
		return outcome.Stalled("InvalidSpec", fmt.Errorf("read the spec: %w", err))
	}
	if b.Spec.TTL.Duration < 0 {
		return outcome.Stalled("InvalidSpec", errors.New("read the spec: spec.ttl: it is negative"))
	}
	if r.RequireServiceAccount && b.Spec.ServiceAccountName == "" {
		return outcome.Stalled("ServiceAccountRequired", errors.New("read the spec: spec.serviceAccountName: this server backs up only as an account that the backup names"))
	}
	return nil
}

// note shows progress.
func (r *Reconciler) note(b *v1alpha1.Backup, state pool.State[*archive.Record]) {
	if state.Phase == pool.Queued {
		return
	}
	b.Status.Phase = v1alpha1.PhaseInProgress
	progress := state.Progress
	b.Status.Progress = &progress
	r.set(b, status.Condition{Type: status.Ready, Status: metav1.ConditionUnknown, Reason: "InProgress", Message: "The backup is being made."})
}

// ended takes over what the work returned.
func (r *Reconciler) ended(b *v1alpha1.Backup, state pool.State[*archive.Record]) error {
	err, s := state.Err, &b.Status
	switch {
	case errors.Is(err, pool.ErrNotBegun):
		r.Pool.Forget(b.UID)
		return err
	case err == nil:
		r.sealed(b, state.Result)
	case errors.Is(err, pool.ErrCancelled):
		message := "It was cancelled; nothing of it stays."
		if frozen, ok := errors.AsType[*volumes.FrozenError](err); ok {
			message = "It was cancelled; nothing of it stays in its location, but " + frozen.Error()
		}
		r.finish(b, v1alpha1.PhaseCancelled, message)
	case outcome.Of(err).Kind == outcome.IsStalled || s.Failures+1 >= maxFailures:
		s.Failures++
		r.finish(b, v1alpha1.PhaseFailed, err.Error())
	default:
		s.Failures++
		r.Metrics.AttemptFailed(metrics.KindBackup, outcome.Of(err).Reason)
		return outcome.Waiting(reasonAttemptFailed, retryAfter<<(s.Failures-1), fmt.Errorf("failure %d of %d, it is begun again: %w", s.Failures, maxFailures, err))
	}
	return nil
}

// sealed shows the archive that was made.
func (r *Reconciler) sealed(b *v1alpha1.Backup, record *archive.Record) {
	s := location.StatusOf(&archive.Entry{Name: record.Name, UID: record.UID, Record: record}, b.Status.StorageLocation)
	s.ObservedGeneration, s.Conditions = b.Generation, b.Status.Conditions
	s.Schedule, s.Attempts, s.Failures, s.Stops = b.Status.Schedule, b.Status.Attempts, b.Status.Failures, b.Status.Stops
	b.Status = s
	r.set(b, location.ReadyCondition(s.Phase, ""))
}

// finish ends a backup that has no archive.
func (r *Reconciler) finish(b *v1alpha1.Backup, phase v1alpha1.Phase, message string) {
	now := metav1.NewTime(r.Now())
	b.Status.Phase, b.Status.Message, b.Status.CompletionTime, b.Status.Progress = phase, message, &now, nil
	r.set(b, location.ReadyCondition(phase, message))
}

// unable notes why a backup cannot be begun; what only a change of its spec could mend, or has lasted too long, is its end. How long is counted from
// the first refusal that this process or an earlier one noted, not from when the backup was asked for: it may have waited for a server, or for its
// turn. An attempt that failed, or ended with its server, took its time, and the next is begun however long that was.
func (r *Reconciler) unable(b *v1alpha1.Backup, err error) {
	late := false
	if reason := outcome.Of(err).Reason; reason == reasonAttemptFailed || reason == attempts.ReasonInterrupted {
		b.Status.RefusedSince = nil
	} else {
		late = status.Refused(&b.Status.RefusedSince, r.Now()) > unableFor
	}
	if outcome.Of(err).Kind == outcome.IsStalled || late {
		if late {
			err = fmt.Errorf("given up after %s: %w", unableFor, err)
		}
		r.finish(b, v1alpha1.PhaseFailed, err.Error())
	} else {
		b.Status.Phase, b.Status.Progress = v1alpha1.PhaseQueued, nil
	}
	r.set(b, status.Failed(status.Ready, err))
}

func (r *Reconciler) set(b *v1alpha1.Backup, c status.Condition) {
	status.Set(&b.Status.Conditions, r.Now(), b.Generation, c)
}

// announce tells of the end of a backup by an event, and counts it.
func (r *Reconciler) announce(b *v1alpha1.Backup) {
	r.Metrics.BackupEnded(b)
	kind, note := "Normal", b.Status.Message
	if b.Status.Phase != v1alpha1.PhaseCompleted {
		kind = "Warning"
	}
	if b.Status.Phase.Usable() {
		note = fmt.Sprintf("%d objects in %s", b.Status.Counts.Items, b.Status.StorageLocation)
	}
	r.Events.Eventf(b, nil, kind, string(b.Status.Phase), "Backup", "%s", note)
}
