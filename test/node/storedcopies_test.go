//go:build linux

package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/repository"
)

// storages are how many volumes a backup of the shop has: a disk, a shared folder, one of the CSI driver.
const storages = 3

// storedCopies is what is in the bucket of copies.
type storedCopies struct {
	objects  *laterStore
	location *archive.Location
	keys     *archive.Keys
	named    map[string]string // by id of a copy, the backup that names it
}

func (w *killWorld) openStore(t *testing.T) *storedCopies {
	t.Helper()
	spec := &v1alpha1.BackupStorageLocationSpec{S3: &v1alpha1.S3Location{
		Bucket: w.bucket.Name, Region: w.bucket.Region, Endpoint: w.bucket.Endpoint, PathStyle: true, CredentialsFile: filepath.Join(w.dir, "credentials"),
	}}
	s := &storedCopies{named: map[string]string{}}
	bucket, err := location.OpenStore(t.Context(), spec, location.StoreOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.objects = &laterStore{ObjectStore: bucket}
	if s.location, err = archive.Open(t.Context(), s.objects); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(w.dir, "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	identities, err := age.ParseIdentities(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if s.keys, err = s.location.Unlock(t.Context(), archive.UnlockOptions{Identities: identities}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *storedCopies) open(ctx context.Context) (*repository.Repository, error) {
	return location.Repository(ctx, s.objects, s.keys, repository.Options{Now: s.objects.now})
}

// inRepository is what a repository has.
type inRepository struct {
	whole      []repository.Copy
	incomplete int
	// packs are the bytes of its packs, and chunks those of what its index says is in them: the rest is of movers that were killed.
	packs, chunks int64
	lost          int // chunks that are in no pack
}

func (s *storedCopies) read(ctx context.Context) (in inRepository, err error) {
	r, err := s.open(ctx)
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	if in.whole, err = r.Copies(ctx, repository.Filter{}); err != nil {
		return in, err
	}
	begun, err := r.Copies(ctx, repository.Filter{Incomplete: true})
	if err != nil {
		return in, err
	}
	in.incomplete = len(begun)
	err = r.Read(ctx, func(ctx context.Context, rep repo.Repository) error {
		direct := rep.(repo.DirectRepository)
		sizes := map[blob.ID]int64{}
		for _, prefix := range []blob.ID{"p", "q"} {
			err := direct.BlobReader().ListBlobs(ctx, prefix, func(b blob.Metadata) error {
				sizes[b.BlobID], in.packs = b.Length, in.packs+b.Length
				return nil
			})
			if err != nil {
				return err
			}
		}
		return direct.ContentReader().IterateContents(ctx, content.IterateOptions{Range: index.AllIDs}, func(c content.Info) error {
			in.chunks += int64(c.PackedLength)
			if int64(c.PackOffset)+int64(c.PackedLength) > sizes[c.PackBlobID] {
				in.lost++
			}
			return nil
		})
	})
	return in, err
}

// laterStore is a bucket whose clock has been put forward: what is written from a time on is dated so much later.
type laterStore struct {
	plugins.ObjectStore

	steps []step
}

type step struct {
	from time.Time
	by   time.Duration
}

// now is the bucket's time.
func (s *laterStore) now() time.Time { return s.dated(time.Now()) }

func (s *laterStore) dated(at time.Time) time.Time {
	for _, st := range slices.Backward(s.steps) {
		if !at.Before(st.from) {
			return at.Add(st.by)
		}
	}
	return at
}

// forward puts the clock forward. A bucket's dates have whole seconds, so what was written in this one must be over.
func (s *laterStore) forward(by time.Duration) {
	from := time.Now().Truncate(time.Second).Add(time.Second)
	time.Sleep(time.Until(from) + 10*time.Millisecond)
	s.steps = append(s.steps, step{from, by})
}

func (s *laterStore) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	info, err := s.ObjectStore.Put(ctx, key, r, opts)
	info.LastModified = s.dated(info.LastModified)
	return info, err
}

func (s *laterStore) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	info, err := s.ObjectStore.Stat(ctx, key)
	info.LastModified = s.dated(info.LastModified)
	return info, err
}

