package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/test/testbed"
)

// watchedStore counts the ranges that are read of each file, and spoils one of them.
type watchedStore struct {
	plugins.ObjectStore
	mu    sync.Mutex
	reads map[string]int // of items.tar.zst.age, by offset
	spoil bool
	log   func(string, ...any)
}

func (s *watchedStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	body, err := s.ObjectStore.Get(ctx, key, offset, length)
	if s.log != nil {
		s.log("get %s %d +%d", key[strings.LastIndex(key, "/")+1:], offset, length)
	}
	if err != nil || !strings.HasSuffix(key, "/items.tar.zst.age") {
		return body, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads[key+"@"+time.Duration(offset).String()]++
	if s.spoil {
		return struct {
			io.Reader
			io.Closer
		}{&spoiler{r: body}, body}, nil
	}
	return body, nil
}

// spoiler flips a bit.
type spoiler struct {
	r    io.Reader
	done bool
}

func (s *spoiler) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if n > 0 && !s.done {
		p[n/2] ^= 4
		s.done = true
	}
	return n, err
}

// archiveOf writes a source into a location and opens it again.
func archiveOf(t *testing.T, m *memory) (*archive.Location, *archive.Keys, *archive.Reader, *watchedStore) {
	t.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: t.TempDir()}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	watched := &watchedStore{ObjectStore: store, reads: map[string]int{}}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	location, keys, err := archive.Init(t.Context(), watched, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	opts := archive.WriteOptions{Name: "b", UID: "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa", SpoolDir: t.TempDir(), Now: time.Now, Rand: rand.Reader}
	_, err = location.Write(t.Context(), opts, func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		return fill(ctx, w, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	entry, err := location.Find(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := location.OpenBackup(t.Context(), entry, keys, archive.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return location, keys, reader, watched
}

func fill(ctx context.Context, w *archive.Writer, m *memory) (*archive.Summary, error) {
	sections := map[string]*archive.Section{}
	for _, c := range m.chunks {
		key := c.group + "/" + c.version + "/" + c.resource
		if sections[key] == nil {
			s, err := w.Section(archive.SectionOptions{Group: c.group, Version: c.version, Resource: c.resource})
			if err != nil {
				return nil, err
			}
			sections[key] = s
		}
		for n, r := range c.rows {
			if err := sections[key].Add(ctx, r, c.raws[n]); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range sections {
		if err := s.Close(ctx); err != nil {
			return nil, err
		}
	}
	return &archive.Summary{Cluster: m.info.Cluster, Phase: v1alpha1.PhaseCompleted, Revision: "1", Started: time.Now(), APIs: m.info.APIs}, nil
}

// TestFromArchive restores one namespace of a large backup, reads no range twice, and keeps its reports beside the backup.
func TestFromArchive(t *testing.T) {
	location, keys, reader, watched := archiveOf(t, mixed(t, "arch", 3000))
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	e := engineFor(c, FromArchive(reader))
	e.Reports = ToLocation(location)
	req := request("from-archive")
	req.Spec.IncludedNamespaces = []string{"arch-10"}
	for range 2 {
		r := restoreAll(t, e, req)
		if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Planned < 200 || r.Counts.Created+r.Counts.Unchanged != r.Counts.Planned {
			t.Fatalf("%s %+v", r.Phase, r.Counts)
		}
		for at, n := range watched.reads {
			if n > 1 {
				t.Errorf("%s was read %d times", at, n)
			}
		}
		clear(watched.reads)
	}
	var kept []*Report
	if err := Reports(t.Context(), location, keys, "from-archive", func(r *Report) error { kept = append(kept, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 2 || kept[0].Backup != "b" || kept[0].Counts.Planned == 0 {
		t.Errorf("%d reports are kept: %+v", len(kept), kept)
	}
}

// TestDamagedArchive: where a frame is not what its hash says, nothing is written.
func TestDamagedArchive(t *testing.T) {
	_, _, reader, watched := archiveOf(t, mixed(t, "damaged", 400))
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	watched.spoil = true
	e := engineFor(c, FromArchive(reader))
	p, err := e.Plan(t.Context(), request("damaged"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Run(t.Context(), p)
	var damage *archive.DamageError
	if !errors.As(err, &damage) || r == nil || r.Phase != v1alpha1.PhaseFailed || r.Counts.Created != 0 {
		t.Errorf("got %v, %+v", err, r)
	}
	if _, err := c.Do(t.Context(), kube.Request{Path: "/api/v1/namespaces/damaged-0"}); kube.Code(err) != 404 {
		t.Errorf("something was written: %v", err)
	}
}

// TestKeepOnce keeps the report of a restore that two processes bring to its end: the first counts, and the second has succeeded too.
func TestKeepOnce(t *testing.T) {
	location, keys, _, _ := archiveOf(t, mixed(t, "once", 10))
	for _, message := range []string{"first", "second"} {
		if err := KeepOnce(t.Context(), location, &Report{Name: "once", UID: "uid", Message: message}); err != nil {
			t.Fatal(err)
		}
	}
	var kept []string
	if err := Reports(t.Context(), location, keys, "once", func(r *Report) error { kept = append(kept, r.Message); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kept, []string{"first"}) {
		t.Errorf("kept are %q", kept)
	}
}
