package plugins

import "context"

// Place is where a provider works, and as whom. The zero value is where it works by itself.
type Place struct {
	// Region is the service's.
	Region string `json:"region"`
	// RoleARN is assumed to get there: it is of the account that the place is in. Empty is the provider's own account and identity.
	RoleARN string `json:"roleARN,omitempty"`
	// ExternalID goes with RoleARN.
	ExternalID string `json:"externalID,omitempty"`
}

// String is what messages call the place: "eu-central-1 as arn:aws:iam::444455556666:role/copies".
func (p Place) String() string {
	if p.RoleARN == "" {
		return p.Region
	}
	return p.Region + " as " + p.RoleARN
}

// SnapshotCopyRequest asks for a copy of a completed snapshot in another place.
type SnapshotCopyRequest struct {
	// Token makes the request repeatable, as in SnapshotRequest. One token is for one snapshot: with another it is refused (ErrConfig).
	Token      string
	SnapshotID string
	To         Place
	// KMSKeyID is the key of that place that encrypts the copy. Empty is the default key of the place, and none where neither the snapshot is
	// encrypted nor the place encrypts all that is new.
	KMSKeyID string
	Tags     map[string]string // of the copy, from the moment it is made
	// Progress is told how far the copy is, in percent; it may be nil.
	Progress func(percent int)
}

// SnapshotCopier is a VolumeSnapshotter whose snapshots can be copied to other places.
type SnapshotCopier interface {
	VolumeSnapshotter
	// At gives the provider of another place, of the same service. The network is not asked.
	At(place Place) (SnapshotCopier, error)
	// CopySnapshot copies a snapshot of this provider and returns when the copy is completed. What the service does not take at once, as it
	// copies as much as it may already, is waited for. A copy that fails is removed; where ctx ends meanwhile a copy stays, with its
	// tags, and a call with the same token goes on with it.
	CopySnapshot(ctx context.Context, req SnapshotCopyRequest) (Snapshot, error)
}
