package location

import (
	"context"
	"errors"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
)

// RemoveSnapshots is what a location removes of a deleted backup elsewhere: the snapshots that were made for it, their copies first. left is told of
// what stays there, as the deletion allows it.
func RemoveSnapshots(spec *v1alpha1.BackupStorageLocationSpec, pass *gate.Gate, id string, connect Connect, left func(context.Context, error)) archive.Elsewhere {
	return func(ctx context.Context, what archive.Outside) error {
		r := &removal{Outside: what, tags: map[string]string{volumes.TagUID: what.UID, volumes.TagLocation: id}, left: left}
		if what.Cluster != "" {
			if err := r.fromCluster(ctx, connect); err != nil {
				return err
			}
		}
		if what.OnlyCluster && len(what.Places) == 0 {
			return nil
		}
		providers, err := VolumeProviders(ctx, spec, pass)
		if err != nil {
			return err
		}
		return errors.Join(r.fromPlaces(ctx, providers), r.from(ctx, providers...))
	}
}

// removal removes what a backup has outside of its location, or looks whether it can be reached.
type removal struct {
	archive.Outside

	tags map[string]string
	left func(context.Context, error)
}

func (r *removal) from(ctx context.Context, providers ...plugins.VolumeProvider) error {
	if r.Look {
		return volumes.Look(ctx, providers, r.tags)
	}
	return volumes.Remove(ctx, providers, r.tags)
}

// leave tells of what stays, once: not where it is only looked for.
func (r *removal) leave(ctx context.Context, format string, args ...any) {
	if !r.Look {
		r.left(ctx, fmt.Errorf(format, args...))
	}
}

// fromCluster removes the VolumeSnapshots that a cluster keeps for the backup, if it is the one that this process works for. They are left only where it
// is known to be another one: one that does not answer may be the cluster itself.
func (r *removal) fromCluster(ctx context.Context, connect Connect) error {
	client, other := connect()
	if other == nil {
		uid, err := client.ClusterUID(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("ask whether this is cluster %s, which keeps VolumeSnapshots for the backup (any cluster that answers will do where they are to be left): %w", r.Cluster, err)
		case uid == r.Cluster:
			return r.from(ctx, ClusterProvider(ctx, client))
		}
		other = fmt.Errorf("this is cluster %s", uid)
	}
	if r.Leave {
		r.leave(ctx, "the VolumeSnapshots of backup %s are left to cluster %s: %w", r.UID, r.Cluster, other)
		return nil
	}
	return fmt.Errorf("%w: cluster %s keeps VolumeSnapshots for it, and only there can they be removed (delete the backup there, or by force, which leaves them): %w", archive.ErrElsewhere, r.Cluster, other)
}

// fromPlaces removes the copies of snapshots. A place that refuses, as its role is gone or forbids it, can be left; one that does not answer cannot.
func (r *removal) fromPlaces(ctx context.Context, providers []plugins.VolumeProvider) error {
	var failed []error
	for _, place := range r.Places {
		there, err := volumes.Elsewhere(providers, []plugins.Place{place})
		if err == nil {
			err = r.from(ctx, there...)
		}
		switch {
		case err == nil:
		case r.LeavePlaces && (errors.Is(err, plugins.ErrAccess) || errors.Is(err, plugins.ErrConfig)):
			r.leave(ctx, "the copies of snapshots of backup %s in %s are left there: %w", r.UID, place, err)
		default:
			failed = append(failed, fmt.Errorf("copies of snapshots in %s: %w", place, err))
		}
	}
	return errors.Join(failed...)
}
