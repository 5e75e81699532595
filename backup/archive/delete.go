package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kedge.dev/kedge/plugins"
)

// tombstone marks a deletion that has begun: readers refuse the backup, and any later run can finish the work.
type tombstone struct {
	Layout int       `json:"layout"`
	Name   string    `json:"name"`
	UID    string    `json:"uid"`
	At     time.Time `json:"at"`
	// Elsewhere says that the backup may have data outside of the location.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Cluster is the uid of the cluster that keeps snapshots of the backup in its own API, OnlyCluster that nobody else has any.
	Cluster     string `json:"cluster,omitempty"`
	OnlyCluster bool   `json:"onlyCluster,omitempty"`
	// LeaveCluster says that they may stay there, where that cluster cannot be asked, LeavePlaces the same of the copies in places that refuse.
	LeaveCluster bool `json:"leaveCluster,omitempty"`
	LeavePlaces  bool `json:"leavePlaces,omitempty"`
	// SnapshotPlaces are where copies of its snapshots may be: the record, which says so, goes before the tombstone does.
	SnapshotPlaces []plugins.Place `json:"snapshotPlaces,omitempty"`
}

// outside is what goes before the files do.
func (t *tombstone) outside() Outside {
	return Outside{UID: t.UID, Cluster: t.Cluster, OnlyCluster: t.OnlyCluster, Leave: t.LeaveCluster, Places: t.SnapshotPlaces, LeavePlaces: t.LeavePlaces}
}

func tombstoneKey(uid string) string { return tombstonePrefix + uid + ".json" }

func parseTombstone(raw []byte, uid string) (*tombstone, error) {
	var t tombstone
	err := openJSON(raw, &t, false)
	switch {
	case err != nil:
	case t.Layout > layoutVersion:
		err = ErrNewerFormat
	case t.UID != uid || !validUID(uid) || !validName(t.Name):
		err = fmt.Errorf("it is about %q/%q", t.Name, t.UID)
	case validatePlaces(t.SnapshotPlaces) != nil:
		err = validatePlaces(t.SnapshotPlaces)
	default:
		return &t, nil
	}
	return nil, &DamageError{
		File: tombstoneKey(uid), Offset: -1, Detail: "it cannot be read", Err: err,
		Remedy: "remove it to have the backup back if nothing of it was deleted yet, or delete the backup again",
	}
}

// DeleteOptions say how a backup is deleted.
type DeleteOptions struct {
	// Force deletes also what is held, and what may be: a backup that cannot be read.
	Force bool
	// LeaveElsewhere leaves the snapshots that another cluster keeps in its own API to that one, and their copies to places that refuse who asks. A
	// deletion that has begun without it goes on with it.
	LeaveElsewhere bool
	Now            func() time.Time
}

// Delete removes a backup: a tombstone first, from when on readers refuse the backup, then its files, its record, and
// the tombstone last. Whatever interrupts it, ResumeDeletions goes on. Nothing is changed where the backup has something outside of the location that
// cannot be reached. The error wraps ErrHeld where a hold stands,
// ErrHoldUnknown where the entry cannot say whether one does, and plugins.ErrRetained where the store protects an object
// still: the backup then stays in deletion until that ends.
func (l *Location) Delete(ctx context.Context, e Entry, opts DeleteOptions) error {
	if opts.Now == nil || !validName(e.Name) || !validUID(e.UID) {
		return fmt.Errorf("delete backup %s: %w", e.ID(), ErrInvalid)
	}
	if err := e.refuseHeld(); err != nil && !opts.Force {
		return fmt.Errorf("delete backup %s: %w", e.ID(), err)
	}
	if err := l.delete(ctx, &e, opts); err != nil {
		return fmt.Errorf("delete backup %s: %w", e.ID(), err)
	}
	return nil
}

