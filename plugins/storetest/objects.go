package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

func testRoundTrip(t *testing.T, store plugins.ObjectStore, _ Config) {
	start := time.Now()
	for _, size := range []int{0, 1, 100, 64 << 10, 1<<20 + 7} {
		key := fmt.Sprintf("sizes/%d", size)
		data := noise(uint64(size), size)
		put(t, store, key, data)
		if got := get(t, store, key, 0, -1); !bytes.Equal(got, data) {
			t.Errorf("%d bytes come back as %d others", size, len(got))
		}
		info, err := store.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if info.Key != key || info.Size != int64(size) {
			t.Errorf("Stat gives %+v, want %d bytes under %s", info, size, key)
		}
		// A day allows for a clock that is off and still finds a zero time or wrong units.
		if d := info.LastModified.Sub(start).Abs(); d > 24*time.Hour {
			t.Errorf("Stat says it was modified %v, now is %v", info.LastModified, start)
		}
	}
}

func testReplace(t *testing.T, store plugins.ObjectStore, _ Config) {
	for i, size := range []int{1000, 10, 5000, 0, 1} {
		data := noise(uint64(i), size)
		put(t, store, "replaced/often", data)
		if got := get(t, store, "replaced/often", 0, -1); !bytes.Equal(got, data) {
			t.Fatalf("replacement %d reads back as %d other bytes", i, len(got))
		}
	}
	if got := keys(t, store, ""); len(got) != 1 {
		t.Errorf("List shows %q, want the one key", got)
	}
}

func testRanges(t *testing.T, store plugins.ObjectStore, _ Config) {
	const size = 10_000
	data := noise(7, size)
	put(t, store, "ranges/object", data)
	put(t, store, "ranges/empty", nil)
	for _, c := range []struct{ offset, length, want int64 }{
		{0, 0, 0}, {0, 1, 1}, {0, -1, size}, {0, size, size}, {0, size + 1, size}, {1, 10, 10}, {1, -1, size - 1}, {5000, 0, 0},
		{9999, 1, 1}, {9999, 100, 1}, {9999, -1, 1}, {size, 0, 0}, {size, 1, 0}, {size, -1, 0}, {4096, 4096, 4096}, {0, 1 << 60, size},
	} {
		got := get(t, store, "ranges/object", c.offset, c.length)
		if !bytes.Equal(got, data[c.offset:c.offset+c.want]) {
			t.Errorf("%d bytes from %d on give %d bytes, want %d", c.length, c.offset, len(got), c.want)
		}
	}
	for _, length := range []int64{0, 5, -1} {
		if got := get(t, store, "ranges/empty", 0, length); len(got) != 0 {
			t.Errorf("the empty object has %d bytes", len(got))
		}
	}
	for _, c := range []struct {
		key            string
		offset, length int64
	}{
		{"ranges/object", size + 1, -1}, {"ranges/object", size + 1, 0}, {"ranges/object", 1 << 40, 1}, {"ranges/object", -1, 5},
		{"ranges/empty", 1, -1}, {"ranges/empty", 1, 1},
	} {
		r, err := store.Get(t.Context(), c.key, c.offset, c.length)
		if err == nil {
			r.Close()
		}
		wantError(t, err, plugins.ErrRange, "get", c.key)
	}
}

func testNotFound(t *testing.T, store plugins.ObjectStore, _ Config) {
	put(t, store, "there/object", []byte("x"))
	for _, key := range []string{"absent", "there/objec", "there/object2", "there", "not/there/at/all"} {
		_, err := store.Stat(t.Context(), key)
		wantError(t, err, plugins.ErrNotFound, "stat", key)
		for _, length := range []int64{0, 1, -1} {
			_, err = store.Get(t.Context(), key, 0, length)
			wantError(t, err, plugins.ErrNotFound, "get", key)
		}
		_, err = store.Get(t.Context(), key, 100, 1)
		wantError(t, err, plugins.ErrNotFound, "get", key)
	}
}

func testExists(t *testing.T, store plugins.ObjectStore, _ Config) {
	if err := putNew(t, store, "once", []byte("first")); err != nil {
		t.Fatalf("first Put: %v", err)
	}
	wantError(t, putNew(t, store, "once", []byte("second")), plugins.ErrExists, "put", "once")
	wantError(t, putNew(t, store, "once", nil), plugins.ErrExists, "put", "once")
	if got := get(t, store, "once", 0, -1); string(got) != "first" {
		t.Errorf("the refused Put changed the object to %q", got)
	}
	if err := store.Delete(t.Context(), "once"); err != nil {
		t.Fatal(err)
	}
	if err := putNew(t, store, "once", []byte("third")); err != nil {
		t.Errorf("Put after Delete: %v", err)
	}
	if got := get(t, store, "once", 0, -1); string(got) != "third" {
		t.Errorf("after Delete and Put it is %q", got)
	}
}

