package repository_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

var testNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

var errOtherKey = errors.New("sealed to another key")

// keys seal by writing a name before the secret.
func keys(name string) repository.Keys {
	return repository.Keys{
		Seal: func(plain []byte) ([]byte, error) { return append([]byte(name+":"), plain...), nil },
		Open: func(sealed []byte) ([]byte, error) {
			plain, ok := bytes.CutPrefix(sealed, []byte(name+":"))
			if !ok {
				return nil, errOtherKey
			}
			return plain, nil
		},
		Random: rand.Reader,
	}
}

func connect(t *testing.T, store plugins.ObjectStore, k repository.Keys, now func() time.Time) (*repository.Repository, error) {
	t.Helper()
	r, err := repository.Connect(t.Context(), store, k, repository.CreateOptions{}, repository.Options{Now: now})
	if err == nil {
		t.Cleanup(func() {
			if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
	return r, err
}

// source is a volume of some blocks that are all alike.
type source struct{ blocks []byte }

func (s source) SizeBytes() int64 { return 1 << 30 }
func (s source) Base() string     { return "" }
func (s source) Blocks(_ context.Context, fn func(plugins.Block) error) error {
	for i := range s.blocks {
		if err := fn(plugins.Block{Index: int64(i)}); err != nil {
			return err
		}
	}
	return nil
}

func (s source) ReadBlock(_ context.Context, b plugins.Block, buf []byte) (int, error) {
	for i := range buf {
		buf[i] = s.blocks[b.Index]
	}
	return len(buf), nil
}

func copyOne(t *testing.T, r *repository.Repository, handle string, b byte) repository.Copy {
	t.Helper()
	c, err := tryCopy(t.Context(), r, handle, b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryCopy(ctx context.Context, r *repository.Repository, handle string, b byte) (repository.Copy, error) {
	volume := repository.Volume{Cluster: "c", Provider: "ebs", Handle: handle}
	done, err := block.Copy(ctx, r, source{[]byte{b, b + 1}}, block.Request{Volume: volume, Snapshot: "snap-" + handle}, block.Options{})
	return done.Copy, err
}

// TestCreateAtOnce: many creators all work with the one repository that results, at once.
func TestCreateAtOnce(t *testing.T) {
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	const creators = 6
	repositories := make([]*repository.Repository, creators)
	var g errgroup.Group
	for i := range creators {
		g.Go(func() error {
			var err error
			repositories[i], err = connect(t, store, keys("k"), clock.Now)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := store.Keys(repository.KeyFolder); len(got) != 1 {
		t.Errorf("sealed passwords: %v", got)
	}
	made := make([]repository.Copy, creators)
	for i, r := range repositories {
		g.Go(func() error {
			var err error
			made[i], err = tryCopy(t.Context(), r, fmt.Sprintf("vol-%d", i), byte(i+1)) // neighbours share a block
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	later, err := connect(t, store, keys("k"), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	copies, err := later.Copies(t.Context(), repository.Filter{})
	if err != nil || len(copies) != creators {
		t.Fatalf("%d copies, %v", len(copies), err)
	}
	if damages, err := block.Verify(t.Context(), later, copies, block.Options{}); err != nil || len(damages) > 0 {
		t.Errorf("%v, %v", damages, err)
	}
	for _, c := range made {
		if _, err := later.Copy(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestCreateKilled: a creation that ends at any operation is finished by the next.
func TestCreateKilled(t *testing.T) {
	clock := repositorytest.NewClock(testNow)
	step := 5
	if os.Getenv("KEDGE_SOAK") != "" {
		step = 1
	}
	for n := 1; ; n += step {
		for _, stored := range []bool{false, true} {
			store := repositorytest.NewStore(clock.Now)
			store.DieAt(n, stored)
			_, err := connect(t, store, keys("k"), clock.Now)
			if err == nil {
				return // past the last
			}
			if !errors.Is(err, repositorytest.ErrDead) {
				t.Fatalf("died at %s: %v", store.Op(n), err)
			}
			r, err := connect(t, store.Clone(), keys("k"), clock.Now)
			if err != nil {
				t.Fatalf("after a death at %s: %v", store.Op(n), err)
			}
			copyOne(t, r, "vol-1", 1)
		}
	}
}

func TestPasswords(t *testing.T) {
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	if _, err := repository.Passwords(t.Context(), store, keys("k")); !errors.Is(err, repository.ErrNoPassword) {
		t.Errorf("passwords of an empty location: %v", err)
	}
	_, err := repository.Connect(t.Context(), store, keys("k"), repository.CreateOptions{}, repository.Options{Now: clock.Now, ReadOnly: true})
	if !errors.Is(err, repository.ErrNoPassword) || len(store.Keys("")) > 0 {
		t.Errorf("read only: %v, %v", err, store.Keys(""))
	}
	if _, err := connect(t, store, keys("k"), clock.Now); err != nil {
		t.Fatal(err)
	}
	passwords, err := repository.Passwords(t.Context(), store, keys("k"))
	if err != nil || len(passwords) != 1 || len(passwords[0]) != 43 {
		t.Fatalf("passwords: %d, %v", len(passwords), err)
	}
	// The location gets another key pair.
	if _, err := connect(t, store, keys("new"), clock.Now); !errors.Is(err, repository.ErrNoPassword) || !errors.Is(err, errOtherKey) {
		t.Errorf("opened with another key: %v", err)
	}
	if err := repository.Reseal(t.Context(), store, keys("new"), passwords[0]); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"k", "new"} {
		if _, err := connect(t, store, keys(k), clock.Now); err != nil {
			t.Errorf("opened with %s: %v", k, err)
		}
	}
	// Somebody who may write puts a password of his own: the repository's is still found.
	if err := repository.Reseal(t.Context(), store, keys("new"), "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, store, keys("new"), clock.Now); err != nil {
		t.Errorf("opened with a stranger's password beside: %v", err)
	}
	if _, err := repository.Open(t.Context(), store, "another", repository.Options{Now: clock.Now}); !errors.Is(err, repository.ErrWrongPassword) {
		t.Errorf("opened with the wrong password: %v", err)
	}
	// With the password gone, no new one is made beside a repository that it does not open.
	for _, key := range store.Keys(repository.KeyFolder) {
		store.Drop(key)
	}
	if _, err := connect(t, store, keys("k"), clock.Now); !errors.Is(err, repository.ErrNoPassword) || len(store.Keys(repository.KeyFolder)) > 0 {
		t.Errorf("connected without the password: %v", err)
	}
}

func TestNoRepository(t *testing.T) {
	store := repositorytest.NewStore(time.Now)
	if _, err := repository.Open(t.Context(), store, "p", repository.Options{}); !errors.Is(err, repository.ErrNoRepository) {
		t.Error(err)
	}
	create := repository.CreateOptions{Retain: time.Hour}
	if _, err := repository.OpenOrCreate(t.Context(), store, "p", create, repository.Options{}); err == nil || len(store.Keys("")) > 0 {
		t.Errorf("created with too short a retention: %v", err)
	}
}

// TestLocked: with object lock nothing that a copy refers to can be removed, and maintenance extends it, day after day.
func TestLocked(t *testing.T) {
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	create := repository.CreateOptions{Retain: 72 * time.Hour}
	r, err := repository.OpenOrCreate(t.Context(), store, "p", create, repository.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	c := copyOne(t, r, "vol-1", 1)
	for range 10 {
		clock.Advance(25 * time.Hour)
		if _, err := r.Maintain(t.Context(), repository.MaintainOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, key := range store.Keys(repository.Folder + "/p") {
			if err := store.Delete(t.Context(), key); !errors.Is(err, plugins.ErrRetained) {
				t.Fatalf("%s could be removed: %v", key, err)
			}
		}
	}
	if damages, err := block.Verify(t.Context(), r, []repository.Copy{c}, block.Options{}); err != nil || len(damages) > 0 {
		t.Errorf("%v, %v", damages, err)
	}
}

// TestKopia opens what was written to a folder with kopia's own packages alone, as its command line does: connect with the password, list, read.
func TestKopia(t *testing.T) {
	dir := t.TempDir()
	folder, err := file.New(v1alpha1.FileLocation{Path: dir}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	create := repository.CreateOptions{Layout: repository.LayoutFolder}
	r, err := repository.Connect(t.Context(), folder, keys("k"), create, repository.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	want := copyOne(t, r, "vol-1", 'x')
	passwords, err := repository.Passwords(t.Context(), folder, keys("k"))
	if err != nil {
		t.Fatal(err)
	}

	ctx, config := t.Context(), filepath.Join(t.TempDir(), "kopia.config")
	st, err := filesystem.New(ctx, &filesystem.Options{Path: filepath.Join(dir, repository.Folder)}, false)
	if err != nil {
		t.Fatal(err)
	}
	connectOptions := &repo.ConnectOptions{CachingOptions: content.CachingOptions{}}
	if err := repo.Connect(ctx, config, st, passwords[0], connectOptions); err != nil {
		t.Fatal(err)
	}
	rep, err := repo.Open(ctx, config, passwords[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rep.Close(ctx)
	ids, err := snapshot.ListSnapshotManifests(ctx, rep, nil, nil)
	if err != nil || len(ids) != 1 || string(ids[0]) != want.ID {
		t.Fatalf("snapshots %v, %v", ids, err)
	}
	m, err := snapshot.LoadSnapshot(ctx, rep, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Source.String(); got != "kedge@c:/ebs/vol-1" {
		t.Errorf("source %s", got)
	}
	top, err := snapshotfs.SnapshotRoot(rep, m)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, top, "0000000/0000000001"); !bytes.Equal(got, bytes.Repeat([]byte{'y'}, plugins.BlockSize)) {
		t.Errorf("block 1 has %d bytes", len(got))
	}
	if got := string(read(t, top, "0000000/SHA256SUMS")); strings.Count(got, "\n") != 2 || !strings.Contains(got, "  0000000001\n") {
		t.Errorf("SHA256SUMS: %q", got)
	}
	if got := string(read(t, top, "volume.json")); got != `{"format":1,"sizeBytes":1073741824,"blockSize":524288}`+"\n" {
		t.Errorf("volume.json: %q", got)
	}
}

// read reads a file of a snapshot.
func read(t *testing.T, top fs.Entry, path string) []byte {
	t.Helper()
	entry := top
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if entry, err = entry.(fs.Directory).Child(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r, err := entry.(fs.File).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestReadOnly reads a location that refuses every write.
func TestReadOnly(t *testing.T) {
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	r, err := connect(t, store, keys("k"), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	c := copyOne(t, r, "vol-1", 1)
	before := store.Keys("")
	for _, cache := range []string{"", t.TempDir()} {
		opts := repository.Options{Now: clock.Now, ReadOnly: true, CacheDir: cache}
		reader, err := repository.Connect(t.Context(), decorate.ReadOnly(store), keys("k"), repository.CreateOptions{}, opts)
		if err != nil {
			t.Fatal(err)
		}
		found, err := reader.Copy(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		blocks := &count{}
		if n, err := block.Restore(t.Context(), reader, found, blocks, block.Options{}); err != nil || n != 2 || blocks.Load() != 2 {
			t.Errorf("restored %d blocks, %v", n, err)
		}
		if damages, err := block.Verify(t.Context(), reader, []repository.Copy{found}, block.Options{}); err != nil || len(damages) > 0 {
			t.Errorf("%v, %v", damages, err)
		}
		if _, err := tryCopy(t.Context(), reader, "vol-2", 2); err == nil {
			t.Error("wrote")
		}
		if err := reader.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if after := store.Keys(""); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}

type count struct{ atomic.Int64 }

func (c *count) WriteBlock(context.Context, int64, []byte) error {
	c.Add(1)
	return nil
}
