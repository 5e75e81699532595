package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

// TestPart restores single folders and files.
func TestPart(t *testing.T) {
	needRoot(t)
	r, dir := newRepo(t), t.TempDir()
	everything(t, dir)
	res := r.copyTree(t, newCopier(t), dir)
	for _, path := range []string{"sub", "/sub/deeper/", "empty folder", "d\xff"} {
		target := filepath.Join(t.TempDir(), "t")
		_, err := newRestorer(t).Restore(r.ctx, r, RestoreRequest{Manifest: res.Manifest, Path: path, Target: target})
		must(t, err)
		want, got := treeState(t, filepath.Join(dir, path)), treeState(t, target)
		if path == "sub" { // of the three names of that file, one is here
			delete(want, "again")
			delete(got, "again")
		}
		compareTrees(t, want, got)
	}
	for _, path := range []string{"plain", "caf\xe9", "sub/deeper/file", "link", "fifo", sidecarName} {
		target := t.TempDir()
		_, err := newRestorer(t).Restore(r.ctx, r, RestoreRequest{Manifest: res.Manifest, Path: path, Target: target})
		must(t, err)
		name := filepath.Base(path)
		if _, err := os.Lstat(filepath.Join(target, name)); err != nil {
			t.Errorf("restore of %q: %v", path, err)
		}
	}
	for _, path := range []string{"nothing", "plain/x", "../etc", "sub/../plain"} {
		if _, err := newRestorer(t).Restore(r.ctx, r, RestoreRequest{Manifest: res.Manifest, Path: path, Target: t.TempDir()}); err == nil {
			t.Errorf("%q can be restored", path)
		}
	}
}

// TestOverwrite restores over files that are there.
func TestOverwrite(t *testing.T) {
	r, dir := newRepo(t), t.TempDir()
	old := time.Unix(1_000_000_000, 5)
	writeFile(t, filepath.Join(dir, "file"), "copied")
	must(t, os.Chtimes(filepath.Join(dir, "file"), old, old))
	res := r.copyTree(t, newCopier(t), dir)
	for _, c := range []struct {
		policy  Overwrite
		content string
		time    time.Time
		want    string
	}{
		{OverwriteChanged, "there", old, "copied"},                       // another size
		{OverwriteChanged, "THERE!", old.Add(time.Nanosecond), "copied"}, // another time
		{OverwriteChanged, "THERE!", old, "THERE!"},                      // taken for the same
		{OverwriteAlways, "THERE!", old, "copied"},
		{OverwriteOlder, "there", old.Add(-1), "copied"},
		{OverwriteOlder, "there", old.Add(1), "there"},
		{OverwriteNever, "there", old.Add(-1), "there"},
	} {
		target := t.TempDir()
		path := filepath.Join(target, "file")
		writeFile(t, path, c.content)
		must(t, os.Chtimes(path, c.time, c.time))
		s := newRestorer(t)
		s.Overwrite = c.policy
		got := r.restoreTree(t, s, res, target)
		content, err := os.ReadFile(path)
		must(t, err)
		if string(content) != c.want {
			t.Errorf("policy %q over %q of %v gives %q, want %q", c.policy, c.content, c.time, content, c.want)
		}
		kept := c.policy == OverwriteNever || (c.policy == OverwriteOlder && c.want == "there")
		if (got.Counts[Kept] == 1) != kept {
			t.Errorf("policy %q over %q of %v remarks %v", c.policy, c.content, c.time, got.Remarks)
		}
	}
}

// TestDeleteExtra removes what is not in the copy, whatever it is, and only if asked to.
func TestDeleteExtra(t *testing.T) {
	r, dir, target := newRepo(t), t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(dir, "keep/file"), "x")
	writeFile(t, filepath.Join(dir, "was folder"), "x")
	res := r.copyTree(t, newCopier(t), dir)
	writeFile(t, filepath.Join(target, "keep/extra"), "x")
	writeFile(t, filepath.Join(target, "extra/deep/er"), "x")
	writeFile(t, filepath.Join(target, "lost+found/chunk"), "x")
	writeFile(t, filepath.Join(target, "was folder/inside"), "x")
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "precious"), "x")
	must(t, os.Symlink(outside, filepath.Join(target, "link")))
	must(t, os.Symlink(outside, filepath.Join(target, "extra/link")))

	got := r.restoreTree(t, newRestorer(t), res, target)
	if got.Deleted != 0 || got.Counts[Failed] != 1 {
		t.Errorf("without DeleteExtra: %+v", got)
	}
	s := newRestorer(t)
	s.DeleteExtra = true
	got = r.restoreTree(t, s, res, target)
	if got.Deleted != 3 || len(got.Remarks) != 0 {
		t.Errorf("with DeleteExtra: %+v", got)
	}
	state := treeState(t, target)
	if len(state) != 6 || state["lost+found/chunk"] == "" {
		t.Errorf("with DeleteExtra there is %v", state)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Errorf("what a symbolic link leads to: %v", err)
	}
}

