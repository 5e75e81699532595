package volumes

import (
	"context"
	"fmt"

	"kedge.dev/kedge/plugins"
)

// provideClone finds whether the files of a volume can be copied from a clone of its snapshot, which is of one moment, instead of while its pods write.
func (t *Taker) provideClone(v *taking) {
	for _, p := range t.Providers {
		_, snapshots := p.(plugins.VolumeSnapshotter)
		_, blocks := p.(plugins.BlockSnapshots)
		if !snapshots || blocks {
			continue
		}
		if handle, ok := p.Handle(v.pv); ok {
			v.provider, v.handle = p, handle
			return
		}
	}
}

// ofClones copies the files of volumes whose snapshots are completed.
func (f *fileCopies) ofClones(ctx context.Context, todo []*taking) error {
	return f.each(ctx, withFiles(todo), func(v *taking) string { return v.handle }, f.ofClone)
}

// ofClone has a volume made of a snapshot, in the movers' namespace, copies its files, and removes it.
func (f *fileCopies) ofClone(ctx context.Context, same []*taking) error {
	first := same[0]
	provider := first.provider.(plugins.VolumeSnapshotter) // provideClone has looked
	fail := func(err error) {
		for _, v := range same {
			v.fail(ReasonCopyFailed, err)
		}
		f.count.done(same...)
	}
	clone, err := provider.CreateVolume(ctx, plugins.VolumeRequest{
		Token: fmt.Sprintf("%s/%s/%s/clone", f.req.UID, f.req.Attempt, first.handle), SnapshotID: first.snapshot.ID, SizeBytes: first.source.SizeBytes,
		For: first.pv, Namespace: f.Mover.Namespace,
		Tags: map[string]string{
			TagLocation: f.req.LocationID, TagBackup: f.req.Name, TagUID: f.req.UID, TagAttempt: f.req.Attempt, TagCluster: f.req.ClusterUID,
			TagClaim: first.claim.String(), TagRole: RoleTemporary,
		},
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		fail(fmt.Errorf("make a clone of snapshot %s to copy its files from: %w", first.snapshot.ID, err))
		return nil
	}
	pv := first.pv.DeepCopy()
	if err := provider.Rebind(pv, clone); err != nil {
		fail(err)
		return nil
	}
	if err := f.copyOne(ctx, same, pv); err != nil {
		return err // the next attempt of the backup, or the end of this one, finds the clone
	}
	if err := provider.DeleteVolume(ctx, clone.Handle); err != nil && ctx.Err() == nil {
		f.result.note("the clone %s, from which files were copied, could not be removed yet: %v", clone.Handle, err)
	}
	return context.Cause(ctx)
}
