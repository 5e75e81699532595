package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/status"
)

// Retained is the condition that says whether what retention asks for is done.
const Retained = "Retained"

// The reasons of the condition Retained where it is True; where it is not, they are those of outcome.
const (
	// ReasonDone: everything is done.
	ReasonDone = "Done"
	// ReasonWaitingForLock: everything is done but for deletions that the store's object lock holds up.
	ReasonWaitingForLock = "WaitingForLock"
)

const (
	// defaultPeriod is how often a location is looked at where nothing else asks for it.
	defaultPeriod = time.Hour
	// soonest is the least time between two passes that nothing asked for.
	soonest = time.Minute
	// afterAgain is how often After is asked.
	afterAgain = time.Second
	// moreAfter is when a pass goes on that had more to do.
	moreAfter = 5 * time.Second
	// atOnce is how many locations are looked at at once.
	atOnce = 4
)

// Reconciler applies retention to the locations of a server, each for the backups of its own cluster. Read-only locations are left alone.
type Reconciler struct {
	Client   client.Client
	Registry *location.Registry
	// ClusterUID gives the uid by which the cluster is known, that of its kube-system namespace.
	ClusterUID func(ctx context.Context) (string, error)
	Events     events.EventRecorder
	// Metrics counts what is done; nil does not.
	Metrics *metrics.Recorder
	// After says that a location may be looked at; nil says so of each. One that may not is asked about again soon.
	After func(location string) bool
	// Period is the longest time between two looks; zero means an hour.
	Period time.Duration
	Now    func() time.Time

	mu       sync.Mutex
	memories map[types.UID]*memory
}

// memory is what is remembered of a location between two passes; without it only time is lost.
type memory struct {
	locked map[string]time.Time // see Pass.Locked
	// missing says since when a schedule, by name, is seen not to be there.
	missing map[string]time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("retention").
		For(&v1alpha1.BackupStorageLocation{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{
			UpdateFunc: func(e event.UpdateEvent) bool { return synced(e.ObjectOld, e.ObjectNew) },
		}))).
		Watches(&v1alpha1.Schedule{}, handler.EnqueueRequestsFromMapFunc(r.everyLocation), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: atOnce}).
		Complete(r)
}

// synced says whether a sync found other backups than the one before.
func synced(before, after client.Object) bool {
	a, aOK := before.(*v1alpha1.BackupStorageLocation)
	b, bOK := after.(*v1alpha1.BackupStorageLocation)
	return aOK && bOK && (a.Status.Backups != b.Status.Backups || a.Status.Phase != b.Status.Phase)
}

// everyLocation asks for all locations: a schedule's backups may lie in any.
func (r *Reconciler) everyLocation(ctx context.Context, schedule client.Object) []reconcile.Request {
	var list v1alpha1.BackupStorageLocationList
	if err := r.Client.List(ctx, &list, client.InNamespace(schedule.GetNamespace())); err != nil {
		log.FromContext(ctx).Error(err, "list the locations")
		return nil
	}
	out := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return out
}

// Reconcile applies retention to one location.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.BackupStorageLocation
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if r.After != nil && !r.After(object.Name) {
		return ctrl.Result{RequeueAfter: afterAgain}, nil
	}
	if object.Spec.ReadOnly {
		return ctrl.Result{}, r.note(ctx, &object, nil)
	}
	res, err := r.apply(ctx, &object)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	condition := r.condition(&res, err)
	r.measure(&object, &res, err)
	if noteErr := r.note(ctx, &object, &condition); noteErr != nil {
		return ctrl.Result{}, errors.Join(err, noteErr)
	}
	if err != nil {
		return outcome.Result(err)
	}
	return ctrl.Result{RequeueAfter: r.next(&res)}, nil
}

