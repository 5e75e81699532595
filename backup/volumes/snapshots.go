package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

// snapshot asks for all snapshots, those of one machine together.
func (t *Taker) snapshot(ctx context.Context, req Request, todo []*taking) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, group := range groups(todo) {
		g.Go(func() error {
			err := t.snapshotGroup(gctx, req, group)
			if err != nil && len(group) > 1 && gctx.Err() == nil {
				// One volume that cannot be taken must not cost the others their snapshot: each for itself.
				for _, v := range group {
					if err := t.snapshotGroup(gctx, req, []*taking{v}); err != nil {
						v.fail(ReasonSnapshotFailed, err)
					}
				}
			} else if err != nil {
				group[0].fail(ReasonSnapshotFailed, err)
			}
			return context.Cause(gctx)
		})
	}
	return g.Wait()
}

// groups puts together what is frozen together: the volumes of one machine. Several claims of one volume share its snapshot.
func groups(todo []*taking) [][]*taking {
	byKey := map[string][]*taking{}
	for _, v := range todo {
		if v.err == nil {
			key := v.provider.Name() + "/" + cmp.Or(v.source.AttachedTo, v.handle)
			byKey[key] = append(byKey[key], v)
		}
	}
	out := make([][]*taking, 0, len(byKey))
	for _, group := range byKey {
		slices.SortFunc(group, func(a, b *taking) int {
			return cmp.Or(cmp.Compare(a.handle, b.handle), cmp.Compare(a.claim.String(), b.claim.String()))
		})
		out = append(out, group)
	}
	slices.SortFunc(out, func(a, b []*taking) int { return cmp.Compare(a[0].handle, b[0].handle) })
	return out
}

func (t *Taker) snapshotGroup(ctx context.Context, req Request, group []*taking) error {
	provider := group[0].provider.(plugins.VolumeSnapshotter) // provide has looked
	ask := plugins.SnapshotRequest{
		Token: fmt.Sprintf("%s/%s/%s/%d", req.UID, req.Attempt, group[0].handle, len(group)),
		Tags: map[string]string{
			TagLocation: req.LocationID, TagBackup: req.Name, TagUID: req.UID, TagAttempt: req.Attempt, TagCluster: req.ClusterUID,
		},
		ByHandle: map[string]map[string]string{},
	}
	for _, v := range group {
		if ask.ByHandle[v.handle] == nil {
			ask.Handles = append(ask.Handles, v.handle)
			ask.ByHandle[v.handle] = map[string]string{TagClaim: v.claim.String(), TagRole: RoleBase}
			if v.storage != "" {
				ask.ByHandle[v.handle][TagRole] = RoleTemporary
			}
		}
		if v.method.Snapshots() { // of one claim of the volume at least: the backup keeps the snapshot
			delete(ask.ByHandle[v.handle], TagRole)
		}
	}
	at := t.Now()
	made, err := provider.Snapshot(ctx, ask)
	if err != nil {
		return err
	}
	byHandle := map[string]plugins.Snapshot{}
	for _, s := range made {
		byHandle[s.Handle] = s
	}
	for _, v := range group {
		s, ok := byHandle[v.handle]
		if !ok {
			return fmt.Errorf("take a snapshot of %s: %s gave none", v.handle, provider.Name())
		}
		v.snapshot, v.taken = s, at
	}
	return nil
}

// The pauses between two looks at snapshots that are not completed yet.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Second
	// maxBlindLooks is how often in a row a provider may fail to answer, beyond the retries of its own, before its snapshots are given up.
	maxBlindLooks = 20
	// maxMissed is how many looks in a row may not see a snapshot: a service may show a new one late ("Eventual consistency" of the EC2 API
	// Reference).
	maxMissed = 8
)

// wait follows the snapshots until each is completed or has failed.
func (t *Taker) wait(ctx context.Context, req Request, todo []*taking) error {
	elsewhere := len(req.Policies.copies) > 0
	blind := map[plugins.VolumeSnapshotter]int{}
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		open := map[plugins.VolumeSnapshotter][]string{}
		for _, v := range todo {
			if v.err != nil || v.snapshot.State == plugins.SnapshotCompleted {
				if v.err != nil || !v.method.Copies() && !elsewhere {
					t.count.done(v)
				}
				continue
			}
			p := v.provider.(plugins.VolumeSnapshotter) // provide has looked
			open[p] = append(open[p], v.snapshot.ID)
		}
		if len(open) == 0 {
			return nil
		}
		if err := t.Sleep(ctx, pause); err != nil {
			return err
		}
		for p, ids := range open {
			slices.Sort(ids)
			states, err := p.DescribeSnapshots(ctx, slices.Compact(ids))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if blind[p]++; err == nil {
				blind[p] = 0
			}
			again := err != nil && blind[p] < maxBlindLooks && !errors.Is(err, plugins.ErrAccess) && !errors.Is(err, plugins.ErrConfig)
			update(p, states, err, again, todo)
		}
	}
}

// update notes the state of a provider's snapshots, or why it cannot be had of those that are missing; again says that these are asked for again.
func update(p plugins.VolumeSnapshotter, states map[string]plugins.Snapshot, err error, again bool, todo []*taking) {
	for _, v := range todo {
		if v.err != nil || v.provider != plugins.VolumeProvider(p) || v.snapshot.State == plugins.SnapshotCompleted {
			continue
		}
		s, ok := states[v.snapshot.ID]
		switch {
		case !ok && again:
		case !ok && err != nil:
			v.fail(ReasonSnapshotFailed, err)
		case !ok && v.missed < maxMissed:
			v.missed++
		case !ok:
			v.fail(ReasonSnapshotFailed, fmt.Errorf("snapshot %s of %s is gone: somebody deleted it", v.snapshot.ID, v.handle))
		case s.State == plugins.SnapshotFailed:
			v.fail(ReasonSnapshotFailed, fmt.Errorf("snapshot %s of %s failed: %s", s.ID, v.handle, s.Message))
		default:
			v.missed = 0
			v.snapshot.State, v.snapshot.Progress = s.State, s.Progress
		}
	}
}
