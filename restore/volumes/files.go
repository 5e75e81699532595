package volumes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/mover"
)

// fillFolder sees to it that the folder of pv can be reached, which may take a new access point, and restores its files unless they are to stay.
func (f *Filler) fillFolder(ctx context.Context, req Request, pv *corev1.PersistentVolume) (plugins.Volume, error) {
	reached := pv.DeepCopy()
	if err := f.reach(ctx, req, reached); err != nil {
		return plugins.Volume{}, fmt.Errorf("find the folder of claim %s/%s: %w", req.Row.Namespace, req.Row.Claim, err)
	}
	made := plugins.Volume{SizeBytes: req.Row.Source.SizeBytes}
	var err error
	if req.KeepFiles {
		made.Handle, err = mover.Storage(reached)
	} else {
		made, err = f.fillFiles(ctx, req, reached)
	}
	if err != nil {
		return plugins.Volume{}, err
	}
	*pv = *reached
	return made, nil
}

// reach asks the provider that knows the folder of pv, if one does, for the way to it.
func (f *Filler) reach(ctx context.Context, req Request, pv *corev1.PersistentVolume) error {
	for _, p := range f.Providers {
		folders, ok := p.(plugins.FolderProvider)
		if !ok {
			continue
		}
		handle, ok := p.Handle(pv)
		if !ok {
			continue
		}
		ask := plugins.FolderRequest{Source: req.Row.Source, Tags: req.Tags}
		// The row's is what a mover calls the storage: the driver, a slash, the handle.
		_, ask.Source.Handle, _ = strings.Cut(req.Row.Source.Handle, "/")
		ask.FileSystem = f.MapFileSystems[folders.FileSystem(ask.Source.Handle)]
		if handle != ask.Source.Handle && (ask.FileSystem == "" || folders.FileSystem(handle) != ask.FileSystem) {
			return nil // a resource modifier has the word
		}
		ask.Token = req.Tags[TagUID] + "/" + ask.Source.Handle // of the folder: volumes that share it share its access point
		way, err := folders.Ensure(ctx, ask)
		if unseen(err) && ask.FileSystem == "" && ctx.Err() == nil {
			if req.Note != nil {
				req.Note(fmt.Sprintf("whether %s can be reached still is not known: %v", ask.Source.Handle, err))
			}
			return nil
		}
		if err != nil {
			return err
		}
		return p.Rebind(pv, way)
	}
	return nil
}

// unseen says whether nobody could tell how a folder is reached, as opposed to that it is not. Kedge did without that right before.
func unseen(err error) bool {
	if err == nil {
		return false
	}
	for _, known := range []error{plugins.ErrVolumeGone, plugins.ErrVolumeQuota, plugins.ErrConfig} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

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
