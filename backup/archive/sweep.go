package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kedge.dev/kedge/plugins"
)

// MinSweepAge is the least age of remains that Sweep takes. A writer gives up long before.
const MinSweepAge = 48 * time.Hour

// SweepOptions say what Sweep takes.
type SweepOptions struct {
	// OlderThan is the least age of the newest object of what is swept; at least MinSweepAge.
	OlderThan time.Duration
	Now       func() time.Time
	// Inventory is a listing of the location that the caller has; nil lists it anew.
	Inventory *Inventory
	// Entries are backups whose records the caller has read. A record never changes, so that the attempt which one names needs no further look.
	Entries []Entry
	// DryRun only looks.
	DryRun bool
}

// SweepResult says what was swept: folders of attempts ("name/uid/attempt") that never became a backup.
type SweepResult struct {
	Attempts []string
	Retained []string
	// Objects and Bytes are of the Attempts.
	Objects int
	Bytes   int64
}

// Sweep removes what crashed attempts left. An attempt is taken only when its newest object is older than OlderThan by
// the store's clock and ours, no record names it, and no record appears while it is being looked at.
func (l *Location) Sweep(ctx context.Context, opts SweepOptions) (SweepResult, error) {
	var res SweepResult
	if opts.Now == nil || opts.OlderThan < MinSweepAge {
		return res, fmt.Errorf("sweep %s: %w: the age must be at least %s, lest a backup that is being written is taken", l.store, ErrInvalid, MinSweepAge)
	}
	before, inventory := opts.Now().Add(-opts.OlderThan), opts.Inventory
	if inventory == nil {
		var err error
		if inventory, err = l.Inventory(ctx); err != nil {
			return res, fmt.Errorf("sweep %s: %w", l.store, err)
		}
	}
	sealed := map[string]string{} // the attempt that became the backup, by its name and uid
	for i := range opts.Entries {
		if e := &opts.Entries[i]; e.Record != nil {
			sealed[e.ID()] = e.Record.Attempt
		}
	}
	var failed []error
	for i := range inventory.attempts {
		a := &inventory.attempts[i]
		if a.newest.After(before) || sealed[a.name+"/"+a.uid] == a.attempt {
			continue
		}
		err := l.sweepOne(ctx, a, before, opts.DryRun, &res)
		id := a.name + "/" + a.uid + "/" + a.attempt
		switch {
		case err == nil:
			res.Attempts = append(res.Attempts, id)
		case errors.Is(err, errInUse):
		case errors.Is(err, plugins.ErrRetained):
			res.Retained = append(res.Retained, id)
		default:
			failed = append(failed, fmt.Errorf("sweep %s: %w", id, err))
		}
	}
	return res, errors.Join(failed...)
}

var errInUse = errors.New("a record names it, or somebody writes to it")

// sweepOne removes one attempt, unless the record names it or cannot be understood, and counts what that was.
func (l *Location) sweepOne(ctx context.Context, a *remains, before time.Time, dryRun bool, res *SweepResult) error {
	raw, err := readAll(ctx, l.store, recordKey(a.name, a.uid), maxRecord)
	switch {
	case errors.Is(err, plugins.ErrNotFound):
	case err != nil:
		return err
	default:
		rec, err := parseRecord(raw, a.name, a.uid)
		if err != nil {
			return err // damaged, or of a newer Kedge: touch nothing
		}
		if rec.Attempt == a.attempt {
			return errInUse
		}
	}
	var keys []string
	var bytes int64
	err = l.store.List(ctx, attemptFolder(a.name, a.uid, a.attempt), func(info plugins.ObjectInfo) error {
		if info.LastModified.After(before) {
			return errInUse
		}
		keys = append(keys, info.Key)
		bytes += info.Size
		return nil
	})
	if err == nil && !dryRun {
		err = l.deleteAll(ctx, keys)
	}
	if err == nil {
		res.Objects += len(keys)
		res.Bytes += bytes
	}
	return err
}
