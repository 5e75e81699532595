package decorate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/plugins/storetest"
)

func folder(tb testing.TB) plugins.ObjectStore {
	tb.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: tb.TempDir()}, file.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

func wrap(tb testing.TB, store plugins.ObjectStore, opts decorate.Options) plugins.ObjectStore {
	tb.Helper()
	wrapped, err := decorate.Wrap(store, opts)
	if err != nil {
		tb.Fatal(err)
	}
	return wrapped
}

func noSleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// TestConformance holds the whole stack against the contract: decorators change nothing of it.
func TestConformance(t *testing.T) {
	var events atomic.Int64
	storetest.Run(t, func(t *testing.T) plugins.ObjectStore {
		t.Helper()
		return wrap(t, folder(t), decorate.Options{
			Prefix: "a/prefix", MaxInFlight: 3, Retry: &decorate.RetryOptions{Sleep: noSleep},
			Observe: func(context.Context, decorate.Event) { events.Add(1) },
		})
	}, storetest.Config{Large: 8 << 20, LongestKey: plugins.MaxKeyBytes - len("a/prefix/")})
	if events.Load() == 0 {
		t.Error("nothing was observed")
	}
}

func TestConformanceOfRetryOverFailures(t *testing.T) {
	storetest.Run(t, func(t *testing.T) plugins.ObjectStore {
		t.Helper()
		return decorate.Retry(&flaky{ObjectStore: folder(t)}, decorate.RetryOptions{Sleep: noSleep})
	}, storetest.Config{Large: 8 << 20})
}

// flaky fails every second Get, Stat and Delete before it does anything, and cuts every second List short. Puts, whose sources the suite
// does not let anyone rewind, it lets pass.
type flaky struct {
	plugins.ObjectStore
	calls atomic.Int64
}

var errFlaky = errors.New("network hiccup")

func (f *flaky) fails() bool { return f.calls.Add(1)%2 == 1 }

func (f *flaky) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if f.fails() && plugins.CheckKey(key) == nil && ctx.Err() == nil {
		return nil, errFlaky
	}
	return f.ObjectStore.Get(ctx, key, offset, length)
}

func (f *flaky) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	if f.fails() && plugins.CheckKey(key) == nil && ctx.Err() == nil {
		return plugins.ObjectInfo{}, errFlaky
	}
	return f.ObjectStore.Stat(ctx, key)
}

func (f *flaky) Delete(ctx context.Context, key string) error {
	if f.fails() && plugins.CheckKey(key) == nil && ctx.Err() == nil {
		return errFlaky
	}
	return f.ObjectStore.Delete(ctx, key)
}

func (f *flaky) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	if !f.fails() {
		return f.ObjectStore.List(ctx, prefix, fn)
	}
	shown := 0
	return f.ObjectStore.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		if shown++; shown > 2 {
			return errFlaky
		}
		return fn(info)
	})
}

// failing fails its first n Puts after having read a little.
type failing struct {
	plugins.ObjectStore
	left int
	err  error
}

func (f *failing) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if f.left > 0 {
		f.left--
		_, _ = r.Read(make([]byte, 3))
		return plugins.ObjectInfo{}, f.err
	}
	return f.ObjectStore.Put(ctx, key, r, opts)
}

