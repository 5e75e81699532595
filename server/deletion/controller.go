// Package deletion deletes the backups that DeleteBackupRequests name, with all their data.
package deletion

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
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/retention"
	"kedge.dev/kedge/server/status"
)

const (
	// keptFor is how long a request stays after its end, for those who wait for it.
	keptFor = time.Hour
	// lockAgain is the longest wait for an object lock before looking again.
	lockAgain = time.Hour
	// soon is the wait between noting a deletion and beginning it.
	soon = time.Millisecond
	// busyAgain is how often a backup is looked at that is being made or restored.
	busyAgain = 15 * time.Second
	// atOnce is how many requests are worked on at once.
	atOnce = 2
)

// Reconciler follows requests to delete backups. The order is: the request says that it is in progress; a tombstone in the bucket, the data, the
// record; the Backup object; the request says that it is done. Whatever cuts it off, the next look goes on.
type Reconciler struct {
	Client   client.Client
	Registry *location.Registry
	// Metrics counts what is done; nil does not.
	Metrics *metrics.Recorder
	Now     func() time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.DeleteBackupRequest{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: atOnce}).
		Complete(r)
}

// Reconcile brings one request a step further.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var object v1alpha1.DeleteBackupRequest
	if err := r.Client.Get(ctx, req.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if done := object.Status.CompletionTime; done != nil {
		return r.tidy(ctx, &object, done.Time)
	}
	before := object.DeepCopy()
	err := r.step(ctx, &object)
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if err != nil {
		r.unable(&object, err)
	}
	if patchErr := status.Patch(ctx, r.Client, &object, before); patchErr != nil {
		return ctrl.Result{}, client.IgnoreNotFound(patchErr)
	}
	switch {
	case object.Status.CompletionTime != nil:
		return ctrl.Result{RequeueAfter: keptFor}, nil
	case err == nil: // it is noted that the deletion begins
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return outcome.Result(err)
}

// tidy removes a request that ended long enough ago.
func (r *Reconciler) tidy(ctx context.Context, object *v1alpha1.DeleteBackupRequest, done time.Time) (ctrl.Result, error) {
	if left := keptFor - r.Now().Sub(done); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	err := r.Client.Delete(ctx, object, client.Preconditions{UID: &object.UID})
	if apierrors.IsConflict(err) {
		err = nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// unable notes an error: what only a person can mend is the request's end.
func (r *Reconciler) unable(object *v1alpha1.DeleteBackupRequest, err error) {
	switch o := outcome.Of(err); o.Kind {
	case outcome.IsStalled:
		r.finish(object, v1alpha1.RequestFailed, err.Error())
	case outcome.IsWaiting:
		object.Status.Phase, object.Status.Message = v1alpha1.RequestWaiting, err.Error()
	default:
		r.Metrics.AttemptFailed(metrics.KindDeletion, o.Reason)
		object.Status.Phase, object.Status.Message = v1alpha1.RequestInProgress, err.Error()
	}
}

func (r *Reconciler) finish(object *v1alpha1.DeleteBackupRequest, phase v1alpha1.RequestPhase, message string) {
	now := metav1.NewTime(r.Now().Truncate(time.Second))
	object.Status.Phase, object.Status.Message, object.Status.CompletionTime = phase, message, &now
}

// step checks the request, and once that is noted, deletes.
func (r *Reconciler) step(ctx context.Context, object *v1alpha1.DeleteBackupRequest) error {
	var b v1alpha1.Backup
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: object.Namespace, Name: object.Spec.BackupName}, &b)
	switch {
	case apierrors.IsNotFound(err) && object.Status.StartTime != nil:
		// It was there when the deletion was begun; the object goes after the data, here or with the next sync of the location.
		r.finish(object, v1alpha1.RequestDone, "The backup is deleted.")
		return nil
	case apierrors.IsNotFound(err):
		return outcome.Stalled("NotFound", fmt.Errorf("delete backup %s: there is no Backup object of that name in namespace %s", object.Spec.BackupName, object.Namespace))
	case err != nil:
		return fmt.Errorf("delete backup %s: %w", object.Spec.BackupName, err)
	}
	if uid := b.ArchiveUID(); uid != object.Spec.BackupUID {
		return outcome.Stalled("UIDMismatch", fmt.Errorf("delete backup %s: spec.backupUID is %s, but the backup that has this name now is %s: look at it, and name the one that is meant", b.Name, object.Spec.BackupUID, uid))
	}
	if !b.Status.Phase.Final() {
		return outcome.Waiting("InTheMaking", busyAgain, fmt.Errorf("delete backup %s: it is being made: set its spec.cancel, or wait for its end", b.Name))
	}
	place, err := r.place(ctx, &b)
	if err != nil {
		return err
	}
	if object.Status.StartTime == nil {
		if err := r.allowed(ctx, object, place, &b); err != nil {
			return err
		}
		now := metav1.NewTime(r.Now().Truncate(time.Second))
		object.Status.Phase, object.Status.Message, object.Status.StartTime = v1alpha1.RequestInProgress, "The backup is being deleted.", &now
		return nil
	}
	if err := r.delete(ctx, object, place, &b); err != nil {
		return err
	}
	r.Metrics.Deleted(place.Object.Name, metrics.CauseRequest)
	r.finish(object, v1alpha1.RequestDone, "The backup is deleted.")
	return nil
}

// place opens the location that holds the backup. A backup that never reached one is in none.
func (r *Reconciler) place(ctx context.Context, b *v1alpha1.Backup) (*location.Place, error) {
	name := b.Status.StorageLocation
	if name == "" {
		name = b.Spec.StorageLocation
	}
	place, err := r.Registry.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("delete backup %s: %w", b.Name, err)
	}
	if place.Object.Spec.ReadOnly {
		return nil, outcome.Stalled("LocationReadOnly", fmt.Errorf("delete backup %s: location %s is read-only: delete it where the location is not", b.Name, place.Object.Name))
	}
	return place, nil
}

