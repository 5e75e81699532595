// Package volumes gives the claims of a restore volumes with the data of the backup.
package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
	"kedge.dev/kedge/volume/repository"
)

// ErrNoProvider means that nobody knows the volumes of a provider that a backup names, or can make one of what the backup has.
var ErrNoProvider = errors.New("no provider can make this volume")

// Tags of the volumes that a restore makes.
const (
	TagRestore = "kedge.dev/restore"     // the restore's name
	TagUID     = "kedge.dev/restore-uid" // its uid
	TagClaim   = "kedge.dev/claim"       // "namespace/name" in the target
	TagCluster = "kedge.dev/cluster-uid" // of the target
	// TagRole is RoleTemporary on a snapshot that is needed only until volumes were made of it.
	TagRole       = "kedge.dev/role"
	RoleTemporary = "temporary"
)

// Filler makes volumes.
type Filler struct {
	Providers []plugins.VolumeProvider
	// Unconfigured is why there are fewer providers than there could be; nil where there are all.
	Unconfigured error
	// Repository opens where copies are; nil means that there are none.
	Repository func(context.Context) (*repository.Repository, error)
	// Mover restores copies of files; nil means that nobody can.
	Mover *mover.Mover
	// Zones are those in which the target has machines; empty where that is not known.
	Zones []string
	// MapFileSystems says on which file system folders of another one go, as the user wants it.
	MapFileSystems map[string]string
	// MapKeys gives the key that takes the place of one that a volume was encrypted with, as the user wants it. It may be nil.
	MapKeys func(key string) (to string, ok bool)
	// MapZones says in which zone volumes of a zone are made, as the user wants it.
	MapZones map[string]string

	mu     sync.Mutex
	opened *repository.Repository // by the first volume that needs it; Close closes it
	moved  bool                   // movers were asked for
}

// Request is one volume to be made.
type Request struct {
	// Token makes the request repeatable: the same token never makes two volumes.
	Token string
	Row   archive.Volume
	Tags  map[string]string
	// KeepFiles leaves the files of a folder as they are: only the way to it is seen to.
	KeepFiles bool
	// Folder says that the row is of a file system that outlives clusters, which a plugins.FolderProvider knows.
	Folder bool
	// MayFill is asked before files are written into the storage of pv. It may be nil.
	MayFill func(ctx context.Context, pv *corev1.PersistentVolume) error
	// Note is told what the user should know of a volume that is restored all the same. It may be nil.
	Note func(text string)
}

// Fill makes a volume with the data that the row tells of, and makes pv, in place, the PersistentVolume of it. With an error pv is as it
// was, and nothing was made that the same token does not find again. It prefers the provider's snapshot, which is quicker, to the copy; from says
// which it was.
func (f *Filler) Fill(ctx context.Context, req Request, pv *corev1.PersistentVolume) (made plugins.Volume, from string, err error) {
	if req.Row.InPlace() || f.unmade(&req.Row) {
		made, err = f.fillFolder(ctx, req, pv)
		return made, "copy " + req.Row.CopyID, err
	}
	provider, err := f.provider(&req.Row)
	if err != nil {
		return plugins.Volume{}, "", err
	}
	source := &req.Row.Source
	ask := plugins.VolumeRequest{
		Token: req.Token, SizeBytes: source.SizeBytes, Zone: f.zone(source.Zone), Attributes: source.Attributes, Tags: tags(source.Tags, pv.Name, req),
		For: pv,
	}
	ask.Namespace, _, _ = strings.Cut(req.Tags[TagClaim], "/")
	f.mapKey(&ask)
	if ask.SnapshotID, from, err = f.snapshot(ctx, provider, req, ask.Attributes); err != nil {
		return plugins.Volume{}, "", fmt.Errorf("restore the data of claim %s/%s: %w", req.Row.Namespace, req.Row.Claim, err)
	}
	if ask.SnapshotID == "" {
		made, err = f.fillNew(ctx, provider, ask, req, pv)
		return made, "copy " + req.Row.CopyID, err
	}
	if ask.SnapshotID != req.Row.SnapshotID {
		f.otherKey(&ask, req.Row)
	}
	made, err = provider.CreateVolume(ctx, ask)
	if errors.Is(err, plugins.ErrVolumeGone) && req.Row.CopyKind == files.Kind {
		made, err = f.fillNew(ctx, provider, ask, req, pv)
		return made, "copy " + req.Row.CopyID, err
	}
	if err != nil {
		return plugins.Volume{}, "", fmt.Errorf("make a volume of snapshot %s for claim %s/%s: %w", ask.SnapshotID, req.Row.Namespace, req.Row.Claim, err)
	}
	filled := pv.DeepCopy()
	if err := provider.Rebind(filled, made); err != nil {
		return plugins.Volume{}, "", fmt.Errorf("make PersistentVolume %s one of %s: %w", pv.Name, made.Handle, err)
	}
	*pv = *filled
	return made, from, nil
}

