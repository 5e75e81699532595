package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// copyRun is one copy.
type copyRun struct {
	*Copier
	repo    repo.RepositoryWriter
	req     CopyRequest
	group   *errgroup.Group
	comp    compression.Name
	started time.Time
	device  uint64 // of the root
	links   *once
	buffers sync.Pool

	counts  copyCounts
	remarks remarks
	noAttrs atomic.Bool // the file system has no extended attributes

	root  *unfinished
	ticks ticker
	saved manifest.ID // of the last checkpoint
}

// Copy copies a tree and saves the snapshot's manifest. What cannot be read, changes or vanishes is a remark; an error
// means that there is no snapshot. When ctx ends, or the copy fails otherwise, what was read so far is saved as an
// unfinished snapshot if the repository still takes it, and the next copy goes on from there.
func (c *Copier) Copy(ctx context.Context, w repo.RepositoryWriter, req CopyRequest) (*CopyResult, error) {
	d, err := openRoot(req.Dir)
	if err != nil {
		return nil, fmt.Errorf("copy files: %w", err)
	}
	defer d.close()
	r := &copyRun{Copier: c, repo: w, req: req, started: w.Time(), comp: compression.Name(c.Compression), links: newOnce(c.SpoolDir)}
	defer r.links.close()
	defer func() { r.root.close() }()
	if err := r.prepare(d); err != nil {
		return nil, fmt.Errorf("copy files: %w", err)
	}
	var res *CopyResult
	entry, err := r.walk(ctx, d)
	if err == nil {
		res, err = r.finish(ctx, entry)
	}
	if err != nil {
		// The caller's context may be the reason; the checkpoint is what makes the next copy short.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		err = errors.Join(err, r.checkpoint(last, "canceled"))
		return nil, fmt.Errorf("copy files of %s: %w", req.Dir, err)
	}
	return res, nil
}

func (r *copyRun) prepare(d *dir) error {
	r.remarks.hook = r.Remark
	if src := r.req.Source; src.Host == "" || src.UserName == "" || src.Path == "" {
		return fmt.Errorf("source %q needs host, user and path", src)
	}
	for _, label := range []string{manifest.TypeLabelKey, snapshot.HostnameLabel, snapshot.UsernameLabel, snapshot.PathLabel} {
		if _, taken := r.req.Tags[label]; taken {
			return fmt.Errorf("tag %q is one of kopia's own labels", label)
		}
	}
	switch r.comp {
	case "":
		r.comp = defaultCompression
	case "none":
		r.comp = ""
	}
	if _, ok := compression.ByName[r.comp]; r.comp != "" && !ok {
		return fmt.Errorf("no compression is called %q", r.comp)
	}
	var st unix.Stat_t
	if err := d.stat(&st); err != nil {
		return fmt.Errorf("stat %s: %w", r.req.Dir, err)
	}
	r.device = st.Dev
	r.buffers.New = func() any { b := make([]byte, 128<<10); return &b }
	r.ticks = ticker{repo: r.repo, last: r.started, progress: r.started, every: r.CheckpointEvery}
	if r.ticks.every == 0 {
		r.ticks.every = defaultCheckpoint
	}
	return nil
}

// walk copies the whole tree and gives its root's entry. All its goroutines have ended when it returns.
func (r *copyRun) walk(ctx context.Context, d *dir) (*snapshot.DirEntry, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(r.Parallel))
	r.group = group
	var root *snapshot.DirEntry
	group.Go(func() error {
		prev := r.openPrevious(ctx)
		f, err := r.newFolder(d, "", "/", prev)
		if err != nil {
			return err
		}
		r.root = f
		root, err = r.folder(ctx, f)
		return err
	})
	err := group.Wait()
	return root, err
}

