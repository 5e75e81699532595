package archive_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

func nothing(plugins.Ref, []byte) error { return nil }

// TestNamespaceReads restores one namespace of a large archive and counts the bytes that the store hands out: at most one
// and a half times its frames and their shards.
func TestNamespaceReads(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	s := mixed(30000)
	write(t, l, writeOptions(t, "large", "uid"), s)
	for _, namespace := range []string{"team-000", "team-017", "team-049"} {
		r := open(t, l, keys, "large")
		store.read = 0
		var asked int64
		frames, rows := map[int]bool{}, 0
		err := r.Rows(t.Context(), func(f *archive.Frame) bool { return f.MayHold(namespace) }, func(frame int, row archive.Row) error {
			if row.Namespace == namespace {
				rows++
				frames[frame] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range frames {
			f := r.Record().Frames[i]
			asked += f.Size + f.Index.Size
			if err := r.Items(t.Context(), i, nothing); err != nil {
				t.Fatal(err)
			}
		}
		ratio := float64(store.read) / float64(asked)
		t.Logf("%s: %d objects in %d frames of %d: %d bytes of frames and shards, %d read: %.2f", namespace, rows, len(frames), len(r.Record().Frames), asked, store.read, ratio)
		if rows != 600 || ratio > 1.5 {
			t.Errorf("%s: %d objects, ratio %.2f", namespace, rows, ratio)
		}
	}
}

// TestWriteMemory bounds what the writer itself holds while it archives far more than that, with four compressors and
// four sections being filled at once. It was 38 to 40 MB on two processors, by which of them were busy at a look; a leak would be all of it.
func TestWriteMemory(t *testing.T) {
	l, _ := location(t, newMemory())
	s := mixed(20000)
	runtime.GC()
	var before, peak runtime.MemStats
	runtime.ReadMemStats(&before)
	opts := writeOptions(t, "memory", "uid")
	opts.Concurrency = 4
	most := uint64(0)
	watch := func() {
		runtime.GC()
		runtime.ReadMemStats(&peak)
		most = max(most, peak.HeapAlloc-min(before.HeapAlloc, peak.HeapAlloc))
	}
	if _, err := l.Write(t.Context(), opts, s.watched(watch)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB archived with at most %d MB more on the heap", s.size()>>20, most>>20)
	if most > 48<<20 {
		t.Errorf("the heap grew by %d MB", most>>20)
	}
}

// TestReadAtOnce reads frames and rows from many goroutines, each item once per goroutine, and hardly more bytes than there are.
func TestReadAtOnce(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	rec := write(t, l, writeOptions(t, "large", "uid"), mixed(6000))
	r := open(t, l, keys, "large")
	store.read = 0
	group, ctx := errgroup.WithContext(t.Context())
	var items, rows atomic.Int64
	for range 4 {
		group.Go(func() error {
			for i := range rec.Frames {
				err := r.Items(ctx, i, func(plugins.Ref, []byte) error {
					items.Add(1)
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		group.Go(func() error {
			return r.Rows(ctx, nil, func(int, archive.Row) error {
				rows.Add(1)
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if items.Load() != 24000 || rows.Load() != 24000 {
		t.Errorf("%d items and %d rows", items.Load(), rows.Load())
	}
	if most := 4 * rec.StoredBytes() * 5 / 4; store.read > most {
		t.Errorf("%d bytes read, four times the backup is %d", store.read, 4*rec.StoredBytes())
	}
}