func (l *Location) delete(ctx context.Context, e *Entry, opts DeleteOptions) error {
	elsewhere, err := l.hasElsewhere(ctx, e)
	if err != nil {
		return err
	}
	t := tombstone{Layout: layoutVersion, Name: e.Name, UID: e.UID, At: opts.Now().UTC().Truncate(time.Second), Elsewhere: elsewhere}
	if rec := e.Record; rec != nil {
		t.SnapshotPlaces = rec.SnapshotPlaces
		if rec.Counts.ClusterSnapshots > 0 {
			t.Cluster, t.OnlyCluster = rec.Cluster.UID, rec.Counts.ClusterSnapshots == rec.Counts.Snapshots
		}
	}
	if opts.LeaveElsewhere {
		if begun, err := l.readTombstone(ctx, e.UID); err == nil && begun != nil {
			t = *begun // it may know more than what is left of the backup
		}
		t.LeaveCluster, t.LeavePlaces = t.Cluster != "", len(t.SnapshotPlaces) > 0
	}
	if t.Elsewhere && !e.Deleting {
		look := t.outside()
		look.Look = true
		if err := l.askElsewhere(ctx, look); err != nil {
			return fmt.Errorf("look whether what the backup has outside of the location can be removed: %w (nothing was changed)", err)
		}
	}
	if err := l.putTombstone(ctx, t, opts.LeaveElsewhere); err != nil {
		return err
	}
	return l.finishDeletion(ctx, t)
}

// putTombstone begins a deletion. One that has begun keeps its own, unless it is to be replaced.
func (l *Location) putTombstone(ctx context.Context, t tombstone, replace bool) error {
	doc, err := sealJSON(t)
	if err != nil {
		return err
	}
	if !replace {
		return l.putOnce(ctx, tombstoneKey(t.UID), doc)
	}
	_, err = l.store.Put(ctx, tombstoneKey(t.UID), bytes.NewReader(doc), plugins.PutOptions{})
	return err
}

// refuseHeld gives what speaks against a deletion: a hold, or that nobody knows of one.
func (e *Entry) refuseHeld() error {
	switch {
	case e.Err != nil:
		return fmt.Errorf("%w: %w", ErrHoldUnknown, e.Err)
	case e.Expiry != nil && e.Expiry.Hold:
		return fmt.Errorf("%w: %s", ErrHeld, e.Expiry.Reason)
	}
	return nil
}

// hasElsewhere says whether a backup has data outside of the location. Where its record cannot be read, its files tell.
func (l *Location) hasElsewhere(ctx context.Context, e *Entry) (has bool, err error) {
	if e.Record != nil {
		return e.Record.Counts.Snapshots > 0 || len(e.Record.SnapshotPlaces) > 0, nil
	}
	err = l.store.List(ctx, backupFolder(e.Name, e.UID), func(info plugins.ObjectInfo) error {
		has = has || strings.HasSuffix(info.Key, "/"+FileVolumes)
		return nil
	})
	return has, err
}

