package files

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// must is for the set-up of tests.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRestorer(t testing.TB) *Restorer {
	t.Helper()
	return &Restorer{SpoolDir: t.TempDir()}
}

func (r *testRepo) restoreTree(t testing.TB, s *Restorer, res *CopyResult, target string) *RestoreResult {
	t.Helper()
	got, err := s.Restore(r.ctx, r, RestoreRequest{Manifest: res.Manifest, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// everything makes a tree with one of each.
func everything(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, at("plain"), "hello")
	writeFile(t, at("empty"), "")
	writeFile(t, at("sub/deeper/file"), "deep")
	must(t, os.MkdirAll(at("empty folder"), 0o750))
	must(t, os.Symlink("../nowhere/\xff", at("link")))
	must(t, os.Link(at("plain"), at("sub/again")))
	must(t, os.Link(at("plain"), at("zz-again")))
	writeFile(t, at("suid"), "#!")
	must(t, unix.Chown(at("suid"), 12, 34))
	must(t, unix.Setxattr(at("suid"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Chmod(at("suid"), 0o6755))
	must(t, unix.Chmod(at("sub"), 0o1777))
	must(t, unix.Setxattr(at("plain"), "user.note", []byte("a\x00b"), 0))
	must(t, unix.Setxattr(at("empty"), "user.\xfe\xff", []byte("odd"), 0))
	must(t, unix.Setxattr(at("empty folder"), "trusted.mark", []byte("t"), 0))
	must(t, unix.Setxattr(at("sub/deeper"), accessACL, acl(0o7), 0))
	must(t, unix.Setxattr(at("sub/deeper"), defaultACL, acl(0o5), 0))
	must(t, unix.Mkfifo(at("fifo"), 0o640))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))))
	writeFile(t, at("caf\xe9"), "latin1")
	writeFile(t, at(strings.Repeat("\xe9", 255)), "long")
	writeFile(t, at(sidecarName), "a user's own")
	writeFile(t, at(storedName("caf\xe9")), "taken for another")
	writeFile(t, at("d\xff/inside"), "x")
	f, err := os.Create(at("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("end"), 3<<20)
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 1<<20)
	must(t, err)
	must(t, f.Truncate(5<<20))
	must(t, f.Close())
	old := []unix.Timespec{{Sec: 1, Nsec: 123456789}, {Sec: 1, Nsec: 123456789}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("sub"), old, unix.AT_SYMLINK_NOFOLLOW))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("link"), old, unix.AT_SYMLINK_NOFOLLOW))
	far := []unix.Timespec{{Sec: 9_500_000_000}, {Sec: 9_500_000_000, Nsec: 7}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("empty"), far, unix.AT_SYMLINK_NOFOLLOW))
}

// acl is a POSIX ACL as Linux keeps it: owner, user 77, group, mask, others.
func acl(perm byte) []byte {
	const none = "\xff\xff\xff\xff"
	p := string([]byte{perm, 0})
	return []byte("\x02\x00\x00\x00" + "\x01\x00\x07\x00" + none + "\x02\x00" + p + "\x4d\x00\x00\x00" +
		"\x04\x00" + p + none + "\x10\x00" + p + none + "\x20\x00\x00\x00" + none)
}