func (s *laterStore) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	return s.ObjectStore.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		info.LastModified = s.dated(info.LastModified)
		return fn(info)
	})
}

// check looks at the copies of a backup: it names one of each storage, and no other backup names them; what was begun and cut off is forgotten.
// A copy that no backup names is of a mover that was done when its server or its node was killed: maintenance takes it.
func (s *storedCopies) check(t *testing.T, w *killWorld, backup string) {
	t.Helper()
	cmd := w.command(t.Context(), "volume", "list", "--from-backup", backup, "-o", "json")
	cmd.Env = append(cmd.Env, "KEDGE_LOCAL=true")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list the volumes of %s: %v\n%s", backup, err, out)
	}
	var list struct{ Volumes []archive.Volume }
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	in, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sources := map[repository.Volume]string{}
	for i := range list.Volumes {
		id := list.Volumes[i].CopyID
		at := slices.IndexFunc(in.whole, func(c repository.Copy) bool { return c.ID == id })
		if at < 0 {
			t.Fatalf("%s names the copy %q, which is not in the repository", backup, id)
		}
		volume := in.whole[at].Volume
		if other := sources[volume]; other != "" && other != id {
			t.Errorf("%s names two copies of %s: %s and %s", backup, volume, other, id)
		}
		if other := s.named[id]; other != "" {
			t.Errorf("copy %s is named by %s and by %s", id, other, backup)
		}
		sources[volume] = id
	}
	for _, id := range sources {
		s.named[id] = backup
	}
	if len(sources) != storages || in.incomplete > 0 || in.lost > 0 {
		t.Errorf("%s has copies of %d storages; in the repository are %d copies that were begun, and %d chunks are lost", backup, len(sources), in.incomplete, in.lost)
	}
	t.Logf("%s: %d whole copies in the repository, %d of them named; %d MiB of packs, %d MiB in use", backup, len(in.whole), len(s.named), in.packs>>20, in.chunks>>20)
}

// maintained does what maintenance does in the weeks to come, and looks at what then is left: what backups name, and nothing twice.
func (s *storedCopies) maintained(t *testing.T) {
	t.Helper()
	for day := range 5 {
		s.objects.forward(volumes.UnnamedAge + time.Duration(2*day+1)*24*time.Hour)
		m := volumes.Maintenance{
			Location: s.location, Keys: s.keys, Force: true,
			Entries: func(ctx context.Context) (all []archive.Entry, err error) {
				err = s.location.Backups(ctx, func(e archive.Entry) error { all = append(all, e); return e.Err })
				return all, err
			},
			Repository: func(ctx context.Context) (*repository.Repository, error) { return s.open(ctx) },
		}
		done, err := m.Run(t.Context())
		if err := errors.Join(err, done.Unsure); err != nil {
			t.Fatal(err)
		}
		if done.Forgotten > 0 || done.Checkpoints > 0 {
			t.Logf("maintenance forgot %d copies that no backup names, and %d that were begun", done.Forgotten, done.Checkpoints)
		}
	}
	in, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range in.whole {
		if s.named[c.ID] == "" {
			t.Errorf("after maintenance the copy %s of %s is left, which no backup names", c.ID, c.Volume)
		}
	}
	t.Logf("after maintenance: %d copies, %d MiB of packs, %d MiB in use", len(in.whole), in.packs>>20, in.chunks>>20)
	if len(in.whole) != len(s.named) || in.incomplete > 0 || in.lost > 0 {
		t.Errorf("after maintenance there are %d whole copies for %d that are named, %d that were begun, %d lost chunks", len(in.whole), len(s.named), in.incomplete, in.lost)
	}
	backups := int64(len(s.named) / storages)
	if most := backups*(fresh+8<<20) + 32<<20; in.packs > most {
		t.Errorf("after maintenance the packs of %d backups have %d bytes: something is there twice, as they need less than %d", backups, in.packs, most)
	}
}