// find gives the archive; the error wraps archive.ErrBackupNotFound where there is none.
func find(ctx context.Context, place *location.Place, b *v1alpha1.Backup, uid string) (archive.Entry, error) {
	entry, err := place.Archive.Again(ctx, archive.Entry{Name: b.Name, UID: uid})
	if errors.Is(err, archive.ErrBackupNotFound) { // its object may have had to take another name
		entry, err = place.Archive.Find(ctx, uid)
	}
	return entry, err
}

// allowed looks for what forbids the deletion, or asks to wait with it.
func (r *Reconciler) allowed(ctx context.Context, object *v1alpha1.DeleteBackupRequest, place *location.Place, b *v1alpha1.Backup) error {
	if by, err := r.restoring(ctx, b); by != "" || err != nil {
		if err == nil {
			err = outcome.Waiting("BeingRestored", busyAgain, fmt.Errorf("delete backup %s: restore %s reads it: wait for its end, or cancel it", b.Name, by))
		}
		return err
	}
	entry, err := find(ctx, place, b, object.Spec.BackupUID)
	switch {
	case errors.Is(err, archive.ErrBackupNotFound), err == nil && entry.Deleting:
		return nil
	case err != nil:
		return err
	}
	return held(&entry, object.Spec.Force)
}

// held refuses what a hold forbids, and what may have one.
func held(entry *archive.Entry, force bool) error {
	if force {
		return nil
	}
	if x := entry.Expiry; x != nil && x.Hold {
		return outcome.Stalled("Held", fmt.Errorf("delete backup %s: %w: %s", entry.Name, archive.ErrHeld, x.Reason))
	}
	if entry.Err == nil {
		return nil
	}
	if _, damaged := errors.AsType[*archive.DamageError](entry.Err); damaged || errors.Is(entry.Err, archive.ErrNewerFormat) {
		return outcome.Stalled("Unreadable", fmt.Errorf("delete backup %s: whether it is held is not known, as it cannot be read (force the deletion): %w", entry.Name, entry.Err))
	}
	return fmt.Errorf("delete backup %s: %w", entry.Name, entry.Err)
}

// delete removes the archive and then the object. A hold that comes after the tombstone comes too late.
func (r *Reconciler) delete(ctx context.Context, object *v1alpha1.DeleteBackupRequest, place *location.Place, b *v1alpha1.Backup) error {
	uid := object.Spec.BackupUID
	entry, err := find(ctx, place, b, uid)
	switch {
	case errors.Is(err, archive.ErrBackupNotFound):
		err = r.remains(ctx, place, b, uid)
	case err == nil:
		if err = held(&entry, object.Spec.Force || entry.Deleting); err == nil {
			err = place.Archive.Delete(ctx, entry, archive.DeleteOptions{Force: true, LeaveElsewhere: object.Spec.Force, Now: r.Now})
		}
	}
	if errors.Is(err, plugins.ErrRetained) {
		return outcome.Waiting("WaitingForLock", r.lockWait(err), fmt.Errorf("the deletion has begun, and goes on when the bucket's object lock ends: %w", err))
	}
	if errors.Is(err, archive.ErrElsewhere) {
		return outcome.Stalled("Elsewhere", fmt.Errorf("delete backup %s: %w", b.Name, err))
	}
	if err != nil {
		return fmt.Errorf("delete backup %s: %w", b.Name, err)
	}
	return retention.RemoveObject(ctx, r.Client, b.Namespace, b.Status.StorageLocation, uid)
}

// remains ends a deletion that was cut off after the record went, and removes what the attempts left of a backup that failed.
func (r *Reconciler) remains(ctx context.Context, place *location.Place, b *v1alpha1.Backup, uid string) error {
	if b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" {
		return place.Archive.ResumeDeletion(ctx, uid)
	}
	return place.Archive.Delete(ctx, archive.Entry{Name: b.Name, UID: uid}, archive.DeleteOptions{Now: r.Now})
}

// lockWait is when to look again at what object lock protects.
func (r *Reconciler) lockWait(err error) time.Duration {
	known, ok := errors.AsType[*plugins.RetainedError](err)
	if !ok {
		return lockAgain
	}
	return min(lockAgain, max(known.Until.Sub(r.Now())+time.Second, time.Second))
}

// restoring names a restore that reads the backup; "" where none does.
func (r *Reconciler) restoring(ctx context.Context, b *v1alpha1.Backup) (string, error) {
	var list v1alpha1.RestoreList
	if err := r.Client.List(ctx, &list, client.InNamespace(b.Namespace)); err != nil {
		return "", fmt.Errorf("list the restores: %w", err)
	}
	for i := range list.Items {
		s := &list.Items[i]
		if called := s.Spec.BackupName; !s.Status.Phase.Final() && (called == b.Name || called == b.ArchiveUID()) {
			return s.Name, nil
		}
	}
	return "", nil
}
