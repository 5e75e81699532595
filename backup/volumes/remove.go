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

// soon bounds what removeSoon may take, however many objects are stuck.
const soon = 5 * time.Minute

// byCluster tells providers whose snapshots are objects of a cluster from others. There any driver whose controller is down, and anybody with a finalizer
// in a namespace, can hold up a removal, which must not cost the backup: what is left has its tags, no row names it, and the sweep of orphans finds it.
func byCluster(providers []plugins.VolumeProvider) (others, clusters []plugins.VolumeProvider) {
	for _, p := range providers {
		if _, ok := p.(plugins.VolumeReleaser); ok {
			clusters = append(clusters, p)
		} else {
			others = append(others, p)
		}
	}
	return others, clusters
}

// removeSoon is removeIf, for as long as a backup can spare.
func removeSoon(ctx context.Context, providers []plugins.VolumeProvider, tags map[string]string, doomed func(*made) bool) error {
	if len(providers) == 0 {
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return removeIf(ctx, providers, tags, doomed)
}

type remover func(ctx context.Context, providers []plugins.VolumeProvider, tags map[string]string, doomed func(*made) bool) error

// removeEarlier removes what attempts before this one left.
func removeEarlier(ctx context.Context, providers []plugins.VolumeProvider, req Request, remove remover) error {
	return remove(ctx, providers, map[string]string{TagUID: req.UID, TagLocation: req.LocationID}, func(m *made) bool {
		return m.tags[TagAttempt] != req.Attempt && m.at.Before(req.Began)
	})
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
