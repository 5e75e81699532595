package files

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/snapshot"
)

// testRepo is a kopia repository on the file system. Its clock runs an hour ahead, so that files which a test has just
// made are not taken for ones that may change within the same tick.
type testRepo struct {
	repo.Repository
	ctx context.Context
}

func newRepo(t testing.TB) *testRepo {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	st, err := filesystem.New(ctx, &filesystem.Options{Path: store}, true)
	if err != nil {
		t.Fatal(err)
	}
	const password = "only-for-this-test"
	if err := repo.Initialize(ctx, st, nil, password); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := repo.Connect(ctx, config, st, password, nil); err != nil {
		t.Fatal(err)
	}
	rep, err := repo.Open(ctx, config, password, &repo.Options{TimeNowFunc: func() time.Time { return time.Now().Add(time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rep.Close(ctx) })
	return &testRepo{Repository: rep, ctx: ctx}
}

var testSource = snapshot.SourceInfo{Host: "test", UserName: "kedge", Path: "/volume"}

// copyTree copies with the earlier snapshots of the repository as its base.
func (r *testRepo) copyTree(t testing.TB, c *Copier, dir string) *CopyResult {
	t.Helper()
	res, err := r.tryCopy(r.ctx, t, c, dir)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (r *testRepo) tryCopy(ctx context.Context, t testing.TB, c *Copier, dir string) (*CopyResult, error) {
	t.Helper()
	prev, err := snapshot.FindPreviousManifests(r.ctx, r, testSource, nil)
	if err != nil {
		t.Fatal(err)
	}
	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(wctx) }()
	return c.Copy(ctx, w, CopyRequest{Dir: dir, Source: testSource, Previous: prev})
}

func newCopier(t testing.TB) *Copier {
	t.Helper()
	return &Copier{SpoolDir: t.TempDir()}
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
