package volumes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/mover"
)

// fillFiles restores the files of a copy into the storage that pv names, which stays as it is. What the copy does not have goes. Run again, it
// goes on.
func (f *Filler) fillFiles(ctx context.Context, req Request, pv *corev1.PersistentVolume) (plugins.Volume, error) {
	claim := req.Row.Namespace + "/" + req.Row.Claim
	if f.Mover == nil {
		return plugins.Volume{}, fmt.Errorf("%w: the backup has the files of claim %s, and it is not set up how a Job could restore them (docs/mover.md)", ErrNoProvider, claim)
	}
	storage, err := mover.Storage(pv)
	if err != nil {
		return plugins.Volume{}, err
	}
	owner := mover.Owner{Label: mover.LabelRestore, UID: req.Tags[TagUID]}
	if err := f.sweepFirst(ctx, owner); err != nil {
		return plugins.Volume{}, err
	}
	result, err := f.Mover.Restore(ctx, req.Row.CopyID, mover.Task{Owner: owner, Storage: storage, Claim: req.Tags[TagClaim], PV: pv})
	if err != nil {
		return plugins.Volume{}, fmt.Errorf("restore the files of claim %s: %w", claim, err)
	}
	if n := result.Lacks(); n > 0 {
		first := ""
		if len(result.Remarks) > 0 {
			first = fmt.Sprintf("; the first remark: %q: %s", result.Remarks[0].Path, result.Remarks[0].Detail)
		}
		return plugins.Volume{}, fmt.Errorf("restore the files of claim %s: %d of them could not be restored as they were%s", claim, n, first)
	}
	return plugins.Volume{Handle: storage, SizeBytes: req.Row.Source.SizeBytes}, nil
}

// sweepFirst removes what this restore left when it was interrupted, before its first Job.
func (f *Filler) sweepFirst(ctx context.Context, owner mover.Owner) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.moved {
		return nil
	}
	if err := f.Mover.Sweep(ctx, owner); err != nil {
		return err
	}
	f.moved = true
	return nil
}
