package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// restoreRun is one restore.
type restoreRun struct {
	*Restorer
	repo    repo.Repository
	group   *errgroup.Group
	root    *dir
	device  uint64
	links   *once
	buffers sync.Pool

	counts     restoreCounts
	remarks    remarks
	ticks      ticker
	noAttrs    atomic.Bool  // the file system has no extended attributes
	unreadable atomic.Int64 // files in a row that the repository did not give
}

// Restore restores a copy, or a part of it. What cannot be written as it was is a remark; an error means that the restore
// did not go through. Run again, it goes on: files that are there with the copy's size and modification time are not
// written again. Each file appears under its name when it is complete.
func (s *Restorer) Restore(ctx context.Context, rep repo.Repository, req RestoreRequest) (*RestoreResult, error) {
	tree, err := OpenTree(rep, req.Manifest)
	if err != nil {
		return nil, fmt.Errorf("restore files: %w", err)
	}
	n, path, err := tree.find(ctx, req.Path)
	if err != nil {
		return nil, fmt.Errorf("restore files: %w", err)
	}
	if err := os.MkdirAll(req.Target, 0o700); err != nil {
		return nil, fmt.Errorf("restore files: %w", err)
	}
	d, err := openRoot(req.Target)
	if err != nil {
		return nil, fmt.Errorf("restore files: %w", err)
	}
	defer d.close()
	r := &restoreRun{Restorer: s, repo: rep, root: d, links: newOnce(s.SpoolDir)}
	defer r.links.close()
	if err := r.prepare(&n); err != nil {
		return nil, fmt.Errorf("restore files: %w", err)
	}
	if err := r.run(ctx, &n, path); err != nil {
		return nil, fmt.Errorf("restore files to %s: %w", req.Target, err)
	}
	if err := unix.Syncfs(d.fd); err != nil {
		return nil, fmt.Errorf("restore files: write %s to disk: %w", req.Target, err)
	}
	res := &RestoreResult{RestoreProgress: r.counts.now()}
	res.Counts, res.Remarks = r.remarks.take()
	if r.Progress != nil {
		r.Progress(res.RestoreProgress)
	}
	return res, nil
}

func (r *restoreRun) prepare(n *node) error {
	switch r.Overwrite {
	case OverwriteChanged, OverwriteAlways, OverwriteOlder, OverwriteNever:
	default:
		return fmt.Errorf("no overwrite policy is called %q", r.Overwrite)
	}
	var st unix.Stat_t
	if err := r.root.stat(&st); err != nil {
		return fmt.Errorf("stat target: %w", err)
	}
	r.device = st.Dev
	r.remarks.hook = r.Remark
	r.buffers.New = func() any { b := make([]byte, 128<<10); return &b }
	now := r.repo.Time()
	r.ticks = ticker{repo: r.repo, last: now, progress: now, every: -1}
	r.counts.totalFiles, r.counts.totalBytes = 1, 0
	if n.entry != nil {
		r.counts.totalBytes = n.entry.FileSize
		if s := n.entry.DirSummary; s != nil {
			r.counts.totalFiles, r.counts.totalBytes = s.TotalFileCount+s.TotalSymlinkCount, s.TotalFileSize
		}
	}
	return nil
}

// run restores a node. All its goroutines have ended when it returns.
func (r *restoreRun) run(ctx context.Context, n *node, path string) error {
	group, ctx := errgroup.WithContext(ctx)
	limit := r.Parallel
	if limit <= 0 {
		limit = defaultWriters
	}
	group.SetLimit(limit)
	r.group = group
	group.Go(func() error {
		if n.kind() == TypeFolder {
			return r.folder(ctx, &target{dir: r.root, existed: true}, n.entry, "", 0)
		}
		name, err := n.name()
		if err != nil {
			return err
		}
		return r.one(ctx, &target{dir: r.root, existed: true}, n, name, name, 0)
	})
	return group.Wait()
}

// target is a folder that is written to.
type target struct {
	*dir
	existed  bool // before this restore
	inherits bool // new files get attributes by themselves, from a default ACL
}

func (r *restoreRun) tick(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.ticks.due(0, func() {
		if r.Progress != nil {
			r.Progress(r.counts.now())
		}
	})
	return nil
}

// folder restores what is in a folder, then what it itself is. Its error is fatal.
func (r *restoreRun) folder(ctx context.Context, t *target, e *snapshot.DirEntry, path string, depth int) error {
	if depth >= maxDepth {
		r.remarks.add(Failed, path, fmt.Sprintf("it is more than %d folders deep", maxDepth))
		return nil
	}
	in, err := openFolder(ctx, r.repo, e.ObjectID)
	if err != nil {
		return r.notRead(ctx, path, err)
	}
	defer in.close()
	r.unreadable.Store(0)
	t.inherits = r.hasDefaultACL(t)
	extra, err := r.extras(t, path)
	if err != nil {
		return err
	}
	complete, err := r.children(ctx, t, in, extra, path, depth)
	if err != nil {
		return err
	}
	if complete {
		r.deleteExtras(t, extra, path)
	}
	if !t.existed || r.Overwrite != OverwriteNever {
		r.applyFolder(t, &node{entry: e, rec: in.self}, path)
	}
	r.counts.folders.Add(1)
	return nil
}