// TestSymlinksInTheTarget are never followed.
func TestSymlinksInTheTarget(t *testing.T) {
	r, dir, target, outside := newRepo(t), t.TempDir(), t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(dir, "folder/file"), "copied")
	writeFile(t, filepath.Join(dir, "plain"), "copied")
	res := r.copyTree(t, newCopier(t), dir)
	writeFile(t, filepath.Join(outside, "precious"), "x")
	must(t, os.Chmod(outside, 0o700))
	must(t, os.Symlink(outside, filepath.Join(target, "folder")))
	must(t, os.Symlink(filepath.Join(outside, "precious"), filepath.Join(target, "plain")))
	must(t, os.Symlink(filepath.Join(outside, "precious"), filepath.Join(target, partOf("plain"))))
	before := treeState(t, outside)
	r.restoreTree(t, newRestorer(t), res, target)
	compareTrees(t, before, treeState(t, outside))
	if b, err := os.ReadFile(filepath.Join(target, "folder/file")); err != nil || string(b) != "copied" {
		t.Errorf("restored %q, %v", b, err)
	}
}

// TestExistingLinksAreBroken: a file of the target that shares its inode with one outside is replaced, not written to.
func TestExistingLinksAreBroken(t *testing.T) {
	r, dir := newRepo(t), t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), "copied")
	res := r.copyTree(t, newCopier(t), dir)
	base := t.TempDir()
	target, outside := filepath.Join(base, "target"), filepath.Join(base, "outside")
	writeFile(t, outside, "precious")
	must(t, os.Mkdir(target, 0o755))
	must(t, os.Link(outside, filepath.Join(target, "file")))
	r.restoreTree(t, newRestorer(t), res, target)
	if b, err := os.ReadFile(outside); err != nil || string(b) != "precious" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	compareTrees(t, treeState(t, dir), treeState(t, target))
}

// TestHostileCopies restores folders that no copy would have written.
func TestHostileCopies(t *testing.T) {
	r := newRepo(t)
	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	must(t, err)
	defer func() { _ = w.Close(wctx) }()
	put := func(prefix content.IDPrefix, text string) object.ID {
		o := w.NewObjectWriter(wctx, object.WriterOptions{Prefix: prefix})
		defer func() { _ = o.Close() }()
		_, err := o.Write([]byte(text))
		must(t, err)
		id, err := o.Result()
		must(t, err)
		return id
	}
	file := put("", "evil").String()
	link := put("", "/tmp").String()
	entry := func(name, kind, id string) string {
		b, err := json.Marshal(name)
		must(t, err)
		return `{"name":` + string(b) + `,"type":"` + kind + `","mode":"0644","size":4,"obj":"` + id + `"}`
	}
	folder := func(entries string) string {
		return `{"stream":"kopia:directory","entries":[` + entries + `],"summary":null}`
	}
	inner := put("k", folder(entry("f", "f", file))).String()
	sidecar := func(lines string) string { return entry(sidecarName, "f", put("", lines).String()) }
	for name, dir := range map[string]string{
		"parent":            folder(entry("..", "d", inner)),
		"self":              folder(entry(".", "d", inner)),
		"empty name":        folder(entry("", "f", file)),
		"slash":             folder(entry("../x", "f", file)),
		"absolute":          folder(entry("/x", "f", file)),
		"twice":             folder(entry("a", "f", file) + "," + entry("a", "f", file)),
		"out of order":      folder(entry("b", "f", file) + "," + entry("a", "f", file)),
		"link then folder":  folder(entry("a", "s", link) + "," + entry("a", "d", inner)),
		"no stream":         `{"entries":[` + entry("a", "f", file) + `],"summary":null}`,
		"cut":               folder(entry("a", "f", file))[:60],
		"not JSON":          "\x00\x01",
		"unknown type":      folder(entry("a", "x", file)),
		"missing object":    folder(entry("a", "f", "0123456789abcdef0123456789abcdef")),
		"raw name of other": folder(sidecar("{\"kedgeSidecar\":1}\n{\"n\":\"a\",\"raw\":\"Li4=\"}\n") + "," + entry("a", "f", file)),
		"no sidecar":        folder(sidecar("") + "," + entry("a", "f", file)),
		"newer sidecar":     folder(sidecar("{\"kedgeSidecar\":2}\n") + "," + entry("a", "f", file)),
		"record of nothing": folder(sidecar("{\"kedgeSidecar\":1}\n{\"n\":\"b\",\"sparse\":true}\n") + "," + entry("a", "f", file)),
		"special and file":  folder(sidecar("{\"kedgeSidecar\":1}\n{\"n\":\"a\",\"s\":{\"t\":\"fifo\",\"m\":420,\"mt\":{\"s\":1}}}\n") + "," + entry("a", "f", file)),
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			target := filepath.Join(base, "target")
			man := &snapshot.Manifest{RootEntry: &snapshot.DirEntry{Name: "/", Type: snapshot.EntryTypeDirectory, Permissions: 0o755, ObjectID: put("k", dir)}}
			// Unflushed content is visible through the writer only.
			res, err := newRestorer(t).Restore(r.ctx, w, RestoreRequest{Manifest: man, Target: target})
			if err == nil && res.Counts[Failed] == 0 {
				t.Errorf("restored without a remark: %v", treeState(t, target))
			}
			state := treeState(t, base)
			for _, harmless := range []string{".", "target", "target/a", "target/b"} {
				delete(state, harmless)
			}
			if len(state) > 0 {
				t.Errorf("restored %v", state)
			}
		})
	}
}