func TestEverything(t *testing.T) {
	needRoot(t)
	r := newRepo(t)
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "new")
	everything(t, dir)
	copied := r.copyTree(t, newCopier(t), dir)
	for _, m := range copied.Remarks {
		t.Errorf("remark on the copy: %+v", m)
	}
	got := r.restoreTree(t, newRestorer(t), copied, target)
	for _, m := range got.Remarks {
		t.Errorf("remark on the restore: %+v", m)
	}
	want := treeState(t, dir)
	compareTrees(t, want, treeState(t, target))
	if int(got.Files+got.Folders) != len(want) {
		t.Errorf("restored %d files and %d folders of %d", got.Files, got.Folders, len(want))
	}

	// Again: nothing is read, and nothing is written.
	again := r.copyTree(t, newCopier(t), dir)
	if again.ReadFiles != 1 || again.ReadBytes != 0 { // the empty file of the year 2271 has no time that tells
		t.Errorf("the second copy read %d files and %d bytes", again.ReadFiles, again.ReadBytes)
	}
	if again.Manifest.RootEntry.ObjectID != copied.Manifest.RootEntry.ObjectID {
		t.Error("the second copy is another")
	}
	got = r.restoreTree(t, newRestorer(t), again, target)
	if got.WrittenFiles != 0 || len(got.Remarks) != 0 {
		t.Errorf("the second restore: %+v", got)
	}
	compareTrees(t, want, treeState(t, target))
}

// TestRoundTrip copies and restores random trees; then changes them, copies again, and restores over what is there.
func TestRoundTrip(t *testing.T) {
	needRoot(t)
	r := newRepo(t)
	c, s := newCopier(t), newRestorer(t)
	s.DeleteExtra = true
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		base := filepath.Join(t.TempDir(), fmt.Sprint(n))
		dir, target := filepath.Join(base, "source"), filepath.Join(base, "target")
		must(t, os.MkdirAll(dir, 0o755))
		g := &grower{t: t, rt: rt, root: dir, folders: []string{dir}}
		for range rapid.IntRange(0, 25).Draw(rt, "entries") {
			g.grow()
		}
		first := r.copyTree(t, c, dir)
		r.restoreTree(t, s, first, target)
		if !compareTrees(t, treeState(t, dir), treeState(t, target)) {
			rt.Fatalf("the restored tree differs; remarks %v", first.Remarks)
		}
		for range rapid.IntRange(1, 8).Draw(rt, "changes") {
			g.change()
		}
		second := r.copyTree(t, c, dir)
		r.restoreTree(t, s, second, target)
		if !compareTrees(t, treeState(t, dir), treeState(t, target)) {
			rt.Fatalf("the tree restored over another differs; remarks %v", second.Remarks)
		}
		must(t, os.RemoveAll(base))
	})
}

// grower makes and changes a random tree.
type grower struct {
	t       testing.TB
	rt      *rapid.T
	root    string
	folders []string
	files   []string
	clock   int64 // no two changes have the same time, as a real clock's would not
}

func (g *grower) name() string {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"a", "b", "c.txt", ".hidden", sidecarName, reserved, "\xff", "caf\xe9", "é", " ", "-", "*", "\n", "\\", "\u2028", "<&>",
			strings.Repeat("x", 255), strings.Repeat("é", 127), strings.Repeat("\xe9", 255), partialName + "0"}),
		rapid.StringOfN(rapid.RuneFrom([]rune("abc€\"")), 1, 5, -1),
		rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 4), func(b []byte) string { return strings.ReplaceAll(string(b), "/", "_") }),
	).Filter(func(s string) bool { return s != "." && s != ".." }).Draw(g.rt, "name")
}

func (g *grower) grow() {
	path := filepath.Join(rapid.SampledFrom(g.folders).Draw(g.rt, "folder"), g.name())
	if _, err := os.Lstat(path); err == nil {
		return
	}
	switch kind := rapid.SampledFrom([]string{"file", "file", "folder", "folder", "symlink", "fifo", "device", "sparse", "link", "socket"}).Draw(g.rt, "kind"); kind {
	case "folder":
		must(g.t, os.Mkdir(path, 0o755))
		g.folders = append(g.folders, path)
	case "symlink":
		target := rapid.StringMatching(`[a-z./]{1,9}`).Draw(g.rt, "target")
		must(g.t, os.Symlink(target, path))
	case "fifo":
		must(g.t, unix.Mkfifo(path, 0o600))
	case "device":
		must(g.t, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(rapid.Uint32Range(0, 4000).Draw(g.rt, "major"), 5))))
	case "socket":
		must(g.t, unix.Mknod(path, unix.S_IFSOCK|0o600, 0))
	case "link":
		if len(g.files) == 0 {
			return
		}
		must(g.t, os.Link(rapid.SampledFrom(g.files).Draw(g.rt, "linked"), path))
		g.files = append(g.files, path)
	default:
		g.write(path, kind == "sparse")
		g.files = append(g.files, path)
	}
	g.adorn(path)
}