// apply makes one pass.
func (r *Reconciler) apply(ctx context.Context, object *v1alpha1.BackupStorageLocation) (Result, error) {
	place, err := r.Registry.Open(ctx, object)
	if err != nil {
		return Result{}, err
	}
	cluster, err := r.ClusterUID(ctx)
	if err != nil {
		return Result{}, err
	}
	memory := r.memory(object.UID)
	pass := &Pass{
		Archive: place.Archive, Look: place.Inventory, Lock: object.Spec.ObjectLock, Locked: memory.locked, Now: r.Now,
		Prepare: preparation{r, object, memory, cluster}.prepare,
		Removed: func(ctx context.Context, name, uid, reason string) error {
			r.announce(ctx, object, name, uid, reason)
			return RemoveObject(ctx, r.Client, object.Namespace, object.Name, uid)
		},
	}
	res, err := pass.Run(ctx)
	if errors.Is(err, plugins.ErrUnsupported) {
		err = outcome.Waiting("ObjectLockUnsupported", r.period(), fmt.Errorf("%w: spec.objectLock is set, but the bucket has no object lock", err))
	}
	return res, err
}

func (r *Reconciler) memory(uid types.UID) *memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memories == nil {
		r.memories = map[types.UID]*memory{}
	}
	if r.memories[uid] == nil {
		r.memories[uid] = &memory{locked: map[string]time.Time{}, missing: map[string]time.Time{}}
	}
	return r.memories[uid]
}

// measure counts what a pass did.
func (r *Reconciler) measure(object *v1alpha1.BackupStorageLocation, res *Result, err error) {
	for range res.Removed {
		r.Metrics.Deleted(object.Name, metrics.CauseRetention)
	}
	r.Metrics.Swept(object.Name, res.SweptObjects)
	if err != nil {
		r.Metrics.AttemptFailed(metrics.KindRetention, outcome.Of(err).Reason)
	}
}

// announce tells of a removal.
func (r *Reconciler) announce(ctx context.Context, object *v1alpha1.BackupStorageLocation, name, uid, reason string) {
	reason = cmp.Or(reason, reasonDeleting)
	log.FromContext(ctx).Info("removed a backup", "backup", name, "uid", uid, "reason", reason)
	r.Events.Eventf(object, nil, "Normal", "BackupRemoved", "Retention", "%s/%s: %s", name, uid, reason)
}

// condition sums a pass up.
func (r *Reconciler) condition(res *Result, err error) status.Condition {
	if err != nil {
		return status.Failed(Retained, err)
	}
	c := status.Condition{
		Type: Retained, Status: metav1.ConditionTrue, Reason: ReasonDone,
		Message: fmt.Sprintf("%d backups of this cluster are kept.", res.Kept),
	}
	if n := len(res.Waiting); n > 0 {
		c.Reason = ReasonWaitingForLock
		c.Message += fmt.Sprintf(" %d deleted ones, the first %s, go when the bucket's object lock ends", n, res.Waiting[0])
		if !res.LockEnds.IsZero() {
			c.Message += ", from " + res.LockEnds.UTC().Format(time.RFC3339) + " on"
		}
		c.Message += "."
	}
	if n := len(res.Elsewhere); n > 0 {
		c.Message += fmt.Sprintf(" %d deletions, the first of %s, cannot be finished by this cluster: %v.", n, res.Elsewhere[0].ID, res.Elsewhere[0].Err)
	}
	if n := len(res.Damaged); n > 0 {
		c.Message += fmt.Sprintf(" What lies beside %d records that cannot be read is left alone, the first: %v", n, res.Damaged[0])
	}
	return c
}

// note writes the condition; nil takes it away.
func (r *Reconciler) note(ctx context.Context, object *v1alpha1.BackupStorageLocation, condition *status.Condition) error {
	return location.NoteCondition(ctx, r.Client, object, r.Now, Retained, condition)
}

func (r *Reconciler) period() time.Duration { return cmp.Or(r.Period, defaultPeriod) }

// next is when the location is looked at again: at the end of the next TTL or lock, and at least once a period.
func (r *Reconciler) next(res *Result) time.Duration {
	if res.More {
		return moreAfter
	}
	after := r.period()
	for _, end := range []time.Time{res.NextEnd, res.LockEnds} {
		if !end.IsZero() {
			after = min(after, max(end.Sub(r.Now())+time.Second, soonest))
		}
	}
	return after
}
