package upkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	restored "kedge.dev/kedge/restore/volumes"
)

// SafeAge is how old a snapshot or volume must be before it is taken for an orphan: what made it may still be at work.
const SafeAge = archive.MinSweepAge

// What an orphan is.
const (
	KindSnapshot = "snapshot"
	KindVolume   = "volume"
)

// Why nothing needs an orphan.
const (
	OrphanNoBackup     = "NoBackup"     // the location has no backup of that uid
	OrphanOtherAttempt = "OtherAttempt" // another attempt became the backup
	OrphanSuperseded   = "Superseded"   // a newer snapshot is there to compare the volume's next copy with
	OrphanTemporary    = "Temporary"    // a backup or a restore that is over needed it
	OrphanNoVolume     = "NoPersistentVolume"
)

// Orphan is a snapshot or a volume that Kedge made and nothing needs.
type Orphan struct {
	Kind      string    `json:"kind"`
	Provider  string    `json:"provider"`
	ID        string    `json:"id"`
	SizeBytes int64     `json:"sizeBytes"`
	Created   time.Time `json:"created"`
	Reason    string    `json:"reason"`
	// Claim, Backup, Restore and Cluster are what its tags say.
	Claim   string `json:"claim,omitempty"`
	Backup  string `json:"backup,omitempty"`
	Restore string `json:"restore,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// Place is where it is, of copies in other regions and accounts.
	Place *plugins.Place `json:"place,omitempty"`

	provider plugins.VolumeSnapshotter // that has it
}

// Search looks for orphans.
type Search struct {
	Providers []plugins.VolumeProvider
	// LocationID is the location's whose backups' snapshots are looked at; Entries lists it to its end.
	LocationID string
	Entries    func(context.Context) ([]archive.Entry, error)
	// Places are other regions and accounts where copies of snapshots are looked for, beside those that the records of backups name.
	Places []plugins.Place
	// Cluster, if set, leaves out the snapshots of backups of other clusters.
	Cluster string
	// Target is the cluster of whose restores temporary snapshots and volumes are looked at; none are where it is empty.
	Target string
	// Volumes lists the target's PersistentVolumes; nil looks for no volumes.
	Volumes func(context.Context) ([]corev1.PersistentVolume, error)
	// Busy are the uids of backups and restores that are under way.
	Busy map[string]bool
	// Before is when an orphan was made at the latest.
	Before time.Time

	unseen []error
}

// Unreached says of an error of Find (of nothing else) for one provider that it is no failure: that one cannot be reached without access that nobody gave, and another
// one takes the cluster's snapshots.
func Unreached(err error, all []plugins.VolumeProvider) bool {
	return errors.Is(err, plugins.ErrAccess) && slices.ContainsFunc(all, takes)
}

// takes says whether a provider is the cluster's own, and has drivers that take snapshots.
func takes(p plugins.VolumeProvider) bool {
	own, ok := p.(interface{ Takes() bool })
	return ok && own.Takes()
}

// Unseen is why other places could not be looked at by the last Find; nil where all were.
func (s *Search) Unseen() error { return errors.Join(s.unseen...) }

// Find gives the orphans, the oldest first. With an error there are none: nothing is said where something could not be looked at. Other places are an
// exception, see Unseen: one of them must not keep the others from being tidied up.
func (s *Search) Find(ctx context.Context) ([]Orphan, error) {
	var found []Orphan
	for _, p := range s.Providers {
		provider, ok := p.(plugins.VolumeSnapshotter)
		if !ok {
			continue
		}
		for _, look := range []func(context.Context, plugins.VolumeSnapshotter) ([]Orphan, error){s.ofBackups, s.temporary, s.clones, s.volumes} {
			some, err := look(ctx, provider)
			if err != nil {
				return nil, fmt.Errorf("look for orphans of %s: %w", p.Name(), err)
			}
			found = append(found, some...)
		}
	}
	there, err := s.elsewhere(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for orphans elsewhere: %w", err)
	}
	for _, o := range there {
		// Where a place of the copies is where this process works, it has seen them already.
		if !slices.ContainsFunc(found, func(other Orphan) bool { return other.ID == o.ID && other.Provider == o.Provider }) {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b Orphan) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return found, nil
}

// elsewhere finds copies of snapshots in other places.
func (s *Search) elsewhere(ctx context.Context) (found []Orphan, err error) {
	s.unseen = nil
	if !slices.ContainsFunc(s.Providers, func(p plugins.VolumeProvider) bool { _, ok := p.(plugins.SnapshotCopier); return ok }) {
		return nil, nil
	}
	entries, err := s.Entries(ctx)
	if err != nil {
		return nil, err
	}
	places := slices.Clone(s.Places)
	for i := range entries {
		if rec := entries[i].Record; rec != nil && (s.Cluster == "" || rec.Cluster.UID == s.Cluster) {
			places = append(places, rec.SnapshotPlaces...)
		}
	}
	slices.SortFunc(places, func(a, b plugins.Place) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.RoleARN, b.RoleARN), cmp.Compare(a.ExternalID, b.ExternalID))
	})
	for _, place := range slices.Compact(places) {
		providers, err := volumes.Elsewhere(s.Providers, []plugins.Place{place})
		for _, p := range providers {
			some, lookErr := s.ofBackups(ctx, p.(plugins.VolumeSnapshotter)) // it copies snapshots
			err = errors.Join(err, lookErr)
			for _, o := range some {
				o.Place = &place
				found = append(found, o)
			}
		}
		if err != nil {
			s.unseen = append(s.unseen, fmt.Errorf("look for orphans in %s: %w", place, err))
		}
	}
	return found, nil
}

// ofBackups finds snapshots that were made for backups. They are listed before the backups: what is sealed meanwhile is then among these.
func (s *Search) ofBackups(ctx context.Context, p plugins.VolumeSnapshotter) ([]Orphan, error) {
	tags := map[string]string{volumes.TagLocation: s.LocationID}
	if s.Cluster != "" {
		tags[volumes.TagCluster] = s.Cluster
	}
	have, err := p.FindSnapshots(ctx, tags)
	have = slices.DeleteFunc(have, s.isTemporary)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	entries, err := s.Entries(ctx)
	if err != nil {
		return nil, err
	}
	sealed := map[string][]*archive.Entry{} // more than one of a uid where somebody copied a folder in the bucket
	for i := range entries {
		sealed[entries[i].UID] = append(sealed[entries[i].UID], &entries[i])
	}
	newest := map[string]time.Time{} // the start of the newest base, by volume
	for i := range have {
		if b := &have[i]; isBase(b) && b.State == plugins.SnapshotCompleted && whyUnneeded(b, sealed) == "" && b.Started.After(newest[b.Handle]) {
			newest[b.Handle] = b.Started
		}
	}
	var found []Orphan
	for i := range have {
		b := &have[i]
		why := whyUnneeded(b, sealed)
		if why == "" && isBase(b) && b.Started.Before(newest[b.Handle]) {
			why = OrphanSuperseded
		}
		if why == "" || s.Busy[b.Tags[volumes.TagUID]] || !s.old(b.Started) {
			continue
		}
		o := orphanOf(p, b, why)
		o.Backup = b.Tags[volumes.TagBackup]
		found = append(found, o)
	}
	return found, nil
}

// isTemporary says that the next look finds the snapshot.
func (s *Search) isTemporary(b plugins.Snapshot) bool {
	return s.Target != "" && b.Tags[volumes.TagCluster] == s.Target && b.Tags[volumes.TagRole] == volumes.RoleTemporary
}

func isBase(s *plugins.Snapshot) bool { return s.Tags[volumes.TagRole] == volumes.RoleBase }

// whyUnneeded holds a snapshot against the sealed backups, by uid: any of them may need it. A record that cannot be read speaks for every attempt.
func whyUnneeded(s *plugins.Snapshot, sealed map[string][]*archive.Entry) string {
	uid := s.Tags[volumes.TagUID]
	needs := func(e *archive.Entry) bool { return e.Record == nil || e.Record.Attempt == s.Tags[volumes.TagAttempt] }
	switch {
	case uid == "": // not made for a backup
		return ""
	case len(sealed[uid]) == 0:
		return OrphanNoBackup
	case !slices.ContainsFunc(sealed[uid], needs):
		return OrphanOtherAttempt
	}
	return ""
}

// temporary finds what restores needed only while they made volumes, and backups while they copied files.
func (s *Search) temporary(ctx context.Context, p plugins.VolumeSnapshotter) ([]Orphan, error) {
	if s.Target == "" {
		return nil, nil
	}
	have, err := p.FindSnapshots(ctx, map[string]string{restored.TagRole: restored.RoleTemporary, restored.TagCluster: s.Target})
	if err != nil {
		return nil, err
	}
	var found []Orphan
	for i := range have {
		if t := &have[i]; s.old(t.Started) && !s.Busy[t.Tags[restored.TagUID]] && !s.Busy[t.Tags[volumes.TagUID]] {
			o := orphanOf(p, t, OrphanTemporary)
			o.Restore, o.Backup = t.Tags[restored.TagRestore], t.Tags[volumes.TagBackup]
			found = append(found, o)
		}
	}
	return found, nil
}

// clones finds volumes that backups had made of snapshots to copy their files from. Nobody else has ever written to them.
func (s *Search) clones(ctx context.Context, p plugins.VolumeSnapshotter) ([]Orphan, error) {
	if _, ok := p.(plugins.VolumeReleaser); !ok || s.Target == "" {
		return nil, nil
	}
	have, err := p.FindVolumes(ctx, map[string]string{volumes.TagLocation: s.LocationID, volumes.TagCluster: s.Target})
	if err != nil {
		return nil, err
	}
	var found []Orphan
	for i := range have {
		if v := &have[i]; s.old(v.Created) && !s.Busy[v.Tags[volumes.TagUID]] {
			found = append(found, Orphan{
				Kind: KindVolume, Provider: p.Name(), ID: v.Handle, SizeBytes: v.SizeBytes, Created: v.Created.UTC(), Reason: OrphanTemporary,
				Claim: v.Tags[volumes.TagClaim], Backup: v.Tags[volumes.TagBackup], Cluster: s.Target, provider: p,
			})
		}
	}
	return found, nil
}

func orphanOf(p plugins.VolumeSnapshotter, s *plugins.Snapshot, why string) Orphan {
	return Orphan{
		Kind: KindSnapshot, Provider: p.Name(), ID: s.ID, SizeBytes: s.SizeBytes, Created: s.Started.UTC(), Reason: why,
		Claim: s.Tags[volumes.TagClaim], Cluster: s.Tags[volumes.TagCluster], provider: p,
	}
}

// volumes finds what restores made for the target and no PersistentVolume of it names, nor a machine uses. They are listed before the
// PersistentVolumes, so that what gets one meanwhile is not taken.
func (s *Search) volumes(ctx context.Context, p plugins.VolumeSnapshotter) ([]Orphan, error) {
	if s.Target == "" || s.Volumes == nil {
		return nil, nil
	}
	have, err := p.FindVolumes(ctx, map[string]string{restored.TagCluster: s.Target})
	if err != nil || len(have) == 0 {
		return nil, err
	}
	pvs, err := s.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for i := range pvs {
		if handle, ok := p.Handle(&pvs[i]); ok {
			named[handle] = true
		}
	}
	var found []Orphan
	for i := range have {
		v := &have[i]
		uid := v.Tags[restored.TagUID]
		if uid == "" || named[v.Handle] || v.AttachedTo != "" || s.Busy[uid] || !s.old(v.Created) {
			continue
		}
		found = append(found, Orphan{
			Kind: KindVolume, Provider: p.Name(), ID: v.Handle, SizeBytes: v.SizeBytes, Created: v.Created.UTC(), Reason: OrphanNoVolume,
			Claim: v.Tags[restored.TagClaim], Restore: v.Tags[restored.TagRestore], Cluster: s.Target, provider: p,
		})
	}
	return found, nil
}

// old says whether something was made long enough ago; what is not dated was not.
func (s *Search) old(made time.Time) bool { return !made.IsZero() && !made.After(s.Before) }

// Delete removes an orphan that Find gave.
func (s *Search) Delete(ctx context.Context, o *Orphan) error {
	switch {
	case o.provider == nil:
		return fmt.Errorf("delete %s %s: it was not found by a search", o.Kind, o.ID)
	case o.Kind == KindVolume:
		return o.provider.DeleteVolume(ctx, o.ID)
	default:
		return o.provider.DeleteSnapshot(ctx, o.ID)
	}
}
