package files

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// TestKopiaReads opens a copy with kopia's own packages, as its program does, and restores it with them.
func TestKopiaReads(t *testing.T) {
	needRoot(t)
	r := newRepo(t)
	dir := t.TempDir()
	everything(t, dir)
	res := r.copyTree(t, newCopier(t), dir)

	man, err := snapshot.LoadSnapshot(r.ctx, r, res.Manifest.ID)
	must(t, err)
	root, err := snapshotfs.SnapshotRoot(r, man)
	must(t, err)
	seen := map[string]string{}
	kopiaTree(r.ctx, t, root.(fs.Directory), "", seen)
	for path, want := range map[string]string{
		"plain": "hello", "sub/again": "hello", "zz-again": "hello", "sub/deeper/file": "deep", "empty": "",
		storedName("caf\xe9"): "latin1", storedName(sidecarName): "a user's own", "link": "../nowhere/\xff",
		storedName("d\xff") + "/inside": "x",
	} {
		if got, ok := seen[path]; !ok || got != want {
			t.Errorf("kopia reads %q as %q, want %q", path, got, want)
		}
	}

	target := t.TempDir()
	out := &restore.FilesystemOutput{TargetPath: target, OverwriteDirectories: true, OverwriteFiles: true, OverwriteSymlinks: true}
	must(t, out.Init(r.ctx))
	_, err = restore.Entry(r.ctx, r, out, root, restore.Options{Parallel: 2, RestoreDirEntryAtDepth: 1 << 30})
	must(t, err)
	want, got := treeState(t, filepath.Join(dir, "sub")), treeState(t, filepath.Join(target, "sub"))
	if want["deeper/file"] == "" || want["deeper/file"] != got["deeper/file"] {
		t.Errorf("kopia restores %q, was %q", got["deeper/file"], want["deeper/file"])
	}
	if _, err := os.Stat(filepath.Join(target, sidecarName)); err != nil {
		t.Errorf("the sidecar is a file for kopia: %v", err)
	}
}

func kopiaTree(ctx context.Context, t testing.TB, d fs.Directory, path string, seen map[string]string) {
	t.Helper()
	must(t, fs.IterateEntries(ctx, d, func(ctx context.Context, e fs.Entry) error {
		at := joinPath(path, e.Name())
		switch e := e.(type) {
		case fs.Directory:
			kopiaTree(ctx, t, e, at, seen)
		case fs.Symlink:
			target, err := e.Readlink(ctx)
			seen[at] = target
			return err
		case fs.File:
			in, err := e.Open(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			b, err := io.ReadAll(in)
			seen[at] = string(b)
			return err
		default:
			t.Errorf("kopia does not know %q: %T", at, e)
		}
		return nil
	}))
}
