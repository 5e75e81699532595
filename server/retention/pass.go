package retention

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// The bounds of one pass.
const (
	// maxRemovals is how many backups one pass removes; the next goes on.
	maxRemovals = 200
	// maxFailures is how many failures of one sort end that part of a pass: a store that is away need not be asked about every backup.
	maxFailures = 3
)

// Pass is one run of retention over one location: what was begun is ended, what is kept is protected, what nothing keeps is removed, what
// crashed attempts left is swept. Whatever interrupts it, another pass goes on: every step is recorded in the location itself.
type Pass struct {
	Archive *archive.Location
	// Look lists the location to its end, once, and reads the records. Nothing is decided on a listing that did not end.
	Look func(ctx context.Context) (*archive.Inventory, []archive.Entry, error)
	// Prepare gives the input of the decisions about the entries, but for Backups and Now.
	Prepare func(ctx context.Context, entries []archive.Entry) (Input, error)
	// Lock extends the store's own retention (object lock) of what is kept. Locked remembers, by uid, until when that was done; the
	// next pass is handed the same map.
	Lock   bool
	Locked map[string]time.Time
	// Removed is told of every backup that is gone from the store, with the reason that Evaluate gave ("" where the deletion was begun
	// earlier). Its error is one of the pass, and stops nothing.
	Removed func(ctx context.Context, name, uid, reason string) error
	Now     func() time.Time

	now time.Time // of the decisions
}

// Result says what a pass did and found.
type Result struct {
	// Kept are the backups of this cluster that stay.
	Kept int
	// Removed are those that are gone ("name/uid").
	Removed []string
	// Waiting are deletions that the store's object lock holds up, and LockEnds is when the first of them can go on, where that is known.
	Waiting  []string
	LockEnds time.Time
	// Elsewhere are deletions that have begun and that another cluster has to finish, which keeps snapshots for them.
	Elsewhere []archive.DeletionElsewhere
	// Swept are folders of crashed attempts that are gone ("name/uid/attempt"), with SweptObjects in all.
	Swept        []string
	SweptObjects int
	// NextEnd is when the next TTL ends; zero where none does.
	NextEnd time.Time
	// More says that there is more to do at once: the pass was bounded, or a backup changed while it ran.
	More bool
	// Damaged is what could not be looked at because it is damaged; it is passed over.
	Damaged []error
}

// Run makes the pass. The result is what was done until the error, which joins what failed; backups that failed keep no others from being
// looked at.
func (p *Pass) Run(ctx context.Context) (Result, error) {
	var res Result
	p.now = p.Now()
	inventory, entries, err := p.Look(ctx)
	if err != nil {
		return res, err
	}
	failed := []error{p.resume(ctx, &res, inventory)}
	in, err := p.Prepare(ctx, entries)
	if err != nil {
		return res, errors.Join(append(failed, err)...)
	}
	in.Now, in.Backups = p.now, make([]Backup, len(entries))
	for i := range entries {
		in.Backups[i] = BackupOf(&entries[i])
	}
	decisions := Evaluate(in)
	p.count(&res, decisions)
	if p.Lock {
		failed = append(failed, p.lock(ctx, entries, decisions))
	}
	failed = append(failed, p.remove(ctx, &res, entries, decisions), p.sweep(ctx, &res, inventory, entries))
	if ctx.Err() != nil {
		return res, fmt.Errorf("apply retention to %s: %w", p.Archive.Store(), ctx.Err())
	}
	return res, errors.Join(failed...)
}

// resume ends the deletions that have begun. Their entries say so of themselves, and nothing else is done with them in this pass.
func (p *Pass) resume(ctx context.Context, res *Result, inventory *archive.Inventory) error {
	done, err := p.Archive.ResumeListed(ctx, inventory)
	res.Waiting, res.LockEnds, res.Elsewhere = done.Retained, done.RetainedUntil, done.Elsewhere
	failed := []error{err}
	for _, id := range done.Done {
		name, uid, _ := strings.Cut(id, "/")
		res.Removed = append(res.Removed, id)
		failed = append(failed, p.Removed(ctx, name, uid, ""))
	}
	return errors.Join(failed...)
}