// openPrevious opens the roots of the earlier snapshots. One that cannot be read is a remark.
func (r *copyRun) openPrevious(ctx context.Context) []*previous {
	var prev []*previous
	for _, m := range r.req.Previous {
		if m == nil || m.RootEntry == nil || m.RootEntry.Type != snapshot.EntryTypeDirectory {
			continue
		}
		p, err := openPrevious(ctx, r.repo, m.RootEntry.ObjectID, m.StartTime.Add(-racyWindow), m.EndTime.Add(racyWindow))
		if err != nil {
			r.remarks.add(Reread, "", err.Error())
			continue
		}
		prev = append(prev, p)
	}
	return prev
}

// finish saves the manifest, and removes the checkpoint that it replaces.
func (r *copyRun) finish(ctx context.Context, root *snapshot.DirEntry) (*CopyResult, error) {
	man := r.manifest(root, "")
	man.Stats.TotalFileCount = int32(min(r.counts.files.Load(), 1<<31-1))
	man.Stats.TotalFileSize = r.counts.bytes.Load()
	man.Stats.TotalDirectoryCount = int32(min(r.counts.folders.Load(), 1<<31-1))
	man.Stats.NonCachedFiles = int32(min(r.counts.readFiles.Load(), 1<<31-1))
	man.Stats.CachedFiles = man.Stats.TotalFileCount - man.Stats.NonCachedFiles
	man.Stats.ErrorCount = int32(root.DirSummary.FatalErrorCount)
	if _, err := snapshot.SaveSnapshot(ctx, r.repo, man); err != nil {
		return nil, fmt.Errorf("save snapshot: %w", err)
	}
	// What it replaces goes with the same flush: the repository has either, never neither.
	gone := r.req.Replaces
	if r.saved != "" {
		gone = append(slices.Clone(gone), r.saved)
	}
	for _, id := range gone {
		if err := r.repo.DeleteManifest(ctx, id); err != nil && !errors.Is(err, manifest.ErrNotFound) {
			return nil, fmt.Errorf("remove the unfinished copy %s: %w", id, err)
		}
	}
	if err := r.repo.Flush(ctx); err != nil {
		return nil, fmt.Errorf("save snapshot: %w", err)
	}
	res := &CopyResult{Manifest: man, CopyProgress: r.counts.now()}
	res.Counts, res.Remarks = r.remarks.take()
	if r.Progress != nil {
		r.Progress(res.CopyProgress)
	}
	return res, nil
}

func (r *copyRun) manifest(root *snapshot.DirEntry, incomplete string) *snapshot.Manifest {
	man := &snapshot.Manifest{
		Source:           r.req.Source,
		Description:      r.req.Description,
		Tags:             r.req.Tags,
		StartTime:        fs.UTCTimestampFromTime(r.started),
		EndTime:          fs.UTCTimestampFromTime(r.repo.Time()),
		RootEntry:        root,
		IncompleteReason: incomplete,
	}
	if r.req.Describe != nil {
		r.req.Describe(man)
	}
	return man
}

// ticker says when it is time for progress and for a checkpoint. It has no goroutine: whoever finishes something asks it.
type ticker struct {
	repo  repo.Repository
	every time.Duration

	mu       sync.Mutex
	last     time.Time // checkpoint
	files    int64     // that were read until then
	progress time.Time
	saving   bool
}

// due says whether a second, or a checkpoint's interval or number of files, has gone by; whoever is told so does it, and says saved after a
// checkpoint.
func (t *ticker) due(read int64, report func()) (checkpoint bool) {
	now := t.repo.Time()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.progress) >= progressEvery {
		t.progress = now
		report()
	}
	if t.every < 0 || t.saving || now.Sub(t.last) < t.every && read-t.files < checkpointFiles {
		return false
	}
	t.saving, t.files = true, read
	return true
}

func (t *ticker) saved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saving, t.last = false, t.repo.Time()
}

// tick is called between pieces of work.
func (r *copyRun) tick(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !r.ticks.due(r.counts.readFiles.Load(), func() {
		if r.Progress != nil {
			r.Progress(r.counts.now())
		}
	}) {
		return nil
	}
	defer r.ticks.saved()
	return r.checkpoint(ctx, "checkpoint")
}
