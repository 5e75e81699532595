package volumes

import (
	"context"
	"errors"
	"time"

	"kedge.dev/kedge/plugins"
)

// made is a snapshot, or a volume that was made of one, which a provider has of a backup.
type made struct {
	id     string
	volume bool
	at     time.Time
	tags   map[string]string
}

// Remove deletes what has the tags, with all providers: snapshots, and volumes that were made of them for a while.
func Remove(ctx context.Context, providers []plugins.VolumeProvider, tags map[string]string) error {
	return removeIf(ctx, providers, tags, func(*made) bool { return true })
}

// Look asks the providers for what Remove would remove, and removes nothing: the error says what it would meet.
func Look(ctx context.Context, providers []plugins.VolumeProvider, tags map[string]string) error {
	return removeIf(ctx, providers, tags, func(*made) bool { return false })
}

func removeIf(ctx context.Context, providers []plugins.VolumeProvider, tags map[string]string, doomed func(*made) bool) error {
	var errs []error
	for _, p := range providers {
		s, ok := p.(plugins.VolumeSnapshotter)
		if !ok {
			continue
		}
		if _, ok := p.(plugins.VolumeReleaser); ok { // those of others are no copies' sources
			volumes, err := s.FindVolumes(ctx, tags)
			errs = append(errs, err)
			for i := range volumes {
				if v := &volumes[i]; doomed(&made{id: v.Handle, volume: true, at: v.Created, tags: v.Tags}) {
					errs = append(errs, s.DeleteVolume(ctx, v.Handle))
				}
			}
		}
		have, err := s.FindSnapshots(ctx, tags)
		errs = append(errs, err)
		for i := range have {
			if h := &have[i]; doomed(&made{id: h.ID, at: h.Started, tags: h.Tags}) {
				errs = append(errs, s.DeleteSnapshot(ctx, h.ID))
			}
		}
	}
	return errors.Join(errs...)
}