// finishDeletion removes what a tombstone is about, and then the tombstone.
func (l *Location) finishDeletion(ctx context.Context, t tombstone) error {
	folder := backupFolder(t.Name, t.UID)
	if t.Elsewhere {
		if err := l.removeElsewhere(ctx, folder, t.outside()); err != nil {
			return err
		}
	}
	// A writer may be at work: what it adds meanwhile is found by looking again.
	for range 10 {
		var keys []string
		err := l.store.List(ctx, folder, func(info plugins.ObjectInfo) error {
			if info.Key != folder+recordName {
				keys = append(keys, info.Key)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := l.deleteAll(ctx, append(keys, folder+recordName)); err != nil {
			return err
		}
		if len(keys) == 0 {
			return l.store.Delete(ctx, tombstoneKey(t.UID))
		}
	}
	return fmt.Errorf("objects appear below %s as fast as they are removed: stop the backup that is being written, then delete again", folder)
}

// removeElsewhere comes before the files: as long as they are there, somebody knows of the rest. Where none is left it was done before.
func (l *Location) removeElsewhere(ctx context.Context, folder string, what Outside) error {
	err := l.askElsewhere(ctx, what)
	if err == nil {
		return nil
	}
	files := false
	listErr := l.store.List(ctx, folder, func(plugins.ObjectInfo) error {
		files = true
		return nil
	})
	if !files && listErr == nil {
		return nil
	}
	return fmt.Errorf("remove what the backup has outside of the location: %w", err)
}

func (l *Location) askElsewhere(ctx context.Context, what Outside) error {
	if l.elsewhere == nil {
		return fmt.Errorf("%w: the backup has snapshots of volumes, which cannot be removed from here", ErrElsewhere)
	}
	return l.elsewhere(ctx, what)
}

func (l *Location) deleteAll(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if err := l.store.Delete(ctx, key); err != nil && !errors.Is(err, plugins.ErrNotFound) {
			return err
		}
	}
	return nil
}

// DeletionResult says what ResumeDeletions did. Retained are backups ("name/uid") whose objects the store protects
// still; they are no errors, the next run tries again.
type DeletionResult struct {
	Done     []string
	Retained []string
	// RetainedUntil is when the first of them may go, as far as the store says so.
	RetainedUntil time.Time
	// Elsewhere are those that can be finished somewhere else only; they are no errors either.
	Elsewhere []DeletionElsewhere
}

// DeletionElsewhere is a deletion that has begun and cannot be finished here.
type DeletionElsewhere struct {
	ID  string // "name/uid"
	Err error  // why; it wraps ErrElsewhere
}

// retained notes a deletion that has to wait.
func (r *DeletionResult) retained(id string, err error) {
	r.Retained = append(r.Retained, id)
	known, ok := errors.AsType[*plugins.RetainedError](err)
	if ok && (r.RetainedUntil.IsZero() || known.Until.Before(r.RetainedUntil)) {
		r.RetainedUntil = known.Until
	}
}

// ResumeDeletions finishes every deletion that has begun. One that fails keeps none of the others from being tried;
// the errors come back joined.
func (l *Location) ResumeDeletions(ctx context.Context) (DeletionResult, error) {
	uids, err := l.tombstones(ctx)
	if err != nil {
		return DeletionResult{}, fmt.Errorf("resume deletions in %s: %w", l.store, err)
	}
	return l.resumeDeletions(ctx, uids)
}

// ResumeListed is ResumeDeletions for what an inventory found; nothing is listed again.
func (l *Location) ResumeListed(ctx context.Context, inventory *Inventory) (DeletionResult, error) {
	return l.resumeDeletions(ctx, inventory.deleting)
}

func (l *Location) resumeDeletions(ctx context.Context, uids []string) (res DeletionResult, err error) {
	var failed []error
	for _, uid := range uids {
		name, err := l.resumeDeletion(ctx, uid)
		switch {
		case err == nil && name == "":
		case err == nil:
			res.Done = append(res.Done, name+"/"+uid)
		case errors.Is(err, plugins.ErrRetained):
			res.retained(name+"/"+uid, err)
		case errors.Is(err, ErrElsewhere):
			res.Elsewhere = append(res.Elsewhere, DeletionElsewhere{ID: name + "/" + uid, Err: err})
		default:
			failed = append(failed, fmt.Errorf("resume the deletion of %s: %w", uid, err))
		}
	}
	return res, errors.Join(failed...)
}

// ResumeDeletion finishes the deletion of the backup with that uid, if one has begun.
func (l *Location) ResumeDeletion(ctx context.Context, uid string) error {
	if !validUID(uid) {
		return fmt.Errorf("resume the deletion of %q: %w", uid, ErrInvalid)
	}
	if _, err := l.resumeDeletion(ctx, uid); err != nil {
		return fmt.Errorf("resume the deletion of %s: %w", uid, err)
	}
	return nil
}

// resumeDeletion gives the name of the backup; "" where there is no tombstone, because nothing has begun or another finished it.
func (l *Location) resumeDeletion(ctx context.Context, uid string) (name string, err error) {
	t, err := l.readTombstone(ctx, uid)
	if err != nil || t == nil {
		return "", err
	}
	return t.Name, l.finishDeletion(ctx, *t)
}

// readTombstone gives nil where there is none.
func (l *Location) readTombstone(ctx context.Context, uid string) (*tombstone, error) {
	raw, err := readAll(ctx, l.store, tombstoneKey(uid), maxSmall)
	if errors.Is(err, plugins.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseTombstone(raw, uid)
}