// TestDeep restores a path longer than the system's calls take at once.
func TestDeep(t *testing.T) {
	r, dir := newRepo(t), t.TempDir()
	d, err := openRoot(dir)
	must(t, err)
	const depth = 600
	name := "a folder whose name is long enough for that"
	for range depth {
		must(t, unix.Mkdirat(d.fd, name, 0o755))
		sub, err := d.open(name)
		must(t, err)
		d.close()
		d = sub
	}
	fd, err := openAt(d.fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	must(t, unix.Close(fd))
	d.close()
	res := r.copyTree(t, newCopier(t), dir)
	target := t.TempDir()
	got := r.restoreTree(t, newRestorer(t), res, target)
	if res.Folders != depth+1 || res.Files != 1 || got.Folders != depth+1 || got.Files != 1 || len(res.Remarks)+len(got.Remarks) > 0 {
		t.Errorf("copied %+v, restored %+v", res, got)
	}
}

// TestLargeFile is written in parts, by several workers.
func TestLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 140 MB")
	}
	r, dir, target := newRepo(t), t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(dir, "large"))
	must(t, err)
	for i := range int64(5) {
		_, err := f.WriteAt([]byte{byte(i + 1)}, i*partBytes+i*1000)
		must(t, err)
	}
	must(t, f.Truncate(4*partBytes+12345))
	must(t, f.Close())
	res := r.copyTree(t, newCopier(t), dir)
	got := r.restoreTree(t, newRestorer(t), res, target)
	if got.WrittenBytes > 10*block {
		t.Errorf("%d bytes were written of a file that is holes", got.WrittenBytes)
	}
	compareTrees(t, treeState(t, dir), treeState(t, target))
}

// TestRestoreStops when the repository gives nothing any more, instead of naming every file.
func TestRestoreStops(t *testing.T) {
	r, dir := newRepo(t), t.TempDir()
	for i := range 5 * maxUnreadable {
		writeFile(t, filepath.Join(dir, fmt.Sprint(i)), fmt.Sprint(i))
	}
	res := r.copyTree(t, newCopier(t), dir)
	gone := errors.New("the bucket is gone")
	broken := &brokenRepo{Repository: r, err: gone, after: 20}
	got, err := newRestorer(t).Restore(r.ctx, broken, RestoreRequest{Manifest: res.Manifest, Target: t.TempDir()})
	if !errors.Is(err, gone) {
		t.Errorf("the restore ends with %v, %+v", err, got)
	}
}

type brokenRepo struct {
	repo.Repository
	err   error
	after int64
	rr    readingRepo
}

func (b *brokenRepo) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	if b.rr.n.Add(1) > b.after {
		return nil, b.err
	}
	return b.Repository.OpenObject(ctx, id)
}
