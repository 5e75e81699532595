package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

// countingRepo counts what is written.
type countingRepo struct {
	repo.RepositoryWriter
	objects atomic.Int64
	hook    func(object.WriterOptions)
}

func (c *countingRepo) NewObjectWriter(ctx context.Context, opt object.WriterOptions) object.Writer {
	c.objects.Add(1)
	if c.hook != nil {
		c.hook(opt)
	}
	return c.RepositoryWriter.NewObjectWriter(ctx, opt)
}

// copyVia copies through a writer that the test wraps.
func (r *testRepo) copyVia(ctx context.Context, t testing.TB, c *Copier, w *countingRepo, dir string) (*CopyResult, error) {
	t.Helper()
	return r.copyAs(ctx, t, c, w, dir, testSource)
}

func (r *testRepo) copyAs(ctx context.Context, t testing.TB, c *Copier, w *countingRepo, dir string, source snapshot.SourceInfo) (*CopyResult, error) {
	t.Helper()
	prev, err := snapshot.FindPreviousManifests(r.ctx, r, source, nil)
	must(t, err)
	wctx, rw, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	must(t, err)
	defer func() { _ = rw.Close(wctx) }()
	w.RepositoryWriter = rw
	return c.Copy(ctx, w, CopyRequest{Dir: dir, Source: source, Previous: prev})
}

func grove(t testing.TB, dir string, files int) {
	t.Helper()
	for i := range files {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d", i%7, i%3, i)), fmt.Sprint("content of ", i))
	}
}

// TestUnchanged: of an unchanged tree nothing is read, and nothing is written.
func TestUnchanged(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	grove(t, dir, 100)
	r.copyTree(t, c, dir)
	w := &countingRepo{}
	res, err := r.copyVia(r.ctx, t, c, w, dir)
	must(t, err)
	if res.Files != 100 || res.ReadFiles != 0 || res.ReadBytes != 0 || w.objects.Load() != 0 {
		t.Errorf("of an unchanged tree %d files with %d bytes were read and %d objects written: %+v", res.ReadFiles, res.ReadBytes, w.objects.Load(), res)
	}
}

// TestOneChange: one file of many is read, and only the folders above it are written.
func TestOneChange(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	grove(t, dir, 100)
	first := r.copyTree(t, c, dir)
	writeFile(t, filepath.Join(dir, "d3/e0/f3"), "something else")
	w := &countingRepo{}
	res, err := r.copyVia(r.ctx, t, c, w, dir)
	must(t, err)
	if res.ReadFiles != 1 || w.objects.Load() != 4 {
		t.Errorf("%d files were read and %d objects written, want 1 and 4", res.ReadFiles, w.objects.Load())
	}
	if first.Manifest.RootEntry.ObjectID == res.Manifest.RootEntry.ObjectID {
		t.Error("the copy did not change")
	}
}

// TestRacy: a file that was written to while it was copied is read again, though its time and size are the same.
func TestRacy(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	path := filepath.Join(dir, "file")
	writeFile(t, path, "first")
	same := time.Now().Add(time.Hour) // the repository's now
	must(t, os.Chtimes(path, same, same))
	r.copyTree(t, c, dir)
	writeFile(t, path, "other")
	must(t, os.Chtimes(path, same, same))
	res := r.copyTree(t, c, dir)
	if res.ReadFiles != 1 {
		t.Errorf("%d files were read again, want 1", res.ReadFiles)
	}
	target := t.TempDir()
	r.restoreTree(t, newRestorer(t), res, target)
	compareTrees(t, treeState(t, dir), treeState(t, target))
}

