package volumes

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// moversAtOnce is how many Jobs of one backup copy files at once; Kubernetes finds machines for them.
const moversAtOnce = 4

// split tells the volumes that a provider knows from those whose files a mover copies.
func split(todo []*taking) (known, others []*taking) {
	for _, v := range todo {
		if v.storage == "" {
			known = append(known, v)
		} else {
			others = append(others, v)
		}
	}
	return known, others
}

// provideFiles finds whether a mover can copy the volume's files. Where it cannot, why is what a message about the driver adds.
func (t *Taker) provideFiles(v *taking) (why string) {
	if !v.method.Copies() {
		return ", of which only copies can be made"
	}
	if t.Mover == nil || t.Repository == nil {
		return ", and it is not set up how its files could be copied by a Job (docs/mover.md)"
	}
	storage, err := mover.Storage(v.pv)
	if err != nil {
		return ": " + err.Error()
	}
	size := v.pv.Spec.Capacity[corev1.ResourceStorage]
	v.storage, v.source = storage, plugins.Volume{Handle: storage, SizeBytes: size.Value()}
	return ""
}

// copyFiles has movers copy the files of volumes, each storage once. known is how many volumes were taken otherwise.
func (t *Taker) copyFiles(ctx context.Context, req Request, todo []*taking, known int, r *Result) error {
	if len(todo) == 0 {
		return nil
	}
	owner := mover.Owner{Label: mover.LabelBackup, UID: req.UID}
	// What an earlier attempt of this backup has left would be in the way.
	if err := t.Mover.Sweep(ctx, owner); err != nil {
		return err
	}
	byStorage := map[string][]*taking{}
	var order []string
	for _, v := range todo {
		if byStorage[v.storage] == nil {
			order = append(order, v.storage)
		}
		byStorage[v.storage] = append(byStorage[v.storage], v)
	}
	var done atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(moversAtOnce)
	results := make([]mover.Result, len(order))
	for i, storage := range order {
		g.Go(func() error {
			same := byStorage[storage]
			var err error
			results[i], err = t.Mover.Copy(gctx, req.ClusterUID, mover.Task{Owner: owner, Storage: storage, Claim: same[0].claim.String(), PV: same[0].pv})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, v := range same {
				if v.copyID, v.taken = results[i].Copy, results[i].Started; err != nil {
					v.fail(ReasonCopyFailed, err)
				}
			}
			if n := done.Add(int64(len(same))); t.Progress != nil {
				t.Progress(known+int(n), known+len(todo))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := t.Mover.Sweep(ctx, owner); err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	for i, storage := range order {
		if n := results[i].Lacks(); n > 0 {
			for _, v := range byStorage[storage] {
				r.fail(v.claim, ReasonFilesMissing, "%s", lacking(&results[i], n))
			}
		}
	}
	return t.confirm(ctx, req, todo)
}

// lacking says which files a copy is without.
func lacking(result *mover.Result, n int64) string {
	text := fmt.Sprintf("the copy lacks files or folders that could not be read: %d", n)
	for _, m := range result.Remarks {
		if m.Kind == files.Unreadable {
			return fmt.Sprintf("%s; the first: %q: %s", text, m.Path, m.Detail)
		}
	}
	return text
}

// confirm looks for the copies where the backup says that they are: a mover whose Secret names another bucket would copy to nowhere.
func (t *Taker) confirm(ctx context.Context, req Request, todo []*taking) (err error) {
	repo, err := t.Repository(ctx)
	if err != nil {
		return fmt.Errorf("open the repository of volume copies: %w", err)
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	for _, v := range todo {
		if v.err != nil {
			continue
		}
		c, err := repo.Copy(ctx, v.copyID)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, repository.ErrNoCopy):
			v.fail(ReasonCopyFailed, fmt.Errorf("the mover made the copy %q, which is not in this location: see that its Secret %s/%s names the same bucket", v.copyID, t.Mover.Namespace, t.Mover.Secret))
		case err != nil:
			return err
		case c.Kind != files.Kind || c.Volume != repository.Volume{Cluster: req.ClusterUID, Provider: mover.Provider, Handle: v.storage}:
			v.fail(ReasonCopyFailed, fmt.Errorf("copy %s is of %s, not of %s", v.copyID, c.Volume, v.storage))
		}
	}
	return nil
}
