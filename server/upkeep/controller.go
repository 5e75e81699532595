// Package upkeep looks after what backups of volumes leave behind: it maintains the repositories of volume copies, and finds and removes what
// nothing needs any more.
package upkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/status"
)

// Maintained is the condition that says whether what volumes need in a location is done. A location without volumes does not have it.
const Maintained = "Maintained"

// The reasons of the condition Maintained that outcome does not know.
const (
	// ReasonDone: everything is done.
	ReasonDone = "Done"
	// ReasonCopiesUnknown: no copy was forgotten, since it is not known which ones are wanted.
	ReasonCopiesUnknown = "CopiesUnknown"
)

// defaultPeriod is how often a location is looked at. What is due then is kopia's to say: a quick maintenance once an hour, a full one once a day.
const defaultPeriod = time.Hour

// afterAgain is how often After is asked.
const afterAgain = time.Second

// Reconciler looks after the volumes in the locations of a server, one location at a time: a maintenance takes memory. Read-only locations are
// left alone.
type Reconciler struct {
	Client   client.Client
	Registry *location.Registry
	// ClusterUID gives the uid by which the cluster is known, that of its kube-system namespace.
	ClusterUID func(ctx context.Context) (string, error)
	Events     events.EventRecorder
	// Providers know the volumes of the cluster; nil means the place's.
	Providers func(ctx context.Context, place *location.Place) ([]plugins.VolumeProvider, error)
	// Metrics counts what fails; nil does not.
	Metrics *metrics.Recorder
	// After says that a location may be looked at; nil says so of each. One that may not is asked about again soon.
	After func(location string) bool
	// Period is the time between two looks; zero means an hour.
	Period time.Duration
	Now    func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("upkeep").
		For(&v1alpha1.BackupStorageLocation{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
}

// Reconcile looks after one location.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.BackupStorageLocation
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if r.After != nil && !r.After(object.Name) {
		return ctrl.Result{RequeueAfter: afterAgain}, nil
	}
	condition, err := r.look(ctx, &object)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if err != nil {
		failed := status.Failed(Maintained, err)
		condition = &failed
		r.Metrics.AttemptFailed(metrics.KindUpkeep, outcome.Of(err).Reason)
	}
	if noteErr := location.NoteCondition(ctx, r.Client, &object, r.Now, Maintained, condition); noteErr != nil {
		return ctrl.Result{}, errors.Join(err, noteErr)
	}
	if err != nil {
		return outcome.Result(err)
	}
	return ctrl.Result{RequeueAfter: cmp.Or(r.Period, defaultPeriod)}, nil
}

// look does what is due; a nil condition says that there is nothing to look after.
func (r *Reconciler) look(ctx context.Context, object *v1alpha1.BackupStorageLocation) (*status.Condition, error) {
	if object.Spec.ReadOnly {
		return nil, nil
	}
	place, err := r.Registry.Open(ctx, object)
	if err != nil {
		return nil, err
	}
	done, err := r.maintain(ctx, place)
	used, sweepErr := r.sweep(ctx, object, place)
	if err := errors.Join(err, sweepErr); err != nil {
		return nil, err
	}
	if done == nil && !used {
		return nil, nil
	}
	return condition(done), nil
}

// maintain maintains the repository of copies; nil says that there is none.
func (r *Reconciler) maintain(ctx context.Context, place *location.Place) (*volumes.Maintained, error) {
	maintenance, err := place.Maintenance(ctx)
	if err != nil || maintenance == nil {
		return nil, err
	}
	done, err := maintenance.Run(ctx)
	if err != nil {
		return nil, err
	}
	log.FromContext(ctx).Info("maintained the repository of volume copies", "mode", done.Mode, "kept", done.Kept, "forgotten", done.Forgotten, "checkpoints", done.Checkpoints)
	return &done, nil
}

// condition sums up what was done.
func condition(done *volumes.Maintained) *status.Condition {
	c := &status.Condition{Type: Maintained, Status: metav1.ConditionTrue, Reason: ReasonDone, Message: "No snapshot is orphaned."}
	if done == nil {
		return c
	}
	c.Message += fmt.Sprintf(" %d copies of volumes are kept.", done.Kept)
	if done.Unsure != nil {
		c.Status, c.Reason = metav1.ConditionFalse, ReasonCopiesUnknown
		c.Message += fmt.Sprintf(" None is forgotten, since it is not known which ones backups name: %v", done.Unsure)
	}
	return c
}
