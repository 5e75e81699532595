package files

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs the calling test again as a user without rights, if it runs as root, and says whether this is that run.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	// The test's own binary is where only root may come.
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	binary := filepath.Join(dir, "test")
	in, err := os.Open("/proc/self/exe")
	must(t, err)
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Env = []string{"PATH=/bin", "HOME=/nonexistent"}
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "--- PASS: "+t.Name()) {
		t.Fatalf("as nobody: %v\n%s", err, text)
	}
	return false
}

// TestUnreadable: what cannot be read is named, counted in the snapshot as kopia does, and not fatal.
func TestUnreadable(t *testing.T) {
	if !asNobody(t) {
		return
	}
	r, c, dir := newRepo(t), newCopier(t), t.TempDir()
	writeFile(t, filepath.Join(dir, "secret"), "x")
	writeFile(t, filepath.Join(dir, "folder/inside"), "x")
	writeFile(t, filepath.Join(dir, "fine"), "x")
	must(t, os.Chmod(filepath.Join(dir, "secret"), 0))
	must(t, os.Chmod(filepath.Join(dir, "folder"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "folder"), 0o700) })
	res := r.copyTree(t, c, dir)
	if res.Counts[Unreadable] != 2 || res.Manifest.RootEntry.DirSummary.FatalErrorCount != 2 || res.Files != 1 {
		t.Errorf("copied %+v", res)
	}
	if failed := res.Manifest.RootEntry.DirSummary.FailedEntries; len(failed) != 2 {
		t.Errorf("the snapshot names %v", failed)
	}
	if again := r.copyTree(t, c, dir); again.Counts[Unreadable] != 2 || again.Manifest.RootEntry.ObjectID != res.Manifest.RootEntry.ObjectID {
		t.Errorf("copied again: %+v", again)
	}
}

// TestWithoutRights: a user who may not read others' attributes or keep access times copies and restores what is their own.
func TestWithoutRights(t *testing.T) {
	if !asNobody(t) {
		return
	}
	r, target := newRepo(t), t.TempDir()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), "content")
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	res := r.copyTree(t, newCopier(t), dir)
	got := r.restoreTree(t, newRestorer(t), res, target)
	if len(res.Remarks)+len(got.Remarks) > 0 {
		t.Errorf("own files: %v, %v", res.Remarks, got.Remarks)
	}
	compareTrees(t, treeState(t, dir), treeState(t, target))

	// The kernel's files are root's: their content can be read, their owner not be given.
	res = r.copyTree(t, newCopier(t), "/proc/sys/kernel/random")
	foreign := t.TempDir()
	t.Cleanup(func() { _ = os.Chmod(foreign, 0o700) }) // it is as read-only as the kernel's
	got = r.restoreTree(t, newRestorer(t), res, foreign)
	if got.Counts[Lost] == 0 || got.Counts[Failed] > 0 {
		t.Errorf("files of root: %+v", got)
	}
}
