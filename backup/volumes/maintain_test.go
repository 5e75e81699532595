package volumes_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

const clusters = 2

// datedStore is a folder whose files are dated by the test's clock, which maintenance goes by.
type datedStore struct {
	*file.Store

	dir string
	now func() time.Time
	// fail, if set, gives the error that a get of a key ends with.
	fail func(key string) error
}

func (s *datedStore) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	info, err := s.Store.Put(ctx, key, r, opts)
	if err != nil {
		return info, err
	}
	info.LastModified = s.now()
	return info, os.Chtimes(filepath.Join(s.dir, filepath.FromSlash(key)), info.LastModified, info.LastModified)
}

func (s *datedStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.fail != nil {
		if err := s.fail(key); err != nil {
			return nil, err
		}
	}
	return s.Store.Get(ctx, key, offset, length)
}

// place is a location in a folder, with backups of a volume of each cluster.
type place struct {
	rng      *mathrand.Rand
	clock    *repositorytest.Clock
	store    *datedStore
	location *archive.Location
	keys     *archive.Keys
	named    volumes.Named
	disks    [clusters]*disk
	taken    int
	backups  map[string]map[string]*disk // by uid: what its copies hold, by id
}

func newPlace(t *testing.T, seed uint64) *place {
	t.Helper()
	p := &place{rng: mathrand.New(mathrand.NewPCG(seed, 23)), clock: repositorytest.NewClock(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)), backups: map[string]map[string]*disk{}}
	dir := t.TempDir()
	store, err := file.New(v1alpha1.FileLocation{Path: dir}, file.Options{Now: p.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p.store = &datedStore{Store: store, dir: dir, now: p.clock.Now}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	p.location, p.keys, err = archive.Init(t.Context(), p.store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: p.clock.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.disks {
		p.disks[i] = &disk{size: 2 << 30, blocks: map[int64][]byte{}}
	}
	return p
}

func (p *place) repository(ctx context.Context) (*repository.Repository, error) {
	keys := repository.Keys{Random: rand.Reader, Seal: p.keys.Seal, Open: p.keys.Open}
	return repository.Connect(ctx, p.store, keys, repository.CreateOptions{Layout: repository.LayoutFolder}, repository.Options{Now: p.clock.Now})
}

func (p *place) entries(ctx context.Context) (out []archive.Entry, err error) {
	err = p.location.Backups(ctx, func(e archive.Entry) error {
		out = append(out, e)
		return nil
	})
	return out, err
}

// take changes the volume of a cluster and makes a backup with a copy of it; slow is what happens between the copy and the seal.
func (p *place) take(t *testing.T, slow func()) {
	t.Helper()
	p.taken++
	n := p.rng.IntN(clusters)
	uid, cluster := fmt.Sprintf("uid-%d", p.taken), fmt.Sprintf("cluster-%d", n)
	for range 1 + p.rng.IntN(3) {
		b := make([]byte, plugins.BlockSize)
		for i := range b {
			b[i] = byte(p.rng.Uint32())
		}
		p.disks[n].blocks[p.rng.Int64N(12)*300] = b
	}
	repo, err := p.repository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	src := &source{disk: p.disks[n].clone()}
	req := block.Request{Volume: repository.Volume{Cluster: cluster, Provider: "ebs", Handle: "vol-1"}, Snapshot: "snap-" + uid}
	done, err := block.Copy(t.Context(), repo, src, req, block.Options{})
	if err := errors.Join(err, repo.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	slow()
	row := archive.Volume{
		Namespace: "shop", Claim: "data", Volume: "pv-1", Provider: "ebs", Source: plugins.Volume{Handle: "vol-1", SizeBytes: src.size},
		Taken: p.clock.Now(), CopyID: done.Copy.ID, CopyKind: block.Kind,
	}
	p.seal(t, uid, cluster, row)
	p.backups[uid] = map[string]*disk{done.Copy.ID: src.disk}
}

func (p *place) seal(t *testing.T, uid, cluster string, rows ...archive.Volume) {
	t.Helper()
	opts := archive.WriteOptions{Name: "b-" + uid, UID: uid, SpoolDir: t.TempDir(), Kedge: "v0.0.0-test", Now: p.clock.Now, Rand: rand.Reader}
	_, err := p.location.Write(t.Context(), opts, func(context.Context, *archive.Writer) (*archive.Summary, error) {
		now := p.clock.Now()
		return &archive.Summary{Cluster: v1alpha1.ClusterInfo{UID: cluster}, Phase: v1alpha1.PhaseCompleted, Started: now, Completed: now, Volumes: rows}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// remove deletes a backup; cut leaves the deletion begun, with nothing removed yet.
func (p *place) remove(t *testing.T, uid string, cut bool) {
	t.Helper()
	errCut := errors.New("cut off")
	l := p.location.WithElsewhere(func(context.Context, string, []plugins.Place) error {
		if cut {
			return errCut
		}
		return nil
	})
	e, err := l.Find(t.Context(), uid)
	if err == nil {
		err = l.Delete(t.Context(), e, archive.DeleteOptions{Now: p.clock.Now})
	}
	if cut && errors.Is(err, errCut) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(p.backups, uid)
}

func (p *place) maintain(t *testing.T, named *volumes.Named, force bool) volumes.Maintained {
	t.Helper()
	done, err := (&volumes.Maintenance{Location: p.location, Keys: p.keys, Entries: p.entries, Named: named, Repository: p.repository, Force: force}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// verify reads every byte of every backup that is there, and compares what its copies hold.
func (p *place) verify(t *testing.T, what string) {
	t.Helper()
	entries, err := p.entries(t.Context())
	if err != nil || len(entries) != len(p.backups) {
		t.Fatalf("%s: %d backups, want %d, %v", what, len(entries), len(p.backups), err)
	}
	repo, err := p.repository(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer repo.Close(context.WithoutCancel(t.Context()))
	var copies []repository.Copy
	for uid, held := range p.backups {
		for id, want := range held {
			c, err := repo.Copy(t.Context(), id)
			if err != nil {
				t.Fatalf("%s: backup %s: %v", what, uid, err)
			}
			copies = append(copies, c)
			got := &disk{size: want.size, blocks: map[int64][]byte{}}
			if _, err := block.Restore(t.Context(), repo, c, block.ToFile(got), block.Options{Parallel: 1}); err != nil || !got.equal(want) {
				t.Fatalf("%s: backup %s: its copy is another, %v", what, uid, err)
			}
		}
	}
	if damages, err := block.Verify(t.Context(), repo, copies, block.Options{}); err != nil || len(damages) > 0 {
		t.Fatalf("%s: %v, %v", what, err, damages)
	}
}

// TestMaintenance mixes backups of two clusters, deletions, some of them cut off, and maintenance over weeks, by one that remembers and
// one that does not. Every backup that is there has its copies, whole, after each step.
func TestMaintenance(t *testing.T) {
	runs, steps := 2, 14
	if os.Getenv("KEDGE_SOAK") != "" {
		runs, steps = 20, 150
	}
	for run := range runs {
		p := newPlace(t, uint64(run))
		p.take(t, func() {})
		p.take(t, func() {})
		var cut []string
		forgotten := 0
		for step := range steps {
			switch p.rng.IntN(6) {
			case 0:
				p.take(t, func() {})
			case 1: // the copy is there for days before the backup is, and others maintain meanwhile
				p.take(t, func() {
					p.clock.Advance(time.Duration(p.rng.IntN(6*24)) * time.Hour)
					forgotten += p.maintain(t, nil, true).Forgotten
				})
			case 2, 3:
				uids := sortedUIDs(p.backups)
				if len(uids) < 2 {
					continue
				}
				uid := uids[p.rng.IntN(len(uids))]
				if again := slices.Contains(cut, uid); !again && p.rng.IntN(3) == 0 {
					cut = append(cut, uid)
					p.remove(t, uid, true)
				} else {
					p.remove(t, uid, false)
				}
			default:
				named := &p.named
				if p.rng.IntN(3) == 0 {
					named = nil
				}
				done := p.maintain(t, named, p.rng.IntN(2) == 0)
				if done.Unsure != nil || done.Kept < len(p.backups) {
					t.Fatalf("run %d, step %d: %+v with %d backups", run, step, done, len(p.backups))
				}
				forgotten += done.Forgotten
			}
			p.verify(t, fmt.Sprintf("run %d, step %d", run, step))
			p.clock.Advance(time.Duration(p.rng.IntN(48*60)) * time.Minute)
		}
		for _, uid := range sortedUIDs(p.backups)[1:] {
			p.remove(t, uid, false)
		}
		p.clock.Advance(volumes.UnnamedAge)
		if forgotten += p.maintain(t, &p.named, true).Forgotten; forgotten == 0 {
			t.Errorf("run %d forgot no copy", run)
		}
		p.verify(t, fmt.Sprintf("run %d", run))
	}
}

func sortedUIDs(backups map[string]map[string]*disk) []string {
	var uids []string
	for uid := range backups {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return uids
}

// TestMaintenanceUnsure keeps every copy where one backup's rows, or its record, cannot be read, and where the listing fails.
func TestMaintenanceUnsure(t *testing.T) {
	errAway := errors.New("away")
	for name, unreadable := range map[string]string{"rows": archive.FileVolumes, "record": "backup.json"} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, 1)
			p.take(t, func() {})
			p.take(t, func() {})
			p.remove(t, "uid-1", false)
			p.clock.Advance(volumes.UnnamedAge + time.Hour)
			p.store.fail = func(key string) error {
				if strings.HasSuffix(key, unreadable) {
					return errAway
				}
				return nil
			}
			if done := p.maintain(t, nil, true); !errors.Is(done.Unsure, errAway) || done.Forgotten != 0 || done.Kept != 2 || done.Mode != "full" {
				t.Errorf("maintained %+v", done)
			}
			p.store.fail = nil
			if done := p.maintain(t, nil, true); done.Unsure != nil || done.Forgotten != 1 || done.Kept != 1 {
				t.Errorf("maintained %+v", done)
			}
			p.verify(t, name)
		})
	}
	p := newPlace(t, 2)
	p.take(t, func() {})
	p.clock.Advance(volumes.UnnamedAge + time.Hour)
	done, err := (&volumes.Maintenance{
		Location: p.location, Keys: p.keys, Repository: p.repository,
		Entries: func(context.Context) ([]archive.Entry, error) { return nil, errAway },
	}).Run(t.Context())
	if err != nil || !errors.Is(done.Unsure, errAway) || done.Kept != 1 {
		t.Errorf("maintained %+v, %v, where the listing failed", done, err)
	}
}

// TestNamedReadsOnce reads the rows of a sealed backup once, and those of backups without volumes never.
func TestNamedReadsOnce(t *testing.T) {
	p := newPlace(t, 3)
	p.take(t, func() {})
	p.seal(t, "plain", "cluster-0")
	p.backups["plain"] = nil
	var reads atomic.Int64
	p.store.fail = func(key string) error {
		if strings.HasPrefix(key, "backups/") && !strings.HasSuffix(key, "backup.json") {
			if reads.Add(1); strings.Contains(key, "/plain/") {
				t.Errorf("read %s", key)
			}
		}
		return nil
	}
	p.maintain(t, &p.named, false)
	first := reads.Load()
	p.maintain(t, &p.named, false)
	if again := reads.Load(); first == 0 || again != first {
		t.Errorf("%d reads, then %d", first, again-first)
	}
	p.store.fail = nil
	p.take(t, func() {})
	if done := p.maintain(t, &p.named, false); done.Unsure != nil || done.Kept != 2 {
		t.Errorf("maintained %+v", done)
	}
}

// disk is a sparse volume in memory.
type disk struct {
	size   int64
	blocks map[int64][]byte
}

func (d *disk) clone() *disk {
	c := &disk{size: d.size, blocks: map[int64][]byte{}}
	maps.Copy(c.blocks, d.blocks) // blocks are replaced, never changed
	return c
}

func (d *disk) WriteAt(data []byte, at int64) (int, error) {
	d.blocks[at/plugins.BlockSize] = bytes.Clone(data)
	return len(data), nil
}

func (d *disk) equal(o *disk) bool {
	for i, b := range d.blocks {
		if !bytes.Equal(b, o.blocks[i]) {
			return false
		}
	}
	return len(d.blocks) == len(o.blocks)
}

// source reads a disk.
type source struct{ *disk }

func (s *source) SizeBytes() int64 { return s.size }
func (s *source) Base() string     { return "" }

func (s *source) Blocks(_ context.Context, fn func(plugins.Block) error) error {
	var indexes []int64
	for i := range s.blocks {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		if err := fn(plugins.Block{Index: i}); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) ReadBlock(_ context.Context, b plugins.Block, buf []byte) (int, error) {
	return copy(buf, s.blocks[b.Index]), nil
}
