package volumes

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/files"
)

// snapshot is what the new volume is made of: the backup's snapshot, its copy in this region and account, or one that is made of the copy in the
// location. from is what messages call it. There is no id where the copy is of files.
func (f *Filler) snapshot(ctx context.Context, provider plugins.VolumeSnapshotter, req Request, attributes map[string]string) (id, from string, err error) {
	row := &req.Row
	id, err = usable(ctx, provider, row)
	switch {
	case id == row.SnapshotID && id != "":
		return id, "snapshot " + id, nil
	case id != "":
		i := slices.IndexFunc(row.SnapshotCopies, func(c archive.SnapshotCopy) bool { return c.ID == id })
		return id, "the copied snapshot " + row.SnapshotCopies[i].String(), nil
	case row.CopyID == "" && err != nil || ctx.Err() != nil:
		return "", "", cmp.Or(err, context.Cause(ctx))
	case row.CopyID == "":
		return "", "", missing(row)
	case row.CopyKind == files.Kind:
		return "", "copy " + row.CopyID, nil // an empty volume, into which the files go
	}
	blocks, ok := provider.(plugins.BlockSnapshots)
	if !ok || f.Repository == nil || row.CopyKind != block.Kind {
		return "", "", fmt.Errorf("%w: the backup has a copy of the volume of kind %q, of which %s cannot make one here", ErrNoProvider, row.CopyKind, row.Provider)
	}
	id, err = f.fromCopy(ctx, blocks, req, attributes)
	return id, "copy " + row.CopyID, err
}

// usable gives the snapshot of the row, or else a copy of it, that this provider has: where it works, and as whom, decides. Empty is none.
func usable(ctx context.Context, provider plugins.VolumeSnapshotter, row *archive.Volume) (string, error) {
	if row.SnapshotID == "" {
		return "", nil
	}
	ids := []string{row.SnapshotID}
	for _, c := range row.SnapshotCopies {
		ids = append(ids, c.ID)
	}
	have, err := provider.DescribeSnapshots(ctx, ids)
	for _, id := range ids {
		if have[id].State == plugins.SnapshotCompleted {
			return id, nil
		}
	}
	return "", err
}

// missing says what snapshots the backup has of a volume, none of which is here.
func missing(row *archive.Volume) error {
	if len(row.SnapshotCopies) == 0 {
		return fmt.Errorf("%w: snapshot %s is not in this account and region, or not usable, and the backup has no copy of the volume", plugins.ErrVolumeGone, row.SnapshotID)
	}
	have := []string{"snapshot " + row.SnapshotID}
	if row.Source.Region != "" {
		have[0] += " in " + row.Source.Region
	}
	for _, c := range row.SnapshotCopies {
		have = append(have, "its copy "+c.String())
	}
	return fmt.Errorf("%w: the backup has %s: none of these is in this account and region, or usable (restore where one of them is, with AWS_REGION and credentials of that place)",
		plugins.ErrVolumeGone, strings.Join(have, ", "))
}

// mapKey replaces the key of a new volume by the one that the user wants.
func (f *Filler) mapKey(ask *plugins.VolumeRequest) {
	key := ask.Attributes[plugins.AttributeKey]
	if key == "" || f.MapKeys == nil {
		return
	}
	if to, ok := f.MapKeys(key); ok {
		ask.Attributes = maps.Clone(ask.Attributes)
		ask.Attributes[plugins.AttributeKey] = to
	}
}

// otherKey gives a volume that is made of a copied snapshot the copy's key, unless the user has named one: the old one is of another place. Where the
// copy's key is not known nothing is asked for: an encrypted snapshot's own key is then the volume's, while encryption without a key would be by the
// account's default key.
func (f *Filler) otherKey(ask *plugins.VolumeRequest, row archive.Volume) {
	i := slices.IndexFunc(row.SnapshotCopies, func(c archive.SnapshotCopy) bool { return c.ID == ask.SnapshotID })
	if i < 0 || ask.Attributes[plugins.AttributeKey] != row.Source.Attributes[plugins.AttributeKey] {
		return
	}
	attributes := maps.Clone(ask.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	delete(attributes, plugins.AttributeKey)
	delete(attributes, plugins.AttributeEncrypted)
	if key := row.SnapshotCopies[i].KMSKeyID; key != "" {
		attributes[plugins.AttributeKey], attributes[plugins.AttributeEncrypted] = key, "true"
	}
	ask.Attributes = attributes
}
