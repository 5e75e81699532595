// Package schedule makes backups by the clock.
package schedule

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/status"
)

const (
	// lookAgain is how long a schedule is at most not looked at. Timers do not notice that the clock was set; this does.
	lookAgain = time.Minute
	// lostRace is the wait after somebody else wrote the status: the cache will have it then.
	lostRace = 200 * time.Millisecond
)

// Reconciler follows schedules: it notes in the status that a run begins, and then creates its Backup. A crash between the two leaves a
// note that is followed up; two servers that both believe to lead write one note, and create one object under one name.
type Reconciler struct {
	Client client.Client
	Events events.EventRecorder
	// ClusterUID gives the uid by which the cluster is known, that of its kube-system namespace. Backups that were found in a bucket count
	// only where they are of this cluster.
	ClusterUID func(ctx context.Context) (string, error)
	// Marks tell the schedules' own Backups from others.
	Marks *Marks
	// RequireServiceAccount refuses schedules whose backups name no account to read as.
	RequireServiceAccount bool
	Now                   func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	changed := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Schedule{}, builder.WithPredicates(changed)).
		Watches(&v1alpha1.Backup{}, handler.EnqueueRequestsFromMapFunc(scheduleOf), builder.WithPredicates(predicate.Funcs{UpdateFunc: movedOn})).
		Complete(r)
}

// scheduleOf is the schedule of a Backup.
func scheduleOf(_ context.Context, o client.Object) []ctrl.Request {
	name := o.GetLabels()[v1alpha1.ScheduleLabel]
	if name == "" {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// movedOn says whether a change of a Backup means anything to its schedule. Its progress does not.
func movedOn(e event.UpdateEvent) bool {
	before, ok1 := e.ObjectOld.(*v1alpha1.Backup)
	after, ok2 := e.ObjectNew.(*v1alpha1.Backup)
	if !ok1 || !ok2 {
		return true
	}
	return before.Status.Phase != after.Status.Phase || before.Status.Schedule != after.Status.Schedule ||
		before.Labels[v1alpha1.ScheduleLabel] != after.Labels[v1alpha1.ScheduleLabel] ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
		!before.Status.CompletionTime.Equal(after.Status.CompletionTime)
}

// Reconcile brings one schedule up to the present.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.Schedule
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !object.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	var backups v1alpha1.BackupList
	if len(object.Name) <= maxScheduleName { // a longer one has no backups: its name is no label
		if err := r.Client.List(ctx, &backups, client.InNamespace(req.Namespace), client.MatchingLabels{v1alpha1.ScheduleLabel: object.Name}); err != nil {
			return ctrl.Result{}, fmt.Errorf("list the backups of schedule %s: %w", object.Name, err)
		}
	}
	cluster, err := r.ClusterUID(ctx)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("follow schedule %s: %w", object.Name, err)
	}
	before := object.DeepCopy()
	s := &object
	owner, keyErr := r.Marks.Of(ctx, s, cluster)
	if keyErr != nil {
		if outcome.Stopped(ctx) {
			return ctrl.Result{}, nil
		}
		owner = &Owner{schedule: s, cluster: cluster} // it knows what was seen before
	}
	decision, stalled := r.step(s, see(backups.Items, owner), keyErr)
	if err := status.Patch(ctx, r.Client, s, before); err != nil {
		return lost(err)
	}
	r.tell(s, decision)
	if keyErr != nil {
		return outcome.Result(fmt.Errorf("follow schedule %s: %w", object.Name, keyErr))
	}
	if pending(&s.Status) && stalled == nil {
		before = s.DeepCopy()
		uid, err := r.create(ctx, owner, decision)
		if err != nil {
			return r.refused(ctx, s, before, err)
		}
		s.Status.MadeUID = string(uid)
		if err := status.Patch(ctx, r.Client, s, before); err != nil { // the next look notes it
			return lost(err)
		}
	}
	wait := lookAgain
	if next := s.Status.NextRun; next != nil {
		wait = min(wait, max(next.Sub(r.Now()), time.Millisecond))
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// step brings the status up to the present, in memory. The error says why no run can begin. Without the key nothing tells which Backups that nobody looked
// at yet are the schedule's, so that what is noted of them stays; times pass all the same.
func (r *Reconciler) step(s *v1alpha1.Schedule, seen seen, keyErr error) (Decision, error) {
	st := &s.Status
	st.ObservedGeneration = s.Generation
	if keyErr == nil {
		seen.note(s)
	}
	times, err := checkTimes(&s.Spec)
	var d Decision
	if err == nil {
		err = cmp.Or(checkTemplate(s, r.RequireServiceAccount), keyErr)
		d = Decide(Situation{
			Spec: &s.Spec, Status: st, Times: times, UID: s.UID, Request: s.Annotations[v1alpha1.RunRequestedAnnotation],
			Created: s.CreationTimestamp.Time, Now: r.Now(), Held: st.Active != "" || err != nil, LastEnded: completed(seen.ended),
		})
		d.note(st)
		if d.Start != nil {
			st.Active = nameFor(s, d.Start, &seen)
			st.Made, st.MadeUID = st.Active, ""
		}
	} else {
		st.Following, st.NextRun = "", nil
	}
	ready := status.Condition{Type: status.Ready, Status: metav1.ConditionTrue, Reason: ReasonValid, Message: "The schedule is followed."}
	if err != nil {
		ready = status.Failed(status.Ready, err)
	}
	r.set(s, ready)
	if !pending(st) || !isReason(s, ReasonRunRefused) {
		r.set(s, seen.health(s, d.Due, r.Now()))
	}
	return d, err
}

// nameFor is the name of a run's Backup. Two requests in one second are two backups.
func nameFor(s *v1alpha1.Schedule, run *Run, seen *seen) string {
	at := run.Time
	for !run.ByClock && seen.byName[nameOf(s, at)] != nil {
		at = at.Add(time.Second)
	}
	return nameOf(s, at)
}

// create makes the Backup of the run that the status notes, and gives its uid. What is there already under its name, and is the schedule's own, is that Backup; where the
// name belongs to something else, the run gets another one.
func (r *Reconciler) create(ctx context.Context, owner *Owner, d Decision) (types.UID, error) {
	s := owner.schedule
	own := s.Status.Active
	for _, name := range []string{own, owner.otherName(own)} {
		b := owner.NewBackup(name)
		err := r.Client.Create(ctx, b)
		if err == nil {
			r.Events.Eventf(s, b, corev1.EventTypeNormal, "RunStarted", "Run", "Backup %s is being made (%s)", name, d.why())
			return b.UID, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return "", fmt.Errorf("create backup %s: %w", name, err)
		}
		if uid, err := r.isMine(ctx, owner, name); err != nil || uid != "" {
			return uid, err
		}
		r.Events.Eventf(s, b, corev1.EventTypeWarning, "NameTaken", "Run", "Backup %s is not this schedule's, though it has the name of a run: see who made it. The run gets another name", name)
	}
	return "", fmt.Errorf("create backup %s: the name is taken by an object that is not this schedule's: delete that, or change spec.nameTemplate", own)
}

// isMine gives the uid of an object that is a run of the schedule: not one that shows another cluster's archive, and not one that somebody put there.
func (r *Reconciler) isMine(ctx context.Context, owner *Owner, name string) (types.UID, error) {
	var b v1alpha1.Backup
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: owner.schedule.Namespace, Name: name}, &b); err != nil {
		if apierrors.IsNotFound(err) { // the cache is behind
			return "", outcome.Waiting(ReasonRunRefused, time.Second, fmt.Errorf("read backup %s: %w", name, err))
		}
		return "", fmt.Errorf("read backup %s: %w", name, err)
	}
	if b.Labels[v1alpha1.ScheduleLabel] != owner.schedule.Name || !owner.owns(&b) {
		return "", nil
	}
	return b.UID, nil
}