// testOneWinner lets many create one key at once: small objects, and objects large enough for a store to send them in parts.
func testOneWinner(t *testing.T, store plugins.ObjectStore, _ Config) {
	for round, size := range []int{10, 10, 1000, 9 << 20} {
		callers := 16
		if size > 1<<20 {
			callers = 4
		}
		key := fmt.Sprintf("race/%d", round)
		errs := make([]error, callers)
		var group errgroup.Group
		for i := range callers {
			group.Go(func() error {
				data := noise(uint64(i), size)
				_, errs[i] = store.Put(t.Context(), key, stream(data), plugins.PutOptions{IfNoneMatch: true})
				return nil
			})
		}
		_ = group.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("round %d: callers %d and %d both won", round, winner, i)
			case err == nil:
				winner = i
			default:
				wantError(t, err, plugins.ErrExists, "put", key)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		if got := get(t, store, key, 0, -1); !bytes.Equal(got, noise(uint64(winner), size)) {
			t.Errorf("round %d: caller %d won, but the object is another's", round, winner)
		}
	}
}

// testReplaceAtOnce has writers replace one key while readers read it: each reader sees one whole object.
func testReplaceAtOnce(t *testing.T, store plugins.ObjectStore, _ Config) {
	const size, rounds = 100_000, 10
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, size) }
	put(t, store, "busy", version(0))
	group, ctx := errgroup.WithContext(t.Context())
	for w := range 2 {
		group.Go(func() error {
			for i := range rounds {
				if _, err := store.Put(ctx, "busy", stream(version(1+w*rounds+i)), plugins.PutOptions{}); err != nil {
					return fmt.Errorf("writer %d: %w", w, err)
				}
			}
			return nil
		})
	}
	for range 2 {
		group.Go(func() error {
			for range rounds {
				r, err := store.Get(ctx, "busy", 0, -1)
				if err != nil {
					return fmt.Errorf("reader: %w", err)
				}
				data, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					return fmt.Errorf("reader: %w", err)
				}
				if len(data) != size || bytes.Count(data, data[:1]) != size {
					return fmt.Errorf("reader saw a mixture of %d bytes", len(data))
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// meter is a source of n bytes that are never all in memory, and watches how much memory is.
type meter struct {
	left   int64
	next   uint64
	peak   uint64
	hash   interface{ Write([]byte) (int, error) }
	since  int
	blocks [4][]byte
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	block := m.blocks[m.next%uint64(len(m.blocks))]
	m.next++
	n := copy(p, block[:min(int64(len(block)), m.left)])
	m.left -= int64(n)
	_, _ = m.hash.Write(p[:n])
	if m.since += n; m.since >= 4<<20 {
		m.since = 0
		m.peak = max(m.peak, heap())
	}
	return n, nil
}

// heap is how many bytes are in use after a collection.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// testLarge streams an object of unknown length through the store, and looks at the memory that it takes.
func testLarge(t *testing.T, store plugins.ObjectStore, cfg Config) {
	sent := sha256.New()
	source := &meter{left: cfg.Large + 12345, hash: sent}
	for i := range source.blocks {
		source.blocks[i] = noise(uint64(i), 32<<10+i)
	}
	before := heap()
	info, err := store.Put(t.Context(), "large/object", source, plugins.PutOptions{IfNoneMatch: true})
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != cfg.Large+12345 {
		t.Errorf("Put returned %d bytes, want %d", info.Size, cfg.Large+12345)
	}
	if used := int64(source.peak) - int64(before); used > cfg.MemoryCeiling {
		t.Errorf("Put of %d MiB held %d MiB, more than %d", cfg.Large>>20, used>>20, cfg.MemoryCeiling>>20)
	}
	r, err := store.Get(t.Context(), "large/object", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	received := sha256.New()
	if n, err := io.Copy(received, r); err != nil || n != info.Size {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	if !bytes.Equal(received.Sum(nil), sent.Sum(nil)) {
		t.Error("the bytes that came back are not those that were sent")
	}
	// A replacement of something large is whole as well.
	put(t, store, "large/object", []byte("small"))
	if got := get(t, store, "large/object", 0, -1); string(got) != "small" {
		t.Errorf("after a small Put the object has %d bytes", len(got))
	}
}

// brokenSource yields n bytes and then fails.
func brokenSource(n int, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(noise(1, n)), errorReader{err})
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

func testBrokenSource(t *testing.T, store plugins.ObjectStore, _ Config) {
	broken := errors.New("the source broke")
	put(t, store, "broken/old", []byte("old"))
	for _, size := range []int{0, 10, 100_000, 20 << 20} {
		for _, opts := range []plugins.PutOptions{{}, {IfNoneMatch: true}} {
			key := fmt.Sprintf("broken/%d", size)
			_, err := store.Put(t.Context(), key, brokenSource(size, broken), opts)
			wantError(t, err, broken, "put", key)
			wantAbsent(t, store, key)
		}
	}
	// An error that looks like one of the store's own, or like an end.
	_, err := store.Put(t.Context(), "broken/short", brokenSource(10, io.ErrUnexpectedEOF), plugins.PutOptions{})
	wantError(t, err, io.ErrUnexpectedEOF, "put", "broken/short")
	wantAbsent(t, store, "broken/short")
	_, err = store.Put(t.Context(), "broken/old", brokenSource(10, broken), plugins.PutOptions{})
	wantError(t, err, broken, "put", "broken/old")
	if got := get(t, store, "broken/old", 0, -1); string(got) != "old" {
		t.Errorf("a failed replacement changed the object to %q", got)
	}
}

// testCancel cancels each operation before it starts, and a Put and a Get in the middle.
func testCancel(t *testing.T, store plugins.ObjectStore, _ Config) {
	put(t, store, "cancel/there", noise(3, 4<<20))
	for _, size := range []int{100, 1 << 20, 20 << 20} {
		key := fmt.Sprintf("cancel/%d", size)
		ctx, cancel := context.WithCancel(t.Context())
		source := io.MultiReader(bytes.NewReader(noise(2, size)), readFunc(func([]byte) (int, error) {
			cancel()
			return 0, io.EOF
		}))
		_, err := store.Put(ctx, key, source, plugins.PutOptions{})
		wantError(t, err, context.Canceled, "put", key)
		wantAbsent(t, store, key)
	}

	ctx, cancel := context.WithCancel(t.Context())
	r, err := store.Get(ctx, "cancel/there", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("reading after the cancel gives %v", err)
	}
	r.Close()

	_, err = store.Put(ctx, "cancel/new", strings.NewReader("x"), plugins.PutOptions{})
	wantError(t, err, context.Canceled, "put", "cancel/new")
	wantAbsent(t, store, "cancel/new")
	_, err = store.Get(ctx, "cancel/there", 0, -1)
	wantError(t, err, context.Canceled, "get", "cancel/there")
	_, err = store.Stat(ctx, "cancel/there")
	wantError(t, err, context.Canceled, "stat", "cancel/there")
	wantError(t, store.Delete(ctx, "cancel/there"), context.Canceled, "delete", "cancel/there")
	if err := store.List(ctx, "cancel/", func(plugins.ObjectInfo) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("List after the cancel gives %v", err)
	}
	if got := get(t, store, "cancel/there", 0, -1); len(got) != 4<<20 {
		t.Errorf("the object has %d bytes left", len(got))
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func testConcurrent(t *testing.T, store plugins.ObjectStore, _ Config) {
	// Something stays in the folder. Services that are file systems underneath may fail a Put, cleanly, whose folder goes at that very moment.
	put(t, store, "shared/folder/anchor", nil)
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range 8 {
		group.Go(func() error {
			for i := range 10 {
				key := fmt.Sprintf("shared/folder/%d", worker)
				data := noise(uint64(worker*100+i), 1000+i)
				if _, err := store.Put(ctx, key, stream(data), plugins.PutOptions{IfNoneMatch: i%2 == 0}); err != nil {
					return err
				}
				r, err := store.Get(ctx, key, 10, 500)
				if err != nil {
					return err
				}
				got, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					return err
				}
				if !bytes.Equal(got, data[10:510]) {
					return fmt.Errorf("worker %d reads other bytes than it wrote", worker)
				}
				if err := store.Delete(ctx, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, store, ""); len(got) != 1 {
		t.Errorf("%q are left, want the anchor alone", got)
	}
}
