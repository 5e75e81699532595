package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// Labels of a copy's manifest. kopia's command line shows labels that begin with "tag:" as a snapshot's tags.
const (
	tagKind     = "tag:kedge-kind"
	tagSnapshot = "tag:kedge-snapshot"
	tagBase     = "tag:kedge-base"
	tagSize     = "tag:kedge-size"
)

// Volume names what was copied. kopia shows it as kedge@<Cluster>:/<Provider>/<Handle>.
type Volume struct {
	// Cluster is the uid of the cluster that used the volume.
	Cluster string `json:"cluster"`
	// Provider and Handle are as in plugins.Volume: "ebs", "vol-0123456789abcdef0".
	Provider string `json:"provider"`
	Handle   string `json:"handle"`
}

// String is the volume for messages.
func (v Volume) String() string { return v.Provider + "/" + v.Handle }

// Source is what kopia calls the volume.
func (v Volume) Source() snapshot.SourceInfo {
	return snapshot.SourceInfo{Host: v.Cluster, UserName: ownerUser, Path: "/" + v.Provider + "/" + v.Handle}
}

func (v Volume) check() error {
	if v.Cluster == "" || v.Provider == "" || v.Handle == "" {
		return fmt.Errorf("volume %+v: cluster, provider and handle are needed", v)
	}
	return nil
}

// Copy is one volume's bytes of one moment, as the repository knows it.
type Copy struct {
	// ID is kopia's id of the copy's manifest; it changes where kopia rewrites it (as its "snapshot pin" does).
	ID     string `json:"id"`
	Volume Volume `json:"volume"`
	// Kind is who made it and can restore it: "blocks", "files".
	Kind string `json:"kind"`
	// Snapshot is the provider's id of what was read; Base is the id of the copy that it was compared with, empty for none.
	Snapshot string `json:"snapshot,omitempty"`
	Base     string `json:"base,omitempty"`
	// SizeBytes is the volume's size.
	SizeBytes int64     `json:"sizeBytes"`
	Started   time.Time `json:"started"`
	Completed time.Time `json:"completed"`
	// Incomplete is why this is no whole copy; empty where it is. A checkpoint of a run that goes on is one.
	Incomplete string `json:"incomplete,omitempty"`
	// Files and StoredBytes count the files of the tree and their bytes, before compression and deduplication.
	Files       int64 `json:"files"`
	StoredBytes int64 `json:"storedBytes"`

	root *snapshot.DirEntry
}

// Root is the entry of the copy's tree.
func (c Copy) Root() *snapshot.DirEntry { return c.root }

// Tags are what marks a manifest as that of the copy. Save sets them; who has kopia write a manifest of his own sets them himself.
func (c Copy) Tags() map[string]string {
	tags := map[string]string{tagKind: c.Kind, tagSize: strconv.FormatInt(c.SizeBytes, 10)}
	if c.Snapshot != "" {
		tags[tagSnapshot] = c.Snapshot
	}
	if c.Base != "" {
		tags[tagBase] = c.Base
	}
	return tags
}

// Filter chooses copies; empty fields choose all.
type Filter struct {
	Volume   Volume
	Kind     string
	Snapshot string
	// Incomplete chooses those that are not whole, which are left out otherwise; Any chooses both.
	Incomplete, Any bool
}

// Copies lists what the filter chooses, the oldest first.
func (r *Repository) Copies(ctx context.Context, filter Filter) ([]Copy, error) {
	var copies []Copy
	err := r.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		var err error
		copies, err = CopiesIn(ctx, rep, filter)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list volume copies in %s: %w", r, err)
	}
	return copies, nil
}

// CopiesIn is Copies for who reads the repository, or writes to it, already: as it was when that began.
func CopiesIn(ctx context.Context, rep repo.Repository, filter Filter) ([]Copy, error) {
	labels := map[string]string{manifest.TypeLabelKey: snapshot.ManifestType}
	if filter.Volume != (Volume{}) {
		if err := filter.Volume.check(); err != nil {
			return nil, err
		}
		source := filter.Volume.Source()
		maps.Copy(labels, map[string]string{
			snapshot.HostnameLabel: source.Host, snapshot.UsernameLabel: source.UserName, snapshot.PathLabel: source.Path,
		})
	}
	if filter.Kind != "" {
		labels[tagKind] = filter.Kind
	}
	if filter.Snapshot != "" {
		labels[tagSnapshot] = filter.Snapshot
	}
	entries, err := rep.FindManifests(ctx, labels)
	if err != nil {
		return nil, err
	}
	var copies []Copy
	for _, entry := range entries {
		c, err := loadCopy(ctx, rep, string(entry.ID))
		if errors.Is(err, ErrNoCopy) {
			continue // removed meanwhile, or a snapshot of kopia's own
		}
		if err != nil {
			return nil, err
		}
		if filter.Any || (c.Incomplete != "") == filter.Incomplete {
			copies = append(copies, c)
		}
	}
	slices.SortStableFunc(copies, func(a, b Copy) int {
		if order := a.Started.Compare(b.Started); order != 0 {
			return order
		}
		return a.Completed.Compare(b.Completed)
	})
	return copies, nil
}