// children restores the entries of a folder. It is not complete where the copy is damaged.
func (r *restoreRun) children(ctx context.Context, t *target, in *folderReader, extra *extras, path string, depth int) (complete bool, err error) {
	var wait sync.WaitGroup
	defer wait.Wait() // they use the folder's descriptor
	for {
		if err := r.tick(ctx); err != nil {
			return false, err
		}
		n, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, r.notRead(ctx, path, err)
		}
		name, err := n.name()
		if err != nil {
			r.remarks.add(Failed, path, err.Error())
			continue
		}
		extra.keep(name)
		at := joinPath(path, name)
		wait.Add(1)
		work := func() error {
			defer wait.Done()
			return r.one(ctx, t, &n, name, at, depth)
		}
		if !r.group.TryGo(work) {
			if err := work(); err != nil {
				return false, err
			}
		}
	}
	wait.Wait()
	return true, ctx.Err()
}

// one restores one entry of a folder. Its error is fatal.
func (r *restoreRun) one(ctx context.Context, t *target, n *node, name, path string, depth int) error {
	var err error
	switch kind := n.kind(); kind {
	case TypeFolder:
		return r.subfolder(ctx, t, n, name, path, depth)
	case TypeFile, TypeSymlink, TypeFIFO:
		err = r.leaf(ctx, t, n, name, path)
	case TypeChar, TypeBlock:
		if r.NoDevices {
			r.remarks.add(Skipped, path, "it is a device")
			return nil
		}
		err = r.leaf(ctx, t, n, name, path)
	default:
		r.remarks.add(Failed, path, fmt.Sprintf("it is of the unknown type %q", kind))
	}
	return r.failed(ctx, path, err)
}

// failed tells errors that are of one path, which become remarks, from those that are of all.
func (r *restoreRun) failed(ctx context.Context, path string, err error) error {
	if err == nil {
		return nil
	}
	if read, ok := errors.AsType[*unreadable](err); ok {
		return r.notRead(ctx, path, read.error)
	}
	for _, all := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, all) {
			return fmt.Errorf("write %q: %w", path, err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.remarks.add(Failed, path, err.Error())
	return nil
}

// notRead is for what the repository did not give. Many in a row mean that it gives nothing.
func (r *restoreRun) notRead(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.remarks.add(Failed, path, err.Error())
	if r.unreadable.Add(1) > maxUnreadable {
		return fmt.Errorf("read repository: more than %d files in a row cannot be read, the last one: %w", maxUnreadable, err)
	}
	return nil
}

// subfolder makes a folder, or takes the one that is there, and restores it.
func (r *restoreRun) subfolder(ctx context.Context, t *target, n *node, name, path string, depth int) error {
	sub, err := r.enter(t, name, path)
	if err != nil {
		return r.failed(ctx, path, err)
	}
	if sub == nil {
		return nil
	}
	defer sub.close()
	return r.folder(ctx, sub, n.entry, path, depth+1)
}

// enter gives nil where what is there must stay.
func (r *restoreRun) enter(t *target, name, path string) (*target, error) {
	existed := false
	err := unix.Mkdirat(t.fd, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := t.lstat(name, &st); err != nil {
			return nil, err
		}
		existed = st.Mode&unix.S_IFMT == unix.S_IFDIR
		switch {
		case existed:
			err = nil
		case r.Overwrite == OverwriteNever:
			r.remarks.add(Kept, path, kindOf(st.Mode)+" is where the copy has a folder")
			return nil, nil
		default:
			if err := unix.Unlinkat(t.fd, name, 0); err != nil {
				return nil, fmt.Errorf("replace %s: %w", kindOf(st.Mode), err)
			}
			err = unix.Mkdirat(t.fd, name, 0o700)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	d, err := t.open(name)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	var st unix.Stat_t
	if err := d.stat(&st); err != nil || st.Dev != r.device {
		d.close()
		if err == nil {
			r.remarks.add(Kept, path, "another file system is mounted here")
		}
		return nil, err
	}
	return &target{dir: d, existed: existed}, nil
}

// extras are the names in a folder of the target, to find those that are not in the copy.
type extras struct {
	names []string // sorted
	kept  []bool
}

// extras is nil where nothing is to be deleted.
func (r *restoreRun) extras(t *target, path string) (*extras, error) {
	if !r.DeleteExtra || !t.existed {
		return nil, nil
	}
	x := &extras{}
	err := t.list(func(name string, isDir bool) error {
		if path != "" || name != "lost+found" || !isDir {
			x.names = append(x.names, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", path, err)
	}
	slices.Sort(x.names)
	x.kept = make([]bool, len(x.names))
	return x, nil
}

func (x *extras) keep(name string) {
	if x == nil {
		return
	}
	if i, ok := slices.BinarySearch(x.names, name); ok {
		x.kept[i] = true
	}
}

// deleteExtras removes what was not kept.
func (r *restoreRun) deleteExtras(t *target, x *extras, path string) {
	if x == nil {
		return
	}
	for i, name := range x.names {
		if x.kept[i] {
			continue
		}
		err := r.remove(t.dir, name, 0)
		switch {
		case err == nil:
			r.counts.deleted.Add(1)
		case !errors.Is(err, unix.ENOENT):
			r.remarks.add(Failed, joinPath(path, name), fmt.Sprintf("delete: %v", err))
		}
	}
}

// remove deletes an entry with all that is below, on this file system.
func (r *restoreRun) remove(d *dir, name string, depth int) error {
	err := unix.Unlinkat(d.fd, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	sub, openErr := d.open(name)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer sub.close()
	var st unix.Stat_t
	if err := sub.stat(&st); err != nil {
		return err
	}
	if st.Dev != r.device || depth >= maxDepth {
		return unix.EBUSY
	}
	var names []string
	if err := sub.list(func(name string, _ bool) error { names = append(names, name); return nil }); err != nil {
		return err
	}
	for _, n := range names {
		if err := r.remove(sub, n, depth+1); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
}
