package retention_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/server/retention"
)

func clock() time.Time { return now }

// folder opens a folder as a store.
func folder(tb testing.TB, path string) plugins.ObjectStore {
	tb.Helper()
	store, err := file.New(v1alpha1.FileLocation{Path: path}, file.Options{Now: clock})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

// create makes a store a location.
func create(tb testing.TB, store plugins.ObjectStore) *archive.Location {
	tb.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	l, _, err := archive.Init(tb.Context(), store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: clock, Rand: rand.Reader})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// write makes the archive that b describes, held if it is, with its deletion begun if that has.
func write(tb testing.TB, l *archive.Location, b retention.Backup, retain time.Time) {
	tb.Helper()
	opts := archive.WriteOptions{Name: b.Name, UID: b.UID, SpoolDir: tb.TempDir(), Kedge: "v0.0.0-test", Now: clock, Rand: rand.Reader, RetainUntil: retain}
	_, err := l.Write(tb.Context(), opts, func(context.Context, *archive.Writer) (*archive.Summary, error) {
		sum := &archive.Summary{Cluster: v1alpha1.ClusterInfo{UID: b.Cluster}, Phase: b.Phase, Started: b.Started, Completed: b.Completed, Expires: b.Expires}
		if b.Schedule != "" {
			sum.Labels = map[string]string{v1alpha1.ScheduleLabel: b.Schedule}
		}
		return sum, nil
	})
	if err == nil && b.Held {
		err = l.SetExpiry(tb.Context(), archive.Entry{Name: b.Name, UID: b.UID}, archive.Expiry{Expires: b.Expires, Hold: true, Reason: b.HoldReason, At: now})
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// orphan leaves what an attempt that crashed three days ago leaves.
func orphan(tb testing.TB, path, name, uid string) {
	tb.Helper()
	file := filepath.Join(path, "backups", name, uid, "0123456789abcdef", "items.tar.zst.age")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("remains"), 0o600); err != nil {
		tb.Fatal(err)
	}
	old := now.Add(-72 * time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		tb.Fatal(err)
	}
}

// dump is what a folder holds: the keys with a hash of each object.
func dump(tb testing.TB, path string) map[string]string {
	tb.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(name, ".kedge-") {
			return err
		}
		data, err := os.ReadFile(name) //nolint:gosec // the test's own folder
		sum := sha256.Sum256(data)
		out[strings.TrimPrefix(name, path+"/")] = hex.EncodeToString(sum[:4])
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// vault is a store with object lock on top of one that has none.
type vault struct {
	plugins.ObjectStore
	now func() time.Time

	mu    sync.Mutex
	until map[string]time.Time
	calls int
}

func newVault(store plugins.ObjectStore, now func() time.Time) *vault {
	return &vault{ObjectStore: store, now: now, until: map[string]time.Time{}}
}

func (v *vault) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	until := opts.RetainUntil
	opts.RetainUntil = time.Time{}
	info, err := v.ObjectStore.Put(ctx, key, r, opts)
	if err == nil && !until.IsZero() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.until[key] = until
	}
	return info, err
}

func (v *vault) Retain(ctx context.Context, key string, until time.Time) error {
	if _, err := v.Stat(ctx, key); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
	if until.After(v.until[key]) {
		v.until[key] = until
	}
	return nil
}

func (v *vault) Delete(ctx context.Context, key string) error {
	v.mu.Lock()
	until := v.until[key]
	v.mu.Unlock()
	if until.After(v.now()) {
		return &plugins.StoreError{Op: "delete", Store: v.String(), Key: key, Err: &plugins.RetainedError{Until: until}}
	}
	return v.ObjectStore.Delete(ctx, key)
}

// locks are the ends of all locks, by key.
func (v *vault) locks() map[string]time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.until)
}

var errDead = errors.New("the process was killed")

// mortal dies at a call: that one and all later ones fail. With late, the call takes effect before.
type mortal struct {
	plugins.ObjectStore
	at   int
	late bool

	mu   sync.Mutex
	n    int
	died string
}

func (m *mortal) dead(op, key string) (before, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	if m.n == m.at {
		m.died = fmt.Sprintf("%s %s (late: %v)", op, key, m.late)
	}
	return m.n > m.at || m.n == m.at && !m.late, m.n == m.at
}

func (m *mortal) do(op, key string, call func() error) error {
	before, after := m.dead(op, key)
	if before {
		return errDead
	}
	err := call()
	if after {
		return errDead
	}
	return err
}

func (m *mortal) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (info plugins.ObjectInfo, err error) {
	err = m.do("put", key, func() error {
		info, err = m.ObjectStore.Put(ctx, key, r, opts)
		return err
	})
	return info, err
}

func (m *mortal) Get(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	if before, after := m.dead("get", key); before || after {
		return nil, errDead
	}
	return m.ObjectStore.Get(ctx, key, offset, length)
}

func (m *mortal) Stat(ctx context.Context, key string) (info plugins.ObjectInfo, err error) {
	err = m.do("stat", key, func() error {
		info, err = m.ObjectStore.Stat(ctx, key)
		return err
	})
	return info, err
}

func (m *mortal) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	return m.do("list", prefix, func() error { return m.ObjectStore.List(ctx, prefix, fn) })
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	return m.do("delete", key, func() error { return m.ObjectStore.Delete(ctx, key) })
}

func (m *mortal) Retain(ctx context.Context, key string, until time.Time) error {
	return m.do("retain", key, func() error { return plugins.Retain(ctx, m.ObjectStore, key, until) })
}