// TestHardLinksAreReadOnce, in a tree larger than the table's first size.
func TestHardLinksAreReadOnce(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	const groups = firstSlots
	for i := range groups {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("a/%d", i)), fmt.Sprint(i))
		must(t, os.MkdirAll(filepath.Join(dir, "b"), 0o755))
		must(t, os.Link(filepath.Join(dir, fmt.Sprintf("a/%d", i)), filepath.Join(dir, fmt.Sprintf("b/%d", i))))
	}
	res := r.copyTree(t, c, dir)
	if res.ReadFiles != groups || res.Files != 2*groups {
		t.Errorf("read %d of %d files", res.ReadFiles, res.Files)
	}
	target := t.TempDir()
	r.restoreTree(t, newRestorer(t), res, target)
	compareTrees(t, treeState(t, dir), treeState(t, target))
}

// TestChangesWhileCopied: files that vanish, change or are replaced while they are copied are named, and the rest is copied.
func TestChangesWhileCopied(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	c.Parallel = 1
	for _, name := range []string{"a", "gone", "replaced", "x/y", "z"} {
		writeFile(t, filepath.Join(dir, name), "content of "+name)
	}
	writes := 0
	w := &countingRepo{hook: func(opt object.WriterOptions) {
		switch writes++; {
		case writes == 1: // the first file of x, before the root's files
			must(t, os.Remove(filepath.Join(dir, "gone")))
			must(t, os.Remove(filepath.Join(dir, "replaced")))
			must(t, os.Mkdir(filepath.Join(dir, "replaced"), 0o755))
		case opt.Description == "FILE" && writes > 2: // a and z, while they are open
			for _, name := range []string{"z"} {
				must(t, os.Chtimes(filepath.Join(dir, name), time.Unix(int64(writes), 0), time.Unix(int64(writes), 0)))
			}
		}
	}}
	res, err := r.copyVia(r.ctx, t, c, w, dir)
	must(t, err)
	got := map[string]RemarkKind{}
	for _, m := range res.Remarks {
		got[m.Path] = m.Kind
	}
	for path, want := range map[string]RemarkKind{"gone": Vanished, "replaced": Changed, "z": Changed} {
		if got[path] != want {
			t.Errorf("%q is %q, want %q (%v)", path, got[path], want, res.Remarks)
		}
	}
	if res.Counts[Changed] != 2 || res.Counts[Vanished] != 1 || res.Files != 3 {
		t.Errorf("copied %+v", res)
	}
}

// TestRemarksAreBounded: all are counted, the first ones listed.
func TestRemarksAreBounded(t *testing.T) {
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	const sockets = maxRemarks + 50
	for i := range sockets {
		must(t, unix.Mknod(filepath.Join(dir, fmt.Sprint(i)), unix.S_IFSOCK|0o600, 0))
	}
	told := 0
	c.Remark = func(Remark) { told++ }
	res := r.copyTree(t, c, dir)
	if len(res.Remarks) != maxRemarks || res.Counts[Skipped] != sockets || told != sockets {
		t.Errorf("%d remarks listed, %d counted, %d told", len(res.Remarks), res.Counts[Skipped], told)
	}
}

// TestNoRoot: without the tree there is no snapshot.
func TestNoRoot(t *testing.T) {
	r := newRepo(t)
	if _, err := r.tryCopy(r.ctx, t, newCopier(t), filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}

// TestRefused: what could not be saved at the end is refused at the beginning.
func TestRefused(t *testing.T) {
	r := newRepo(t)
	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	must(t, err)
	defer func() { _ = w.Close(wctx) }()
	for name, req := range map[string]CopyRequest{
		"no source": {},
		"no path":   {Source: snapshot.SourceInfo{Host: "h", UserName: "u"}},
		"a label":   {Source: testSource, Tags: map[string]string{"hostname": "x"}},
	} {
		req.Dir = t.TempDir()
		if _, err := newCopier(t).Copy(r.ctx, w, req); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := (&Copier{SpoolDir: t.TempDir(), Compression: "best"}).Copy(r.ctx, w, CopyRequest{Dir: t.TempDir(), Source: testSource}); err == nil {
		t.Error("an unknown compression is taken")
	}
}
