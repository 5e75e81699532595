package location

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/status"
)

// Synced is the condition that says whether the location's backups are shown as Backup objects.
const Synced = "Synced"

// defaultSyncPeriod is how often a location is listed where it does not say so.
const defaultSyncPeriod = time.Minute

// atOnce is how many locations are looked at at once: a bucket that hangs must not keep others from being watched.
const atOnce = 8

// Reconciler watches over the locations: it opens them, makes empty ones locations, and has their backups shown.
type Reconciler struct {
	Client   client.Client
	Registry *Registry
	Metrics  *metrics.Recorder
	Now      func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.BackupStorageLocation{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: atOnce}).
		Complete(r)
}

// Reconcile looks at one location.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.BackupStorageLocation
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		if apierrors.IsNotFound(err) {
			r.Registry.Drop(req.Name)
			r.Metrics.LocationGone(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := object.DeepCopy()
	err := r.look(ctx, &object)
	r.Registry.looked(req.Name)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if patchErr := status.Patch(ctx, r.Client, &object, before); patchErr != nil {
		return ctrl.Result{}, errors.Join(err, client.IgnoreNotFound(patchErr))
	}
	if err == nil {
		return ctrl.Result{RequeueAfter: syncPeriod(&object)}, nil
	}
	r.Metrics.AttemptFailed(metrics.KindSync, outcome.Of(err).Reason)
	return outcome.Result(err)
}

func syncPeriod(object *v1alpha1.BackupStorageLocation) time.Duration {
	if p := object.Spec.SyncPeriod; p != nil && p.Duration > 0 {
		return p.Duration
	}
	return defaultSyncPeriod
}

// look opens the location, has its backups shown, and notes both in the status.
func (r *Reconciler) look(ctx context.Context, object *v1alpha1.BackupStorageLocation) error {
	s := &object.Status
	s.ObservedGeneration = object.Generation
	place, err := r.Registry.Open(ctx, object)
	if err != nil {
		r.unavailable(object, err)
		return err
	}
	s.URL, s.PublicKey, s.ID = place.Store.String(), place.Archive.PublicKey(), place.Archive.ID()
	// In this order: an archive that is listed after its object was seen to be missing has none. The other way round, what is deleted between
	// the two, object and archive, would be shown again.
	var shown v1alpha1.BackupList
	if err := r.Client.List(ctx, &shown, client.InNamespace(object.Namespace)); err != nil {
		err = fmt.Errorf("list the Backup objects: %w", err)
		r.set(object, status.Failed(Synced, err))
		return err
	}
	showing, showCtx, err := r.show(ctx, object, shown.Items)
	if err != nil {
		r.set(object, status.Failed(Synced, err))
		return err
	}
	entries, err := place.Walk(ctx, func(e archive.Entry) { showing.take(showCtx, e) })
	unreadable, showErr := showing.end(ctx, err == nil)
	if err != nil {
		r.unavailable(object, err)
		return err
	}
	now := metav1.NewTime(r.Now())
	s.Phase, s.LastValidationTime, s.Backups = v1alpha1.LocationAvailable, &now, len(entries)
	r.set(object, status.Condition{Type: status.Ready, Status: metav1.ConditionTrue, Reason: "Available", Message: "The location answers and its key is the expected one."})
	if showErr != nil {
		r.set(object, status.Failed(Synced, showErr))
		return showErr
	}
	s.LastSyncTime = &now
	c := status.Condition{Type: Synced, Status: metav1.ConditionTrue, Reason: "Synced", Message: fmt.Sprintf("%d backups are shown.", len(entries)-len(unreadable))}
	if len(unreadable) > 0 {
		c.Reason = "SomeUnreadable"
		c.Message += fmt.Sprintf(" %d cannot be shown, the first: %v", len(unreadable), unreadable[0])
	}
	r.set(object, c)
	return nil
}

func (r *Reconciler) unavailable(object *v1alpha1.BackupStorageLocation, err error) {
	object.Status.Phase = v1alpha1.LocationUnavailable
	r.set(object, status.Failed(status.Ready, err))
}

func (r *Reconciler) set(object *v1alpha1.BackupStorageLocation, c status.Condition) {
	status.Set(&object.Status.Conditions, r.Now(), object.Generation, c)
}