func (f *Filler) provider(row *archive.Volume) (plugins.VolumeSnapshotter, error) {
	i := slices.IndexFunc(f.Providers, func(p plugins.VolumeProvider) bool { return p.Name() == row.Provider })
	if i < 0 && f.Unconfigured != nil {
		return nil, fmt.Errorf("%w: its provider is %q: %w", ErrNoProvider, row.Provider, f.Unconfigured)
	}
	if i < 0 {
		return nil, fmt.Errorf("%w: its provider is %q, which is not configured here", ErrNoProvider, row.Provider)
	}
	s, ok := f.Providers[i].(plugins.VolumeSnapshotter)
	if !ok {
		return nil, fmt.Errorf("%w: %s makes no volumes of snapshots", ErrNoProvider, row.Provider)
	}
	return s, nil
}

// fromCopy makes a snapshot of the copy. It stays until the restore is done, for the token to find.
func (f *Filler) fromCopy(ctx context.Context, provider plugins.BlockSnapshots, req Request, attributes map[string]string) (string, error) {
	repo, err := f.repository(ctx)
	if err != nil {
		return "", fmt.Errorf("open the repository of volume copies: %w", err)
	}
	c, err := repo.Copy(ctx, req.Row.CopyID)
	if err != nil {
		return "", err
	}
	ask := plugins.VolumeRequest{Token: req.Token + "/copy", SizeBytes: c.SizeBytes, Attributes: attributes, Tags: maps.Clone(req.Tags)}
	ask.Tags[TagRole] = RoleTemporary
	target, err := provider.StartBlocks(ctx, ask)
	if err != nil {
		return "", err
	}
	made, err := block.RestoreSnapshot(ctx, repo, c, target, block.Options{})
	return made.ID, err
}

func (f *Filler) repository(ctx context.Context) (*repository.Repository, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened != nil {
		return f.opened, nil
	}
	repo, err := f.Repository(ctx)
	f.opened = repo
	return repo, err
}

// Close lets the repository go, if it was opened.
func (f *Filler) Close(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened == nil {
		return nil
	}
	err := f.opened.Close(ctx)
	f.opened = nil
	return err
}

// Finish removes the snapshots that were needed only while the restore made its volumes.
func (f *Filler) Finish(ctx context.Context, restoreUID string) error {
	var errs []error
	if f.moved {
		errs = append(errs, f.Mover.Sweep(ctx, mover.Owner{Label: mover.LabelRestore, UID: restoreUID}))
	}
	for _, p := range f.Providers {
		if r, ok := p.(plugins.VolumeReleaser); ok {
			errs = append(errs, r.Release(ctx, map[string]string{TagUID: restoreUID}))
		}
		s, ok := p.(plugins.BlockSnapshots)
		if !ok {
			continue
		}
		have, err := s.FindSnapshots(ctx, map[string]string{TagUID: restoreUID, TagRole: RoleTemporary})
		errs = append(errs, err)
		for i := range have {
			errs = append(errs, s.DeleteSnapshot(ctx, have[i].ID))
		}
	}
	return errors.Join(errs...)
}

// zone chooses where a volume is made: where the user says, where it was if machines are there, else in the first zone that has some.
func (f *Filler) zone(was string) string {
	if mapped, ok := f.MapZones[was]; ok {
		return mapped
	}
	if len(f.Zones) == 0 || slices.Contains(f.Zones, was) {
		return was
	}
	return cmp.Or(slices.Sorted(slices.Values(f.Zones))[0], was)
}

// tags are the old volume's, but for those that a service or another cluster owns, with ours.
//
// The EBS CSI driver's IAM policy lets it touch volumes that have the tag ebs.csi.aws.com/cluster or the name of a volume of its own
// (aws-ebs-csi-driver, "Amazon EBS CSI driver IAM policy"); what names the old cluster is left to whoever maps it.
func tags(old map[string]string, pv string, req Request) map[string]string {
	out := map[string]string{}
	for k, v := range old {
		if !strings.HasPrefix(k, "aws:") && !strings.HasPrefix(k, "kedge.dev/") && !strings.HasPrefix(k, "kubernetes.io/cluster/") {
			out[k] = v
		}
	}
	if _, ok := out["CSIVolumeName"]; ok {
		out["CSIVolumeName"] = pv
	}
	if _, ok := out["kubernetes.io/created-for/pv/name"]; ok {
		out["kubernetes.io/created-for/pv/name"] = pv
	}
	maps.Copy(out, req.Tags)
	return out
}
