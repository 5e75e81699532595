package files

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/kopia/kopia/fs/localfs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/policy"
	"github.com/kopia/kopia/snapshot/upload"
)

// TestCopyIsKopias copies a plain tree with Kedge and with kopia's own uploader: the objects must be the same ones.
func TestCopyIsKopias(t *testing.T) {
	r := newRepo(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "one")
	writeFile(t, filepath.Join(dir, "b<&>\u2028é"), "two")
	for i := range 40 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("sub%d", i%3), fmt.Sprintf("file%d", i)), fmt.Sprint("content", i))
	}
	got := r.copyTree(t, newCopier(t), dir)
	if got.ReadFiles != 42 || got.Files != 42 || got.Folders != 4 || len(got.Remarks) != 0 {
		t.Errorf("copied %+v", got)
	}

	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(wctx) }()
	entry, err := localfs.NewEntry(dir)
	if err != nil {
		t.Fatal(err)
	}
	u := upload.NewUploader(w)
	want, err := u.Upload(wctx, entry, kopiaPolicy(), snapshot.SourceInfo{Host: "test", UserName: "kopia", Path: "/volume"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Manifest.RootEntry.ObjectID != want.RootEntry.ObjectID {
		a, _ := json.Marshal(got.Manifest.RootEntry)
		b, _ := json.Marshal(want.RootEntry)
		t.Errorf("stored %s, kopia stores %s", a, b)
	}
}

// kopiaPolicy has the settings that a Copier has.
func kopiaPolicy() *policy.Tree {
	p := *policy.DefaultPolicy
	p.CompressionPolicy.CompressorName = defaultCompression
	return policy.BuildTree(nil, &p)
}
