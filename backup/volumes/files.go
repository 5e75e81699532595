package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// moversAtOnce is how many Jobs of one backup copy files at once; Kubernetes finds machines for them.
const moversAtOnce = 4

// split tells the volumes of which a provider takes snapshots from those whose files a mover copies as they are used.
func split(todo []*taking) (known, others []*taking) {
	for _, v := range todo {
		if v.provider != nil {
			known = append(known, v)
		} else {
			others = append(others, v)
		}
	}
	return known, others
}

// withFiles are the volumes whose files a mover copies, from a clone or as they are used.
func withFiles(todo []*taking) []*taking {
	return slices.DeleteFunc(slices.Clone(todo), func(v *taking) bool { return v.storage == "" })
}

// provideFiles finds whether a mover can copy the volume's files. Where it cannot, why is what a message about the driver adds.
func (t *Taker) provideFiles(v *taking) (why string) {
	if !v.method.Copies() {
		for _, p := range t.Providers {
			if explainer, ok := p.(plugins.VolumeExplainer); ok {
				if why := explainer.Why(v.pv); why != "" {
					return ", of which only copies can be made: " + why
				}
			}
		}
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

// describeFolders records what folders of file systems are reached by, which a restore may have to make again. A backup is good without.
func (t *Taker) describeFolders(ctx context.Context, others []*taking, r *Result) {
	for _, p := range t.Providers {
		folders, ok := p.(plugins.FolderProvider)
		if !ok {
			continue
		}
		of := map[string][]*taking{}
		for _, v := range others {
			if handle, ok := folders.Handle(v.pv); ok {
				of[handle] = append(of[handle], v)
			}
		}
		if len(of) == 0 {
			continue
		}
		described, err := folders.Describe(ctx, slices.Sorted(maps.Keys(of)))
		if err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("what the volumes of %s are reached by is not recorded, so that a restore cannot make it again where it is gone: %v", folders.Name(), err))
			continue
		}
		for handle, same := range of {
			if _, seen := described[handle]; !seen {
				r.Notes = append(r.Notes, fmt.Sprintf("%s is not known to %s in this account and region, so that a restore cannot make what it is reached by again where it is gone", handle, folders.Name()))
			}
			for _, v := range same {
				v.source.Region, v.source.Attributes, v.source.Tags = described[handle].Region, described[handle].Attributes, described[handle].Tags
			}
		}
	}
}

// fileCopies are the copies of files that movers make for one backup, each storage once.
type fileCopies struct {
	*Taker
	req    Request
	owner  mover.Owner
	all    []*taking
	result *Result
	slots  chan struct{}

	mu sync.Mutex
	of map[string]mover.Result // by storage, those that were made
}

func (t *Taker) fileCopies(req Request, all []*taking, r *Result) *fileCopies {
	return &fileCopies{
		Taker: t, req: req, owner: mover.Owner{Label: mover.LabelBackup, UID: req.UID}, all: all, result: r,
		slots: make(chan struct{}, moversAtOnce), of: map[string]mover.Result{},
	}
}

// begin removes what an earlier attempt of this backup has left: it would be in the way.
func (f *fileCopies) begin(ctx context.Context) error {
	if len(f.all) == 0 {
		return nil
	}
	return f.Mover.Sweep(ctx, f.owner)
}

// copy copies the storages of volumes, some at once.
func (f *fileCopies) copy(ctx context.Context, todo []*taking) error {
	return f.each(ctx, todo, func(v *taking) string { return v.storage }, func(ctx context.Context, same []*taking) error {
		return f.copyOne(ctx, same, same[0].pv)
	})
}

// each calls fn for what is the same by its key, in the order of todo, some at once. What has failed is left out.
func (f *fileCopies) each(ctx context.Context, todo []*taking, key func(*taking) string, fn func(context.Context, []*taking) error) error {
	byKey := map[string][]*taking{}
	var order []string
	for _, v := range todo {
		if v.err != nil {
			continue
		}
		if byKey[key(v)] == nil {
			order = append(order, key(v))
		}
		byKey[key(v)] = append(byKey[key(v)], v)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, k := range order {
		g.Go(func() error {
			select {
			case f.slots <- struct{}{}:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			defer func() { <-f.slots }()
			return fn(gctx, byKey[k])
		})
	}
	return g.Wait()
}

// copyOne copies one storage for all claims that have it, by a PersistentVolume of it or of its clone.
func (f *fileCopies) copyOne(ctx context.Context, same []*taking, pv *corev1.PersistentVolume) error {
	result, err := f.Mover.Copy(ctx, f.req.ClusterUID, mover.Task{Owner: f.owner, Storage: same[0].storage, Claim: same[0].claim.String(), PV: pv})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, v := range same {
		v.copyID = result.Copy
		if v.provider == nil { // else of the snapshot's moment
			v.taken = result.Started
		}
		if err != nil {
			v.fail(ReasonCopyFailed, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of[same[0].storage] = result
	f.count.done(same...)
	return nil
}

// finish copies what is left, and says what the copies lack.
func (f *fileCopies) finish(ctx context.Context, left []*taking) error {
	if len(f.all) == 0 {
		return nil
	}
	if err := f.copy(ctx, left); err != nil {
		return err
	}
	if err := f.Mover.Sweep(ctx, f.owner); err != nil {
		f.result.note("%v", err)
	}
	for _, v := range f.all {
		result := f.of[v.storage]
		if n := result.Lacks(); n > 0 {
			f.result.fail(v.claim, ReasonFilesMissing, "%s", lacking(&result, n))
		}
	}
	return f.confirm(ctx, f.req, f.all)
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
