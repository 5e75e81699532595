package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
)

// fillFolder sees to it that the folder of pv can be reached, which may take a new access point, and restores its files unless they are to stay.
func (f *Filler) fillFolder(ctx context.Context, req Request, pv *corev1.PersistentVolume) (plugins.Volume, error) {
	reached := pv.DeepCopy()
	if req.Folder {
		if err := f.reach(ctx, req, reached); err != nil {
			return plugins.Volume{}, fmt.Errorf("find the folder of claim %s/%s: %w", req.Row.Namespace, req.Row.Claim, err)
		}
	}
	made := plugins.Volume{SizeBytes: req.Row.Source.SizeBytes}
	var err error
	switch {
	case req.KeepFiles:
		made.Handle, err = mover.Storage(reached)
	case req.MayFill != nil:
		if err = req.MayFill(ctx, reached); err == nil {
			made, err = f.fillFiles(ctx, req, reached)
		}
	default:
		made, err = f.fillFiles(ctx, req, reached)
	}
	if err != nil {
		return plugins.Volume{}, err
	}
	*pv = *reached
	return made, nil
}

// folders is the provider that knows the folder of pv, with its handle; nil where none does.
func (f *Filler) folders(pv *corev1.PersistentVolume) (plugins.FolderProvider, string) {
	for _, p := range f.Providers {
		if folders, ok := p.(plugins.FolderProvider); ok {
			if handle, ok := p.Handle(pv); ok {
				return folders, handle
			}
		}
	}
	return nil, ""
}

// reach asks the provider of the folder of pv for the way to it.
func (f *Filler) reach(ctx context.Context, req Request, pv *corev1.PersistentVolume) error {
	note := func(format string, args ...any) {
		if req.Note != nil {
			req.Note(fmt.Sprintf(format, args...))
		}
	}
	ask := plugins.FolderRequest{Source: req.Row.Source, Tags: req.Tags}
	// The row's is what a mover calls the storage: the driver, a slash, the handle.
	_, ask.Source.Handle, _ = strings.Cut(req.Row.Source.Handle, "/")
	folders, handle := f.folders(pv)
	if folders == nil {
		for old := range f.MapFileSystems {
			if strings.Contains(ask.Source.Handle, old) {
				return fmt.Errorf("%w: %s is to go to another file system, and nobody can make the way to it: %w", ErrNoProvider, ask.Source.Handle, cmp.Or(f.Unconfigured, errors.New("no provider of such volumes is configured")))
			}
		}
		note("whether %s can be reached still is not known: nobody here can ask", ask.Source.Handle)
		return nil
	}
	ask.FileSystem = f.MapFileSystems[folders.FileSystem(ask.Source.Handle)]
	if handle != ask.Source.Handle && (ask.FileSystem == "" || folders.FileSystem(handle) != ask.FileSystem) {
		return nil // a resource modifier has the word
	}
	ask.Token = req.Tags[TagUID] + "/" + ask.Source.Handle // of the folder: volumes that share it share its access point
	way, err := folders.Ensure(ctx, ask)
	switch {
	case err == nil:
		return folders.Rebind(pv, way)
	case ask.FileSystem == "" && ctx.Err() == nil && unseen(err, &req.Row.Source):
		note("whether %s can be reached still is not known: %v", ask.Source.Handle, err)
		return nil
	}
	return err
}

// unseen says whether nobody could tell how a folder is reached, as opposed to that it is not: Kedge lacks the rights, the service does not answer, or
// the folder is one of another account or region, which the backup did not see either.
func unseen(err error, source *plugins.Volume) bool {
	if errors.Is(err, plugins.ErrVolumeGone) {
		return source.Region == ""
	}
	return !errors.Is(err, plugins.ErrVolumeQuota) && !errors.Is(err, plugins.ErrConfig)
}

// User gives one of the other volumes whose files are among those of pv, or nil.
func (f *Filler) User(ctx context.Context, pv *corev1.PersistentVolume, others []*corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	folders, handle := f.folders(pv)
	byHandle := map[string]*corev1.PersistentVolume{}
	for _, other := range others {
		if mover.Shared(other, pv) {
			return other, nil
		}
		if folders != nil {
			if h, ok := folders.Handle(other); ok {
				byHandle[h] = other
			}
		}
	}
	if len(byHandle) == 0 {
		return nil, nil
	}
	within, err := folders.Within(ctx, handle, slices.Sorted(maps.Keys(byHandle)))
	if err != nil || len(within) == 0 {
		return nil, err
	}
	return byHandle[within[0]], nil
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

// unmade says that nobody here makes volumes of the row's driver, so that its files can only go into the storage that the PersistentVolume names.
func (f *Filler) unmade(row *archive.Volume) bool {
	_, err := f.provider(row)
	return row.CopyKind == files.Kind && err != nil
}

// fillNew restores the files of a copy into a new volume, and makes pv, in place, the PersistentVolume of it.
func (f *Filler) fillNew(ctx context.Context, provider plugins.VolumeSnapshotter, ask plugins.VolumeRequest, req Request, pv *corev1.PersistentVolume) (plugins.Volume, error) {
	ask.SnapshotID, ask.Token = "", ask.Token+"/files"
	made, err := provider.CreateVolume(ctx, ask)
	if err != nil {
		return plugins.Volume{}, fmt.Errorf("make a volume for the files of claim %s/%s: %w", req.Row.Namespace, req.Row.Claim, err)
	}
	filled := pv.DeepCopy()
	if err := provider.Rebind(filled, made); err != nil {
		return plugins.Volume{}, fmt.Errorf("make PersistentVolume %s one of %s: %w", pv.Name, made.Handle, err)
	}
	if _, err := f.fillFiles(ctx, req, filled); err != nil {
		return plugins.Volume{}, err
	}
	*pv = *filled
	return made, nil
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
