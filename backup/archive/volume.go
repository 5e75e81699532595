package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Volume says where the data of one claim was taken: a row of the file FileVolumes.
type Volume struct {
	// Namespace, Claim and ClaimUID are the PersistentVolumeClaim's; Volume is the name of its PersistentVolume.
	Namespace string `json:"namespace"`
	Claim     string `json:"claim"`
	ClaimUID  string `json:"claimUID,omitempty"`
	Volume    string `json:"volume"`
	// Provider is the VolumeProvider's name.
	Provider string `json:"provider"`
	// Source is the volume as its service described it when it was taken.
	Source plugins.Volume `json:"source"`
	// Taken is the moment that the data is of, as the machine that asked for it saw it.
	Taken time.Time `json:"taken"`
	// SnapshotID is the provider's snapshot; empty where none is kept.
	SnapshotID string `json:"snapshotID,omitempty"`
	// SnapshotCopies are copies of it in other regions and accounts.
	SnapshotCopies []SnapshotCopy `json:"snapshotCopies,omitempty"`
	// CopyID is the copy in the location's repository; empty where there is none.
	CopyID string `json:"copyID,omitempty"`
	// CopyKind says what the copy is of: "blocks" or "files".
	CopyKind string `json:"copyKind,omitempty"`
}

// SnapshotCopy is a copy of a provider's snapshot in another region or account.
type SnapshotCopy struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	// Account is whose it is, KMSKeyID what it is encrypted with; empty where it is not.
	Account  string `json:"account,omitempty"`
	KMSKeyID string `json:"kmsKeyID,omitempty"`
}

// String is what messages call the copy: "snap-0123456789abcdef0 in eu-central-1 of account 444455556666".
func (c SnapshotCopy) String() string {
	if c.Account == "" {
		return c.ID + " in " + c.Region
	}
	return c.ID + " in " + c.Region + " of account " + c.Account
}

// compare orders rows by claim.
func (v *Volume) compare(o *Volume) int {
	return cmp.Or(cmp.Compare(v.Namespace, o.Namespace), cmp.Compare(v.Claim, o.Claim))
}

func (v *Volume) validate() error {
	switch {
	case v.Namespace == "" || v.Claim == "" || v.Volume == "" || v.Provider == "" || v.Source.Handle == "":
		return fmt.Errorf("volume of claim %s/%s: namespace, claim, volume, provider and handle are needed", v.Namespace, v.Claim)
	case v.SnapshotID == "" && v.CopyID == "":
		return fmt.Errorf("volume of claim %s/%s: it has neither snapshot nor copy", v.Namespace, v.Claim)
	case (v.CopyID == "") != (v.CopyKind == ""):
		return fmt.Errorf("volume of claim %s/%s: copy %q of kind %q", v.Namespace, v.Claim, v.CopyID, v.CopyKind)
	case len(v.SnapshotCopies) > 0 && v.SnapshotID == "" || slices.ContainsFunc(v.SnapshotCopies, func(c SnapshotCopy) bool { return c.ID == "" || c.Region == "" }):
		return fmt.Errorf("volume of claim %s/%s: copies of snapshot %q: %v", v.Namespace, v.Claim, v.SnapshotID, v.SnapshotCopies)
	case v.Source.SizeBytes < 0:
		return fmt.Errorf("volume of claim %s/%s: %d bytes", v.Namespace, v.Claim, v.Source.SizeBytes)
	}
	return nil
}

// Method is what was done for the volume.
func (v *Volume) Method() v1alpha1.VolumeMethod {
	switch {
	case v.SnapshotID != "" && v.CopyID != "":
		return v1alpha1.VolumeBoth
	case v.CopyID != "":
		return v1alpha1.VolumeCopy
	}
	return v1alpha1.VolumeSnapshot
}

// kindFiles is the CopyKind of volumes that no provider has to do with.
const kindFiles = "files"

// snapshots counts the volumes of which the provider may keep a snapshot.
func snapshots(rows []Volume) int {
	n := 0
	for i := range rows {
		if rows[i].SnapshotID != "" || rows[i].CopyKind != kindFiles {
			n++
		}
	}
	return n
}

// clusterSnapshots counts the snapshots that only the cluster's own API reaches.
func clusterSnapshots(rows []Volume) int {
	n := 0
	for i := range rows {
		if rows[i].SnapshotID != "" && rows[i].Provider == ProviderCluster {
			n++
		}
	}
	return n
}

// Providers whose names the format knows.
const (
	// ProviderFiles is of volumes whose files went into the copy, and come back into the storage that the PersistentVolume names.
	ProviderFiles = "files"
	// ProviderCluster is of volumes whose snapshots are the cluster's: VolumeSnapshots of CSI drivers.
	ProviderCluster = "csi"
)

// InPlace says that the volume's files are restored into the storage that its PersistentVolume names, and that no new storage is made.
func (v *Volume) InPlace() bool { return v.CopyKind == kindFiles && v.Provider == ProviderFiles }

func volumeBytes(rows []Volume) int64 {
	var n int64
	for i := range rows {
		n += rows[i].Source.SizeBytes
	}
	return n
}

// encodeVolumes gives the rows as JSON lines, sorted by claim.
func encodeVolumes(rows []Volume) ([]byte, error) {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b Volume) int { return a.compare(&b) })
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for i := range rows {
		if err := rows[i].validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if i > 0 && rows[i-1].compare(&rows[i]) == 0 {
			return nil, fmt.Errorf("volume of claim %s/%s: %w", rows[i].Namespace, rows[i].Claim, ErrDuplicate)
		}
		if err := enc.Encode(&rows[i]); err != nil {
			return nil, err
		}
	}
	if out.Len() > maxVolumes {
		return nil, fmt.Errorf("volumes of %d bytes: %w", out.Len(), ErrTooLarge)
	}
	return out.Bytes(), nil
}

// Volumes reads where the data of volumes was taken, sorted by claim; none where the backup has no such data.
func (r *Reader) Volumes(ctx context.Context) ([]Volume, error) {
	if _, ok := r.rec.file(FileVolumes); !ok {
		return nil, nil
	}
	raw, err := r.document(ctx, FileVolumes, maxVolumes)
	if err != nil {
		return nil, err
	}
	rows, err := parseVolumes(raw, r.rec.strict())
	if err != nil {
		return nil, r.damage(FileVolumes, -1, "it cannot be read", err)
	}
	return rows, nil
}

func parseVolumes(raw []byte, strict bool) ([]Volume, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if strict {
		d.DisallowUnknownFields()
	}
	var out []Volume
	for {
		var v Volume
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		}
		if err := v.validate(); err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].compare(&v) >= 0 {
			return nil, fmt.Errorf("row %d: claim %s/%s is out of order", n, v.Namespace, v.Claim)
		}
		out = append(out, v)
	}
}