func (g *grower) write(path string, sparse bool) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	must(g.t, err)
	for range rapid.IntRange(0, 3).Draw(g.rt, "writes") {
		var at int64
		if sparse {
			at = 4096 * rapid.Int64Range(0, 300).Draw(g.rt, "at")
		}
		_, err := f.WriteAt(rapid.SliceOfN(rapid.Byte(), 1, 9000).Draw(g.rt, "content"), at)
		must(g.t, err)
	}
	if sparse {
		must(g.t, f.Truncate(4096*310))
	}
	must(g.t, f.Close())
}

// adorn sets what is no content. The time comes last, and is never one that was there.
func (g *grower) adorn(path string) {
	var st unix.Stat_t
	must(g.t, unix.Lstat(path, &st))
	must(g.t, unix.Lchown(path, rapid.IntRange(0, 3).Draw(g.rt, "uid"), rapid.IntRange(0, 3).Draw(g.rt, "gid")))
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFLNK {
		if kind == unix.S_IFREG || kind == unix.S_IFDIR {
			for range rapid.IntRange(0, 2).Draw(g.rt, "attributes") {
				name := rapid.SampledFrom([]string{"user.a", "user.b", "user.\xff", "trusted.x"}).Draw(g.rt, "attribute")
				must(g.t, unix.Setxattr(path, name, rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(g.rt, "value"), 0))
			}
			if rapid.IntRange(0, 4).Draw(g.rt, "acl") == 0 {
				must(g.t, unix.Setxattr(path, accessACL, acl(rapid.ByteRange(0, 7).Draw(g.rt, "perm")), 0))
			}
			if kind == unix.S_IFDIR && rapid.IntRange(0, 3).Draw(g.rt, "default acl") == 0 {
				must(g.t, unix.Setxattr(path, defaultACL, acl(rapid.ByteRange(0, 7).Draw(g.rt, "perm")), 0))
			}
		}
		must(g.t, unix.Chmod(path, rapid.Uint32Range(0, 0o7777).Draw(g.rt, "mode")))
	}
	g.clock++
	ts := unix.Timespec{Sec: rapid.Int64Range(-5, 10_000_000_000).Draw(g.rt, "seconds"), Nsec: g.clock}
	must(g.t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// change does something to the tree.
func (g *grower) change() {
	switch rapid.SampledFrom([]string{"grow", "write", "adorn", "remove", "replace"}).Draw(g.rt, "change") {
	case "grow":
		g.grow()
	case "write":
		if len(g.files) > 0 {
			path := rapid.SampledFrom(g.files).Draw(g.rt, "file")
			g.write(path, rapid.Bool().Draw(g.rt, "sparse"))
			g.adorn(path)
		}
	case "adorn":
		path := rapid.SampledFrom(append(g.files, g.folders...)).Draw(g.rt, "path")
		g.adorn(path)
	case "remove":
		if len(g.files) > 0 {
			g.removeFile(rapid.IntRange(0, len(g.files)-1).Draw(g.rt, "file"))
		}
	case "replace": // a file by a folder of its name
		if len(g.files) > 0 {
			path := g.removeFile(rapid.IntRange(0, len(g.files)-1).Draw(g.rt, "file"))
			must(g.t, os.Mkdir(path, 0o755))
			g.folders = append(g.folders, path)
			g.grow()
		}
	}
}

func (g *grower) removeFile(i int) string {
	path := g.files[i]
	must(g.t, os.Remove(path))
	g.files = append(g.files[:i:i], g.files[i+1:]...)
	return path
}