// Copy finds one copy; the error wraps ErrNoCopy where there is none.
func (r *Repository) Copy(ctx context.Context, id string) (Copy, error) {
	var c Copy
	err := r.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		var err error
		c, err = loadCopy(ctx, rep, id)
		return err
	})
	if err != nil {
		return Copy{}, fmt.Errorf("find volume copy %q in %s: %w", id, r, err)
	}
	return c, nil
}

func loadCopy(ctx context.Context, rep repo.Repository, id string) (Copy, error) {
	var m snapshot.Manifest
	meta, err := rep.GetManifest(ctx, manifest.ID(id), &m)
	if errors.Is(err, manifest.ErrNotFound) {
		return Copy{}, ErrNoCopy
	}
	if err != nil {
		return Copy{}, fmt.Errorf("read manifest %s: %w", id, err)
	}
	if meta.Labels[manifest.TypeLabelKey] != snapshot.ManifestType {
		return Copy{}, fmt.Errorf("manifest %s is not of Kedge: %w", id, ErrNoCopy)
	}
	return CopyOf(id, &m, meta.Labels)
}

// CopyOf is the copy that a manifest with these labels (its tags) stands for; the error wraps ErrNoCopy where it stands for none.
func CopyOf(id string, m *snapshot.Manifest, labels map[string]string) (Copy, error) {
	volume, ok := volumeOf(m.Source)
	if labels[tagKind] == "" || !ok || m.RootEntry == nil {
		return Copy{}, fmt.Errorf("manifest %s is not of Kedge: %w", id, ErrNoCopy)
	}
	c := Copy{
		ID: id, Volume: volume, Kind: labels[tagKind], Snapshot: labels[tagSnapshot], Base: labels[tagBase], Incomplete: m.IncompleteReason,
		Started: m.StartTime.ToTime().UTC(), Completed: m.EndTime.ToTime().UTC(), root: m.RootEntry,
	}
	var err error
	if c.SizeBytes, err = strconv.ParseInt(labels[tagSize], 10, 64); err != nil || c.SizeBytes < 0 {
		return Copy{}, fmt.Errorf("read manifest %s: size %q", id, labels[tagSize])
	}
	if sum := m.RootEntry.DirSummary; sum != nil {
		c.Files, c.StoredBytes = sum.TotalFileCount, sum.TotalFileSize
	}
	return c, nil
}

func volumeOf(source snapshot.SourceInfo) (Volume, bool) {
	var provider, handle string
	path := source.Path
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			provider, handle = path[1:i], path[i+1:]
			break
		}
	}
	v := Volume{Cluster: source.Host, Provider: provider, Handle: handle}
	return v, source.UserName == ownerUser && v.check() == nil
}

// Save writes the manifest of a copy, whose tree is root, with a session, and returns the copy with its ID. It is part of the repository, and
// its tree safe from maintenance, from the session's next flush on.
func Save(ctx context.Context, w repo.RepositoryWriter, c Copy, root *snapshot.DirEntry) (Copy, error) {
	if err := c.Volume.check(); err != nil {
		return Copy{}, err
	}
	if c.Kind == "" {
		return Copy{}, fmt.Errorf("save the copy of %s: it has no kind", c.Volume)
	}
	c.Started, c.Completed = c.Started.Round(0).UTC(), c.Completed.Round(0).UTC() // as they are read back
	m := &snapshot.Manifest{
		Source: c.Volume.Source(), StartTime: fs.UTCTimestampFromTime(c.Started), EndTime: fs.UTCTimestampFromTime(c.Completed),
		IncompleteReason: c.Incomplete, RootEntry: root, Tags: c.Tags(),
	}
	if sum := root.DirSummary; sum != nil {
		c.Files, c.StoredBytes = sum.TotalFileCount, sum.TotalFileSize
		m.Stats.TotalFileCount, m.Stats.TotalFileSize = int32(min(c.Files, 1<<31-1)), c.StoredBytes
		m.Stats.TotalDirectoryCount = int32(min(sum.TotalDirCount, 1<<31-1))
	}
	id, err := snapshot.SaveSnapshot(ctx, w, m)
	if err != nil {
		return Copy{}, fmt.Errorf("save the copy of %s: %w", c.Volume, err)
	}
	c.ID, c.root = string(id), root
	return c, nil
}

// Forget removes a copy's manifest with a session; what it alone refers to is removed by later maintenance. Forgetting what is not there succeeds.
func Forget(ctx context.Context, w repo.RepositoryWriter, id string) error {
	err := w.DeleteManifest(ctx, manifest.ID(id))
	if err != nil && !errors.Is(err, manifest.ErrNotFound) {
		return fmt.Errorf("forget volume copy %s: %w", id, err)
	}
	return nil
}
