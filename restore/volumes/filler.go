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

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// ErrNoProvider means that nobody knows the volumes of a provider that a backup names, or can make one of what the backup has.
var ErrNoProvider = errors.New("no provider can make this volume")

// Tags of the volumes that a restore makes.
const (
	TagRestore = "kedge.dev/restore"     // the restore's name
	TagUID     = "kedge.dev/restore-uid" // its uid
	TagClaim   = "kedge.dev/claim"       // "namespace/name" in the target
)

// Filler makes volumes.
type Filler struct {
	Providers []plugins.VolumeProvider
	// Zones are those in which the target has machines; empty where that is not known.
	Zones []string
	// MapZones says in which zone volumes of a zone are made, as the user wants it.
	MapZones map[string]string
}

// Request is one volume to be made.
type Request struct {
	// Token makes the request repeatable: the same token never makes two volumes.
	Token string
	Row   archive.Volume
	Tags  map[string]string
}

// Fill makes a volume with the data that the row tells of, and makes pv, in place, the PersistentVolume of it. With an error pv is as it
// was, and nothing was made that the same token does not find again.
func (f *Filler) Fill(ctx context.Context, req Request, pv *corev1.PersistentVolume) (plugins.Volume, error) {
	provider, err := f.provider(&req.Row)
	if err != nil {
		return plugins.Volume{}, err
	}
	source := &req.Row.Source
	ask := plugins.VolumeRequest{
		Token: req.Token, SnapshotID: req.Row.SnapshotID, SizeBytes: source.SizeBytes, Zone: f.zone(source.Zone),
		Attributes: source.Attributes, Tags: tags(source.Tags, pv.Name, req),
	}
	made, err := provider.CreateVolume(ctx, ask)
	if err != nil {
		return plugins.Volume{}, fmt.Errorf("make a volume of snapshot %s for claim %s/%s: %w", req.Row.SnapshotID, req.Row.Namespace, req.Row.Claim, err)
	}
	filled := pv.DeepCopy()
	if err := provider.Rebind(filled, made); err != nil {
		return plugins.Volume{}, fmt.Errorf("make PersistentVolume %s one of %s: %w", pv.Name, made.Handle, err)
	}
	*pv = *filled
	return made, nil
}

func (f *Filler) provider(row *archive.Volume) (plugins.VolumeSnapshotter, error) {
	i := slices.IndexFunc(f.Providers, func(p plugins.VolumeProvider) bool { return p.Name() == row.Provider })
	if i < 0 {
		return nil, fmt.Errorf("%w: its provider is %q, which is not configured here", ErrNoProvider, row.Provider)
	}
	s, ok := f.Providers[i].(plugins.VolumeSnapshotter)
	if !ok || row.SnapshotID == "" {
		return nil, fmt.Errorf("%w: %s makes volumes of snapshots only, and the backup has none of it", ErrNoProvider, row.Provider)
	}
	return s, nil
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