func (p *Pass) count(res *Result, decisions []Decision) {
	for i := range decisions {
		d := &decisions[i]
		if !d.Ours || !d.Keep {
			continue
		}
		res.Kept++
		if d.Until != nil && (res.NextEnd.IsZero() || d.Until.Before(res.NextEnd)) {
			res.NextEnd = *d.Until
		}
	}
}

// remove deletes what nothing keeps, the oldest first.
func (p *Pass) remove(ctx context.Context, res *Result, entries []archive.Entry, decisions []Decision) error {
	var doomed []int
	last := map[string][]*archive.Entry{} // of each schedule, the backups that stay as the last good ones
	for i := range decisions {
		d := &decisions[i]
		switch {
		case !d.Ours || d.Backup.Deleting:
		case !d.Keep:
			doomed = append(doomed, i)
		case slices.Contains(d.Reasons, reasonNewest), slices.Contains(d.Reasons, reasonComplete):
			last[d.Backup.Schedule] = append(last[d.Backup.Schedule], &entries[i])
		}
	}
	slices.SortFunc(doomed, func(a, b int) int { return newestFirst(&decisions[b], &decisions[a]) })
	if len(doomed) > maxRemovals {
		doomed, res.More = doomed[:maxRemovals], true
	}
	var failed []error
	for _, i := range doomed {
		err := p.removeOne(ctx, res, &entries[i], last[decisions[i].Backup.Schedule], decisions[i].Reasons[0])
		if err != nil {
			failed = append(failed, fmt.Errorf("remove backup %s: %w", entries[i].ID(), err))
		}
		if ctx.Err() != nil || len(failed) == maxFailures {
			break
		}
	}
	return errors.Join(failed...)
}

// removeOne deletes a backup, if it and those that stay as the last good ones are still what they were when it was decided.
func (p *Pass) removeOne(ctx context.Context, res *Result, e *archive.Entry, anchors []*archive.Entry, reason string) error {
	gone := func() error {
		res.Removed = append(res.Removed, e.ID())
		return p.Removed(ctx, e.Name, e.UID, reason)
	}
	switch same, err := p.unchanged(ctx, e); {
	case errors.Is(err, archive.ErrBackupNotFound):
		return gone()
	case err != nil:
		return err
	case !same:
		res.More = true
		return nil
	}
	for _, anchor := range anchors {
		same, err := p.unchanged(ctx, anchor)
		gone := errors.Is(err, archive.ErrBackupNotFound)
		if err != nil && !gone {
			return err
		}
		if gone || !same {
			res.More = true
			return nil
		}
	}
	err := p.Archive.Delete(ctx, *e, archive.DeleteOptions{Now: p.Now})
	switch {
	case errors.Is(err, plugins.ErrRetained):
		res.Waiting = append(res.Waiting, e.ID())
		known, ok := errors.AsType[*plugins.RetainedError](err)
		if ok && (res.LockEnds.IsZero() || known.Until.Before(res.LockEnds)) {
			res.LockEnds = known.Until
		}
		return nil
	case err != nil:
		return err
	}
	return gone()
}

// unchanged looks whether a backup is still what was decided about.
func (p *Pass) unchanged(ctx context.Context, e *archive.Entry) (bool, error) {
	again, err := p.Archive.Again(ctx, *e)
	if err != nil {
		return false, err
	}
	return reflect.DeepEqual(BackupOf(&again), BackupOf(e)), nil
}

// sweep removes what crashed attempts left. Records that cannot be read are passed over, with what lies beside them.
func (p *Pass) sweep(ctx context.Context, res *Result, inventory *archive.Inventory, entries []archive.Entry) error {
	swept, err := p.Archive.Sweep(ctx, archive.SweepOptions{OlderThan: archive.MinSweepAge, Now: p.Now, Inventory: inventory, Entries: entries})
	res.Swept, res.SweptObjects = swept.Attempts, swept.Objects
	var failed []error
	for _, err := range parts(err) {
		_, damaged := errors.AsType[*archive.DamageError](err)
		if damaged || errors.Is(err, archive.ErrNewerFormat) {
			res.Damaged = append(res.Damaged, err)
		} else {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// parts takes what errors.Join put together apart.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // only the outermost is meant
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
