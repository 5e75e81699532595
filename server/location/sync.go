package location

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
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
const showAtOnce = 32

// settled is how old a Backup object must be before it is removed because its archive is not in a listing: the listing, or the cache that the
// object is read from, may be older than the backup.
const settled = 2 * time.Minute

// showing makes the Backup objects, as they were before the location was listed, agree with what it holds, while it is being listed: an archive
// without an object gets one, an object follows the expiry of its archive, and an object whose archive is gone goes too.
type showing struct {
	r        *Reconciler
	location *v1alpha1.BackupStorageLocation
	shown    map[string]*v1alpha1.Backup // by the archive's uid
	names    map[string]bool             // of all objects
	held     map[string]bool             // the uids that the location has

	group      *errgroup.Group
	refused    refusals
	unreadable []error
}

// show begins; the context that it gives is for take, and ends with the first failure.
func (r *Reconciler) show(ctx context.Context, location *v1alpha1.BackupStorageLocation, objects []v1alpha1.Backup) (*showing, context.Context, error) {
	shown, names, err := r.sort(ctx, location, objects)
	if err != nil {
		return nil, nil, err
	}
	s := &showing{r: r, location: location, shown: shown, names: names, held: map[string]bool{}}
	s.group, ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(showAtOnce)
	return s, ctx, nil
}

// take shows one backup. It returns before that is done, as soon as there is room for another.
func (s *showing) take(ctx context.Context, e archive.Entry) {
	s.held[e.UID] = true
	if e.Err != nil {
		s.unreadable = append(s.unreadable, fmt.Errorf("%s: %w", e.ID(), e.Err))
		return
	}
	b := s.shown[e.UID]
	switch {
	case b != nil && (b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" || b.Status.Phase.Final()):
		s.group.Go(func() error { return s.refused.take(s.r.follow(ctx, b, &e, s.location.Name)) })
	case b == nil && !e.Deleting:
		name := freeName(&e, s.location.Name, s.names)
		s.names[name] = true
		s.group.Go(func() error { return s.refused.take(s.r.create(ctx, name, &e, s.location)) })
	}
}

// end waits for what was taken, and removes the objects of what was not, where the location was listed to its end. It gives what is wrong with entries that
// cannot be read, or not be shown.
func (s *showing) end(ctx context.Context, complete bool) (unreadable []error, err error) {
	if err := s.group.Wait(); err != nil || !complete {
		return s.unreadable, err
	}
	unreadable = append(s.unreadable, s.refused.sorted()...)
	for uid, b := range s.shown {
		if !s.held[uid] && s.r.orphaned(b, s.location.Name) {
			if err := s.r.remove(ctx, b); err != nil {
				return unreadable, err
			}
		}
	}
	return unreadable, nil
}

// refusals are the objects that the API server, or a policy in it, does not take for what a record says. Records are written by others; one hides no other.
type refusals struct {
	mu   sync.Mutex
	list []error
}

// take keeps a refusal, and gives back any other error.
func (r *refusals) take(err error) error {
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) && !apierrors.IsRequestEntityTooLargeError(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, err)
	return nil
}

func (r *refusals) sorted() []error {
	slices.SortFunc(r.list, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return r.list
}

// sort gives those of the Backup objects that show archives of the location, by the archive's uid, and the names of all. An archive may lie in several
// locations, one a replica of the other; each has an object of its own for it. An object of a location that there is no longer is taken over.
func (r *Reconciler) sort(ctx context.Context, location *v1alpha1.BackupStorageLocation, objects []v1alpha1.Backup) (shown map[string]*v1alpha1.Backup, names map[string]bool, err error) {
	var locations v1alpha1.BackupStorageLocationList
	if err := r.Client.List(ctx, &locations, client.InNamespace(location.Namespace)); err != nil {
		return nil, nil, fmt.Errorf("list the locations: %w", err)
	}
	others := map[string]bool{}
	for i := range locations.Items {
		others[locations.Items[i].Name] = locations.Items[i].Name != location.Name
	}
	shown, names = map[string]*v1alpha1.Backup{}, map[string]bool{}
	for i := range objects {
		b := &objects[i]
		names[b.Name] = true
		of := orElse(b.Status.StorageLocation, b.Spec.StorageLocation)
		if of == location.Name || !others[of] && shown[b.ArchiveUID()] == nil {
			shown[b.ArchiveUID()] = b
		}
	}
	return shown, names, nil
}

// freeName is the name of the object for an archive: its own, or where another object has that, one with the beginning of its uid; a copy of
// an archive whose object has that one too adds what stands for its location.
func freeName(e *archive.Entry, location string, taken map[string]bool) string {
	suffix := "-" + e.UID[:min(len(e.UID), 8)]
	sum := fnv.New32a()
	sum.Write([]byte(location)) // never fails
	for _, s := range []string{"", suffix} {
		if name := suffixed(e.Name, s); !taken[name] {
			return name
		}
	}
	return suffixed(e.Name, fmt.Sprintf("%s-%08x", suffix, sum.Sum32()))
}

// suffixed adds to a name, which is shortened where there is no room.
func suffixed(name, suffix string) string {
	const most = 253
	if len(name) > most-len(suffix) {
		name = strings.TrimRight(name[:most-len(suffix)], "-.")
	}
	return name + suffix
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
	want.Conditions, want.Attempts, want.Failures, want.Stops = s.Conditions, s.Attempts, s.Failures, s.Stops
	want.ObservedGeneration = b.Generation
	// What was written with parts of a second comes back without.
	want.StartTime, want.CompletionTime = seconds(want.StartTime), seconds(want.CompletionTime)
	want.Expiration = seconds(want.Expiration)
	if !equality.Semantic.DeepEqual(want, *s) {
		*s = want
		status.Set(&s.Conditions, r.Now(), b.Generation, ReadyCondition(want.Phase, want.Message))
	}
	if equality.Semantic.DeepEqual(b, have) {
		return nil
	}
	// A whole object is less work for the API server than a patch, by a fifth. It is refused too where anybody changed the object meanwhile.
	b.ManagedFields = nil
	err := r.Client.Status().Update(ctx, b)
	if apierrors.IsConflict(err) {
		return nil // the next sync sees what it has become; the other backups are shown now
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("show backup %s: %w", e.ID(), err)
	}
	return nil
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
