package volumes_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

// TestVerifyCopiesOfFiles: a copy of files is read to the last byte, and damage is told of its claim.
func TestVerifyCopiesOfFiles(t *testing.T) {
	clock := repositorytest.NewClock(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	store := repositorytest.NewStore(clock.Now)
	open := func(ctx context.Context) (*repository.Repository, error) {
		return repository.OpenOrCreate(ctx, store, "a password for tests", repository.CreateOptions{}, repository.Options{Now: clock.Now})
	}
	repo, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat("content ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	copier := files.Copier{SpoolDir: t.TempDir()}
	res, err := copier.CopyVolume(t.Context(), repo, repository.Volume{Cluster: "c", Provider: "efs", Handle: "fs-1"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := []archive.Volume{
		{Namespace: "shop", Claim: "uploads", CopyID: res.Copy.ID, CopyKind: files.Kind},
		{Namespace: "shop", Claim: "gone", CopyID: "0123456789abcdef0123456789abcdef", CopyKind: files.Kind},
	}
	problems, err := volumes.VerifyCopies(t.Context(), rows[:1], open)
	if err != nil || len(problems) > 0 {
		t.Fatalf("verified a good copy: %v, %v", problems, err)
	}
	for _, key := range store.Keys("volumes/p") {
		store.Drop(key)
	}
	problems, err = volumes.VerifyCopies(t.Context(), rows, open)
	if err != nil || len(problems) != 2 || problems[0].File != "volume of claim shop/gone" || problems[1].File != "volume of claim shop/uploads" ||
		!strings.Contains(problems[1].Message, `"file"`) {
		t.Errorf("verified a damaged one: %+v, %v", problems, err)
	}
}
