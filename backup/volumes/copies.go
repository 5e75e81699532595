package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
)

// copiesAtOnce is how many volumes are copied at once; each copy is parallel in itself.
const copiesAtOnce = 2

// copies brings the volumes that are to be copied into the repository, from their snapshots. Claims of one volume share its copy.
func (t *Taker) copies(ctx context.Context, req Request, todo []*taking) (err error) {
	byHandle := map[string][]*taking{}
	var order []string
	for _, v := range todo {
		if v.err != nil || !v.method.Copies() || v.storage != "" {
			continue
		}
		key := v.provider.Name() + "/" + v.handle
		if byHandle[key] == nil {
			order = append(order, key)
		}
		byHandle[key] = append(byHandle[key], v)
	}
	if len(order) == 0 {
		return nil
	}
	repo, err := t.Repository(ctx)
	if err != nil {
		return fmt.Errorf("open the repository of volume copies: %w", err)
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesAtOnce)
	for _, key := range order {
		g.Go(func() error {
			same := byHandle[key]
			id, err := t.copyVolume(gctx, repo, req, same[0])
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, v := range same {
				if v.copyID = id; err != nil {
					v.fail(ReasonCopyFailed, err)
				}
			}
			t.count.done(slices.DeleteFunc(slices.Clone(same), func(v *taking) bool { return v.copiesElsewhere })...)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return lookAgain(ctx, repo, todo)
}

// lookAgain sees to it that a backup names no copy that is gone: those that were made first may be days old, and no sealed backup names them yet.
func lookAgain(ctx context.Context, repo *repository.Repository, todo []*taking) error {
	for _, v := range todo {
		if v.err != nil || v.copyID == "" || v.storage != "" {
			continue
		}
		switch _, err := repo.Copy(ctx, v.copyID); {
		case errors.Is(err, repository.ErrNoCopy):
			v.fail(ReasonCopyFailed, fmt.Errorf("%w: maintenance took it for abandoned before the backup's other volumes were copied: copy fewer volumes in one backup", err))
		case err != nil:
			return err
		}
	}
	return nil
}

// copyVolume copies what changed since the volume's last copy, where the two snapshots can be compared; else everything.
func (t *Taker) copyVolume(ctx context.Context, repo *repository.Repository, req Request, v *taking) (string, error) {
	provider := v.provider.(plugins.BlockSnapshots) // provide has looked
	volume := repository.Volume{Cluster: req.ClusterUID, Provider: provider.Name(), Handle: v.handle}
	earlier, err := repo.Copies(ctx, repository.Filter{Volume: volume, Kind: block.Kind})
	if err != nil {
		return "", err
	}
	ask := block.Request{Volume: volume, Snapshot: v.snapshot.ID}
	if n := len(earlier); n > 0 && earlier[n-1].Snapshot != "" {
		ask.Base = &earlier[n-1]
	}
	result, err := t.copyFrom(ctx, repo, provider, ask)
	if ask.Base != nil && (errors.Is(err, plugins.ErrNoBase) || errors.Is(err, block.ErrBase)) {
		ask.Base = nil
		result, err = t.copyFrom(ctx, repo, provider, ask)
	}
	if err != nil {
		return "", err
	}
	// A base that stays is superseded, which the sweep of orphans sees; the copy is good all the same.
	_ = dropBases(ctx, provider, req.LocationID, v)
	return result.Copy.ID, nil
}

func (t *Taker) copyFrom(ctx context.Context, repo *repository.Repository, provider plugins.BlockSnapshots, ask block.Request) (block.Result, error) {
	base := ""
	if ask.Base != nil {
		base = ask.Base.Snapshot
	}
	source, err := provider.OpenBlocks(ctx, ask.Snapshot, base)
	if err != nil {
		return block.Result{}, err
	}
	volume := ask.Volume.Provider + "/" + ask.Volume.Handle
	return block.Copy(ctx, repo, source, ask, block.Options{Progress: func(p block.Progress) { t.count.copying(volume, p) }})
}

// dropBases removes the snapshots with which this volume's copies were compared until now: the new one takes their place.
func dropBases(ctx context.Context, provider plugins.BlockSnapshots, location string, v *taking) error {
	have, err := provider.FindSnapshots(ctx, map[string]string{TagLocation: location, TagRole: RoleBase})
	if err != nil {
		return err
	}
	for _, s := range slices.DeleteFunc(have, func(s plugins.Snapshot) bool {
		return s.Handle != v.handle || s.ID == v.snapshot.ID || !s.Started.Before(v.snapshot.Started)
	}) {
		if err := provider.DeleteSnapshot(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}