// refused notes that the Backup of a run cannot be created. It is tried again.
func (r *Reconciler) refused(ctx context.Context, s, before *v1alpha1.Schedule, err error) (ctrl.Result, error) {
	if outcome.Of(err).Kind != outcome.IsWaiting {
		r.set(s, healthy(metav1.ConditionFalse, ReasonRunRefused, err.Error()))
		if patchErr := status.Patch(ctx, r.Client, s, before); patchErr != nil {
			return lost(patchErr)
		}
	}
	return outcome.Result(err)
}

// lost says what follows from a status that could not be written: where another write came first, what is known is old.
func lost(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: lostRace}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// tell gives an event for times that passed without a run.
func (r *Reconciler) tell(s *v1alpha1.Schedule, d Decision) {
	if d.Missed > 0 {
		r.Events.Eventf(s, nil, corev1.EventTypeWarning, "RunsMissed", "Skip", "%d times passed without a run; the newest was %s",
			d.Missed, d.MissedLast.UTC().Format(time.RFC3339))
	}
}

func (r *Reconciler) set(s *v1alpha1.Schedule, c status.Condition) {
	status.Set(&s.Status.Conditions, r.Now(), s.Generation, c)
}

// isReason says whether the condition Healthy has a reason.
func isReason(s *v1alpha1.Schedule, reason string) bool {
	c := meta.FindStatusCondition(s.Status.Conditions, Healthy)
	return c != nil && c.Reason == reason
}
