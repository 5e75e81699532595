package retention

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kedge.dev/kedge/backup/archive"
)

// The steps in which object lock follows what has no date. What retention removes later than it locked can only go when the lock ends, so
// that a young backup, which may be superseded within hours, is locked for a day or two, and an old one for a week or two.
const (
	shortStep = 24 * time.Hour
	longStep  = 7 * 24 * time.Hour
	// oldAge is from when on a backup is locked in long steps.
	oldAge = 7 * 24 * time.Hour
	// lockMargin is how long before the end of its TTL a backup that is kept beyond it is locked further.
	lockMargin = 6 * time.Hour
)

// LockUntil is until when the store shall protect a backup, given what was decided about it: the end of its TTL, and where something without
// a date keeps it beyond that, the end of the step after the present one. The zero time asks for nothing. Steps end at fixed
// times, so that whoever asks within one gets the same answer.
func LockUntil(d *Decision, now time.Time) time.Time {
	var until time.Time
	if !d.Keep || !d.Ours {
		return until
	}
	if d.Until != nil {
		until = *d.Until
	}
	if d.Beyond && until.Before(now.Add(lockMargin)) {
		step := shortStep
		if now.Sub(d.Backup.Started) >= oldAge {
			step = longStep
		}
		until = now.Truncate(step).Add(2 * step)
	}
	return until
}

// lock has the store protect what is kept. locked remembers, by uid, what was done.
func (p *Pass) lock(ctx context.Context, entries []archive.Entry, decisions []Decision) error {
	var failed []error
	for i := range decisions {
		until := LockUntil(&decisions[i], p.now)
		uid := decisions[i].Backup.UID
		if until.IsZero() || !until.After(p.Locked[uid]) {
			continue
		}
		err := p.Archive.Retain(ctx, entries[i], until)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			p.Locked[uid] = until
			continue
		}
		failed = append(failed, fmt.Errorf("extend the object lock: %w", err))
		if len(failed) == maxFailures {
			break
		}
	}
	return errors.Join(failed...)
}
