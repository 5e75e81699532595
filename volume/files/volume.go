package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"kedge.dev/kedge/volume/repository"
)

// Kind is the Kind of the copies of volumes that this package makes.
const Kind = "files"

const (
	// holdReason is why the manifest is no whole copy that keeps what a running copy refers to.
	holdReason = "checkpoint: the base of a copy"
	// maxEarlier is how many unfinished copies the next one starts from, beside the last whole one.
	maxEarlier = 4
)

// VolumeResult is what the copy of a volume did.
type VolumeResult struct {
	Copy repository.Copy
	CopyProgress
	// Uploaded are bytes that went to the store.
	Uploaded int64
	// Counts has the number of remarks of each kind, and Remarks the first thousand.
	Counts  map[RemarkKind]int64
	Remarks []Remark
}

// CopyVolume copies the volume whose root is dir. It goes on from the volume's last whole copy and what was begun since, and removes what was
// begun once it is done. After an error there may be a copy too, if only the last reply was lost: nobody names it, so maintenance forgets it.
func (c *Copier) CopyVolume(ctx context.Context, r *repository.Repository, volume repository.Volume, dir string) (*VolumeResult, error) {
	v := &volumeCopy{Copier: c, r: r, like: repository.Copy{Volume: volume, Kind: Kind}}
	err := r.Write(ctx, "copy "+volume.String(), func(n int64) { v.uploaded.Add(n) }, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		if err := v.find(ctx, w); err != nil {
			return err
		}
		return v.run(ctx, w, dir)
	})
	if err != nil {
		return nil, fmt.Errorf("copy volume %s: %w", volume, err)
	}
	v.result.Uploaded = v.uploaded.Load()
	return &v.result, nil
}

// volumeCopy is one run of CopyVolume.
type volumeCopy struct {
	*Copier
	r        *repository.Repository
	like     repository.Copy // what the copy's manifest says of it
	earlier  []repository.Copy
	begun    []repository.Copy // unfinished copies, which the finished one replaces
	uploaded atomic.Int64
	result   VolumeResult
}

// find looks for the earlier copies: the last whole one, and the newest that were begun after it.
func (v *volumeCopy) find(ctx context.Context, w repo.Repository) error {
	all, err := repository.CopiesIn(ctx, w, repository.Filter{Volume: v.like.Volume, Kind: Kind, Any: true})
	if err != nil {
		return fmt.Errorf("list the copies before: %w", err)
	}
	var whole []repository.Copy
	v.earlier, v.begun = nil, nil
	for _, c := range all {
		if c.Incomplete == "" {
			whole = append(whole, c)
		} else {
			v.begun = append(v.begun, c)
		}
	}
	if n := len(whole); n > 0 {
		v.earlier = append(v.earlier, whole[n-1])
		v.like.Base = whole[n-1].ID
	}
	for _, c := range slices.Backward(v.begun) {
		known := func(e repository.Copy) bool { return e.Root().ObjectID == c.Root().ObjectID }
		if v.like.Base != "" && c.Completed.Before(v.earlier[0].Completed) || slices.ContainsFunc(v.earlier, known) {
			continue
		}
		if v.earlier = append(v.earlier, c); len(v.earlier) > maxEarlier {
			break
		}
	}
	return nil
}

func (v *volumeCopy) run(ctx context.Context, w repo.DirectRepositoryWriter, dir string) error {
	held, err := v.hold(ctx, w)
	if err != nil {
		return err
	}
	req := CopyRequest{Dir: dir, Source: v.like.Volume.Source(), Describe: v.describe}
	for i := range v.earlier {
		req.Previous = append(req.Previous, manifestOf(&v.earlier[i]))
	}
	for _, c := range append(held, v.begun...) {
		req.Replaces = append(req.Replaces, manifest.ID(c.ID))
	}
	res, err := v.Copy(ctx, w, req)
	if err != nil {
		return err
	}
	v.result = VolumeResult{CopyProgress: res.CopyProgress, Counts: res.Counts, Remarks: res.Remarks}
	v.result.Copy, err = repository.CopyOf(string(res.Manifest.ID), res.Manifest, res.Manifest.Tags)
	return err
}

// describe makes a manifest that of a copy of the volume. A volume of files has no size but that of what is in it.
func (v *volumeCopy) describe(m *snapshot.Manifest) {
	c := v.like
	c.SizeBytes = m.RootEntry.DirSummary.TotalFileSize
	m.Tags = c.Tags()
}

// hold makes unfinished copies of the earlier ones: from then on maintenance keeps what this copy will refer to, though they be forgotten
// meanwhile. If they are still there after that, no maintenance can have begun to remove what they refer to; one that is not is left alone.
func (v *volumeCopy) hold(ctx context.Context, w repo.DirectRepositoryWriter) ([]repository.Copy, error) {
	var held []repository.Copy
	for _, c := range v.earlier {
		// With the base's start, whoever goes on from this looks again at whatever was written to since.
		like := repository.Copy{Volume: c.Volume, Kind: Kind, Base: c.Base, SizeBytes: c.SizeBytes, Started: c.Started, Completed: v.r.Now(), Incomplete: holdReason}
		saved, err := repository.Save(ctx, w, like, c.Root())
		if err != nil {
			return nil, err
		}
		held = append(held, saved)
	}
	if len(held) == 0 {
		return nil, nil
	}
	if err := w.Flush(ctx); err != nil {
		return nil, fmt.Errorf("hold the copy before: %w", err)
	}
	var still []repository.Copy
	for _, c := range v.earlier {
		_, err := v.r.Copy(ctx, c.ID)
		switch {
		case err == nil:
			still = append(still, c)
		case !errors.Is(err, repository.ErrNoCopy):
			return nil, err
		case c.ID == v.like.Base:
			v.like.Base = ""
		}
	}
	v.earlier = still
	return held, nil
}

// manifestOf is as much of a copy's manifest as copies and restores look at.
func manifestOf(c *repository.Copy) *snapshot.Manifest {
	return &snapshot.Manifest{
		Source: c.Volume.Source(), RootEntry: c.Root(),
		StartTime: fs.UTCTimestampFromTime(c.Started), EndTime: fs.UTCTimestampFromTime(c.Completed),
	}
}

// RestoreVolume restores a volume's copy, or the folder or file of it that path names, to a directory.
func (s *Restorer) RestoreVolume(ctx context.Context, r *repository.Repository, c repository.Copy, path, target string) (*RestoreResult, error) {
	if c.Kind != Kind || c.Incomplete != "" {
		return nil, fmt.Errorf("restore volume copy %s: it is of kind %q%s, not a whole copy of kind %q", c.ID, c.Kind, unfinishedText(c), Kind)
	}
	var res *RestoreResult
	err := r.Read(ctx, func(ctx context.Context, rep repo.Repository) (err error) {
		res, err = s.Restore(ctx, rep, RestoreRequest{Manifest: manifestOf(&c), Path: path, Target: target})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("restore volume copy %s of %s: %w", c.ID, c.Volume, err)
	}
	return res, nil
}

func unfinishedText(c repository.Copy) string {
	if c.Incomplete == "" {
		return ""
	}
	return " and unfinished"
}