func TestRetryPut(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		err      error
		source   io.Reader
		wantErr  error
		wantLeft int
	}{
		"rewinds":             {3, errFlaky, strings.NewReader("content"), nil, 0},
		"gives up":            {9, errFlaky, strings.NewReader("content"), errFlaky, 4},
		"a stream cannot":     {1, errFlaky, struct{ io.Reader }{strings.NewReader("content")}, errFlaky, 0},
		"a refusal is no try": {3, fmt.Errorf("put: %w", plugins.ErrAccess), strings.NewReader("content"), plugins.ErrAccess, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &failing{ObjectStore: folder(t), left: c.failures, err: c.err}
			store := decorate.Retry(inner, decorate.RetryOptions{Sleep: noSleep})
			_, err := store.Put(t.Context(), "key", c.source, plugins.PutOptions{})
			if !errors.Is(err, c.wantErr) || inner.left != c.wantLeft {
				t.Fatalf("%v with %d failures left, want %v with %d", err, inner.left, c.wantErr, c.wantLeft)
			}
			if err != nil {
				return
			}
			r, err := store.Get(t.Context(), "key", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := iotest.TestReader(r, []byte("content")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRetryPauses(t *testing.T) {
	var pauses []time.Duration
	store := decorate.Retry(&failing{ObjectStore: folder(t), left: 99, err: errFlaky}, decorate.RetryOptions{
		Attempts: 7, FirstPause: 100 * time.Millisecond, LastPause: time.Second,
		Sleep: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil },
	})
	if _, err := store.Put(t.Context(), "key", bytes.NewReader(nil), plugins.PutOptions{}); !errors.Is(err, errFlaky) {
		t.Errorf("%v", err)
	}
	longest := []time.Duration{100, 200, 400, 800, 1000, 1000}
	for i, d := range pauses {
		if upper := longest[i] * time.Millisecond; d < upper/2 || d > upper {
			t.Errorf("pause %d is %v, want %v to %v", i, d, upper/2, upper)
		}
	}
	if len(pauses) != len(longest) {
		t.Errorf("%d pauses, want %d", len(pauses), len(longest))
	}

	ctx, cancel := context.WithCancel(t.Context())
	store = decorate.Retry(&failing{ObjectStore: folder(t), left: 99, err: errFlaky}, decorate.RetryOptions{
		Sleep: func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() },
	})
	_, err := store.Put(ctx, "key", bytes.NewReader(nil), plugins.PutOptions{})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, errFlaky) {
		t.Errorf("cancelled in a pause: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	inner := folder(t)
	if _, err := inner.Put(t.Context(), "there", strings.NewReader("x"), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	store := wrap(t, inner, decorate.Options{ReadOnly: true, Observe: func(context.Context, decorate.Event) {}})
	_, err := store.Put(t.Context(), "there", strings.NewReader("y"), plugins.PutOptions{})
	want := "put " + inner.String() + "/there: access denied: the location is read-only (use another location, or make this one writable)"
	if !errors.Is(err, plugins.ErrAccess) || err.Error() != want {
		t.Errorf("Put gives %v, want %s", err, want)
	}
	if err := store.Delete(t.Context(), "there"); !errors.Is(err, plugins.ErrAccess) {
		t.Errorf("Delete gives %v", err)
	}
	if err := store.Delete(t.Context(), "../there"); !errors.Is(err, plugins.ErrInvalidKey) {
		t.Errorf("Delete of a bad key gives %v", err)
	}
	if info, err := store.Stat(t.Context(), "there"); err != nil || info.Size != 1 {
		t.Errorf("Stat gives %v, %v", info, err)
	}
	checker, ok := plugins.As[plugins.Checker](store)
	if !ok {
		t.Fatal("the store cannot be examined any more")
	}
	for _, f := range checker.Check(t.Context(), plugins.CheckOptions{}) {
		if f.Level != plugins.LevelOK || f.Name == "write" {
			t.Errorf("Check finds %+v", f)
		}
	}
}

// entrance counts who is inside.
type entrance struct {
	plugins.ObjectStore
	mu          sync.Mutex
	inside, max int
}

func (g *entrance) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside++
	g.max = max(g.max, g.inside)
}

func (g *entrance) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
}

func (g *entrance) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	g.enter()
	defer g.leave()
	return g.ObjectStore.Put(ctx, key, r, opts)
}

func TestLimit(t *testing.T) {
	inner := &entrance{ObjectStore: folder(t)}
	store := decorate.Limit(inner, 2)
	var group errgroup.Group
	for i := range 20 {
		group.Go(func() error {
			_, err := store.Put(t.Context(), fmt.Sprintf("k/%d", i), strings.NewReader("x"), plugins.PutOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if inner.max > 2 {
		t.Errorf("%d Puts were under way at once", inner.max)
	}

	// A Put streams from a Get though there is one turn only, and a List's callback reads.
	store = decorate.Limit(inner, 1)
	r, err := store.Get(t.Context(), "k/0", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "copy", r, plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := store.Get(ctx, "k/1", 0, -1); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("a wait with a cancelled context gives %v", err)
	}
	for range 2 { // the second Close gives no second turn back
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	err = store.List(t.Context(), "k/", func(info plugins.ObjectInfo) error {
		_, err := store.Stat(t.Context(), info.Key)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestObserve(t *testing.T) {
	var events []decorate.Event
	store := decorate.Observe(folder(t), time.Now, func(_ context.Context, e decorate.Event) { events = append(events, e) })
	_, _ = store.Put(t.Context(), "backups/a/b", strings.NewReader("12345"), plugins.PutOptions{})
	r, err := store.Get(t.Context(), "backups/a/b", 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(r)
	r.Close()
	r.Close()
	_, _ = store.Get(t.Context(), "absent", 0, -1)
	_, _ = store.Stat(t.Context(), "backups/a/b")
	_ = store.List(t.Context(), "backups/", func(plugins.ObjectInfo) error { return nil })
	_ = store.Delete(t.Context(), "kedge.json")
	var got []string
	for _, e := range events {
		if e.Start.IsZero() || e.Duration < 0 {
			t.Errorf("%+v has no time", e)
		}
		got = append(got, fmt.Sprintf("%s %s %q %d %v", e.Op, e.Key, e.Class, e.Bytes, errors.Is(e.Err, plugins.ErrNotFound)))
	}
	want := []string{
		`put backups/a/b "backups" 5 false`, `get backups/a/b "backups" 3 false`, `get absent "" 0 true`, `stat backups/a/b "backups" 0 false`,
		`list backups/ "backups" 1 false`, `delete kedge.json "" 0 false`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("observed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPrefixRefused(t *testing.T) {
	for _, prefix := range []string{"/", "a/", "../b", "a//b"} {
		if _, err := decorate.Wrap(folder(t), decorate.Options{Prefix: prefix}); prefix != "" && !errors.Is(err, plugins.ErrInvalidKey) {
			t.Errorf("prefix %q gives %v", prefix, err)
		}
	}
}
