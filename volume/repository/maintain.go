package repository

import (
	"context"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotgc"
)

// Defaults of MaintainOptions.
const (
	DefaultMinAge        = 24 * time.Hour
	DefaultCheckpointAge = 14 * 24 * time.Hour
)

// MaintainOptions say what a maintenance does.
type MaintainOptions struct {
	// Keep says of each whole copy whether it is still wanted; nil keeps all. A copy that any sealed backup names is wanted.
	Keep func(Copy) bool
	// MinAge is how long a copy stays though nobody wants it: whoever made it may not have recorded it yet. Zero means DefaultMinAge.
	MinAge time.Duration
	// CheckpointAge is how long after its last checkpoint a run is taken for dead, and its progress given up. Zero means DefaultCheckpointAge.
	CheckpointAge time.Duration
	// Force runs a full maintenance now. Else kopia's schedule, which is kept in the repository, decides: quick once an hour, full once a day.
	Force bool
}

// Maintained is what a maintenance did.
type Maintained struct {
	// Mode is "full", "quick", or "none" where none was due, or another in this process was running.
	Mode string
	// Kept and Forgotten are whole copies; Checkpoints were given up.
	Kept, Forgotten, Checkpoints int
}

// Maintain forgets the copies that nobody wants and has kopia tidy up: merge indexes, find what no copy refers to, remove it. It uses kopia's
// own safety margins, so that processes which write meanwhile, and those that have old indexes in their caches, are not disturbed: a chunk is
// marked at least 24 hours after its last use, forgotten by a second full maintenance at least 4 hours later, and its pack removed after 24
// hours more. What a kept copy refers to is never removed. Maintenance is the
// leader's; two that run at once by mistake do the work twice.
func (r *Repository) Maintain(ctx context.Context, opts MaintainOptions) (Maintained, error) {
	if opts.MinAge <= 0 {
		opts.MinAge = DefaultMinAge
	}
	if opts.CheckpointAge <= 0 {
		opts.CheckpointAge = DefaultCheckpointAge
	}
	done := Maintained{Mode: string(maintenance.ModeNone)}
	if err := r.own(ctx); err != nil {
		return done, fmt.Errorf("maintain %s: %w", r, err)
	}
	if err := r.forget(ctx, opts, &done); err != nil {
		return done, fmt.Errorf("maintain %s: %w", r, err)
	}
	mode := maintenance.ModeAuto
	if opts.Force {
		mode = maintenance.ModeFull
	}
	err := r.Write(ctx, "maintenance", nil, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return maintenance.RunExclusive(ctx, w, mode, false, func(ctx context.Context, run maintenance.RunParameters) error {
			done.Mode = string(run.Mode)
			if run.Mode == maintenance.ModeFull {
				if err := snapshotgc.Run(ctx, w, true, maintenance.SafetyFull, run.MaintenanceStartTime); err != nil {
					return err
				}
			}
			return maintenance.Run(ctx, run, maintenance.SafetyFull)
		})
	})
	if err != nil {
		return done, fmt.Errorf("maintain %s: %w", r, err)
	}
	return done, nil
}

// own makes the repository's maintenance ours, whoever connected first, so that kopia's command line does not run it at its own times.
func (r *Repository) own(ctx context.Context) error {
	var params *maintenance.Params
	extend := false
	err := r.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		config, err := r.kopia.FormatManager().BlobCfgBlob(ctx)
		if err != nil {
			return err
		}
		extend = config.IsRetentionEnabled()
		params, err = maintenance.GetParams(ctx, rep)
		return err
	})
	if err != nil {
		return err
	}
	owner := ownerUser + "@" + ownerHost
	if params.Owner == owner && params.ExtendObjectLocks == extend {
		return nil
	}
	params.Owner, params.ExtendObjectLocks = owner, extend
	return r.Write(ctx, "maintenance owner", nil, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return maintenance.SetParams(ctx, w, params)
	})
}

// forget removes the manifests of copies that nobody wants, and of checkpoints that nobody goes on with.
func (r *Repository) forget(ctx context.Context, opts MaintainOptions, done *Maintained) error {
	return r.Write(ctx, "forget copies", nil, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		whole, err := CopiesIn(ctx, w, Filter{})
		if err != nil {
			return err
		}
		now := r.Now()
		for _, c := range whole {
			if opts.Keep == nil || opts.Keep(c) || now.Sub(c.Completed) < opts.MinAge {
				done.Kept++
				continue
			}
			if err := Forget(ctx, w, c.ID); err != nil {
				return err
			}
			done.Forgotten++
		}
		checkpoints, err := CopiesIn(ctx, w, Filter{Incomplete: true})
		if err != nil {
			return err
		}
		for _, c := range checkpoints {
			if now.Sub(c.Completed) < opts.CheckpointAge {
				continue
			}
			if err := Forget(ctx, w, c.ID); err != nil {
				return err
			}
			done.Checkpoints++
		}
		return nil
	})
}
