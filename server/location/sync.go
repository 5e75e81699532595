package location

import (
	"context"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/server/status"
)

// showAtOnce is how many Backup objects are written at once.
const showAtOnce = 16

// settled is how old a Backup object must be before it is removed because its archive is not in a listing: the listing, or the cache that the
// object is read from, may be older than the backup.
const settled = 2 * time.Minute

// show makes the Backup objects, as they were before the location was listed, agree with what it holds: an archive without an object gets one, an object follows the expiry of
// its archive, and an object whose archive is gone goes too. It gives what is wrong with entries that cannot be read.
func (r *Reconciler) show(ctx context.Context, location *v1alpha1.BackupStorageLocation, objects []v1alpha1.Backup, entries []archive.Entry) (unreadable []error, err error) {
	shown := map[string]*v1alpha1.Backup{}
	names := map[string]bool{}
	for i := range objects {
		b := &objects[i]
		names[b.Name] = true
		shown[archiveUID(b)] = b
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(showAtOnce)
	held := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		held[e.UID] = true
		if e.Err != nil {
			unreadable = append(unreadable, fmt.Errorf("%s: %w", e.ID(), e.Err))
			continue
		}
		b := shown[e.UID]
		switch {
		case b != nil && (b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" || b.Status.Phase.Final()):
			group.Go(func() error { return r.follow(groupCtx, b, e, location.Name) })
		case b == nil && !e.Deleting:
			name := e.Name
			if names[name] {
				name = distinct(e)
			}
			names[name] = true
			group.Go(func() error { return r.create(groupCtx, name, e, location) })
		}
	}
	if err := group.Wait(); err != nil {
		return unreadable, err
	}
	for uid, b := range shown {
		if !held[uid] && r.orphaned(b, location.Name) {
			if err := r.remove(ctx, b); err != nil {
				return unreadable, err
			}
		}
	}
	return unreadable, nil
}

// archiveUID is the uid of the archive that an object shows, or will become.
func archiveUID(b *v1alpha1.Backup) string {
	if uid := b.Annotations[v1alpha1.ArchiveUIDAnnotation]; uid != "" {
		return uid
	}
	if b.Status.ArchiveUID != "" {
		return b.Status.ArchiveUID
	}
	return string(b.UID)
}

// distinct is the name of the object for an archive whose own name another object has.
func distinct(e *archive.Entry) string {
	const most = 253
	suffix := "-" + e.UID[:min(len(e.UID), 8)]
	return e.Name[:min(len(e.Name), most-len(suffix))] + suffix
}

// create makes the object of an archive that has none.
func (r *Reconciler) create(ctx context.Context, name string, e *archive.Entry, location *v1alpha1.BackupStorageLocation) error {
	b := &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: location.Namespace, Labels: maps.Clone(e.Record.Labels),
			Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: e.UID},
		},
		Spec: *e.Record.Spec.DeepCopy(),
	}
	b.Spec.StorageLocation = location.Name
	if err := r.Client.Create(ctx, b); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return nil // the cache did not show it yet; the next sync will
		}
		return fmt.Errorf("show backup %s: %w", e.ID(), err)
	}
	return r.follow(ctx, b, e, location.Name)
}

// follow brings the status of an object up to what its archive says.
func (r *Reconciler) follow(ctx context.Context, b *v1alpha1.Backup, e *archive.Entry, location string) error {
	want := StatusOf(e, location)
	have := b.DeepCopy()
	s := &b.Status
	want.Conditions, want.Attempts = s.Conditions, s.Attempts
	want.ObservedGeneration = b.Generation
	// What was written with parts of a second comes back without.
	want.StartTime, want.CompletionTime = seconds(want.StartTime), seconds(want.CompletionTime)
	want.Expiration = seconds(want.Expiration)
	if !equality.Semantic.DeepEqual(want, *s) {
		*s = want
		status.Set(&s.Conditions, r.Now(), b.Generation, ReadyCondition(want.Phase, want.Message))
	}
	return client.IgnoreNotFound(status.Patch(ctx, r.Client, b, have))
}

// ReadyCondition is the condition Ready of a Backup whose archive is sealed.
func ReadyCondition(phase v1alpha1.Phase, message string) status.Condition {
	c := status.Condition{Type: status.Ready, Status: metav1.ConditionTrue, Reason: string(phase), Message: message}
	switch phase {
	case v1alpha1.PhaseCompleted:
		c.Message = orElse(message, "Every selected object is in the backup.")
	case v1alpha1.PhasePartiallyFailed:
		c.Message = orElse(message, "The backup holds what could be read; its report names what is missing.")
	default:
		c.Status = metav1.ConditionFalse
		c.Message = orElse(message, "There is no backup.")
	}
	return c
}

func orElse(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}

func seconds(t *metav1.Time) *metav1.Time {
	if t == nil {
		return nil
	}
	return timePointer(t.Truncate(time.Second).Local())
}

// orphaned says whether an object shows an archive that the location no longer holds.
func (r *Reconciler) orphaned(b *v1alpha1.Backup, location string) bool {
	if b.Status.StorageLocation != location && (b.Status.StorageLocation != "" || b.Spec.StorageLocation != location) {
		return false
	}
	if r.Now().Sub(b.CreationTimestamp.Time) < settled {
		return false
	}
	if b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" {
		return true
	}
	done := b.Status.CompletionTime
	return b.Status.Phase.Usable() && done != nil && r.Now().Sub(done.Time) >= settled
}

// remove deletes an object, if it is still the one that was looked at. No data goes with it.
func (r *Reconciler) remove(ctx context.Context, b *v1alpha1.Backup) error {
	uid := types.UID(b.UID)
	err := r.Client.Delete(ctx, b, client.Preconditions{UID: &uid, ResourceVersion: &b.ResourceVersion})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the Backup object %s, whose archive is gone: %w", b.Name, err)
	}
	return nil
}
