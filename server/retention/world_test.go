package retention_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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

// bucket is a store in memory, with object lock.
type bucket struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string][]byte
	changed map[string]time.Time
	until   map[string]time.Time
	calls   int // of Retain
}

func newBucket(now func() time.Time) *bucket {
	return &bucket{now: now, objects: map[string][]byte{}, changed: map[string]time.Time{}, until: map[string]time.Time{}}
}

// clone is a bucket with the same objects.
func (b *bucket) clone() *bucket {
	return &bucket{now: b.now, objects: maps.Clone(b.objects), changed: maps.Clone(b.changed), until: maps.Clone(b.until)}
}

// dump is what the bucket holds: the keys, each with the object and its lock.
func (b *bucket) dump() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]string{}
	for key, data := range b.objects {
		out[key] = fmt.Sprintf("%x %s", sha256.Sum256(data), b.until[key])
	}
	return out
}

// orphan leaves what an attempt that crashed three days ago leaves.
func (b *bucket) orphan(name, uid string) {
	key := "backups/" + name + "/" + uid + "/0123456789abcdef/items.tar.zst.age"
	b.objects[key], b.changed[key] = []byte("remains"), now.Add(-72*time.Hour)
}

func (b *bucket) fail(op, key string, err error) error {
	return &plugins.StoreError{Op: op, Store: b.String(), Key: key, Err: err}
}

func (b *bucket) Put(_ context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	data, err := io.ReadAll(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.objects[key]; err == nil && there && opts.IfNoneMatch {
		err = plugins.ErrExists
	}
	if err != nil {
		return plugins.ObjectInfo{}, b.fail("put", key, err)
	}
	b.objects[key], b.changed[key] = data, b.now()
	if !opts.RetainUntil.IsZero() {
		b.until[key] = opts.RetainUntil
	}
	return b.info(key), nil
}

func (b *bucket) info(key string) plugins.ObjectInfo {
	return plugins.ObjectInfo{Key: key, Size: int64(len(b.objects[key])), LastModified: b.changed[key]}
}

func (b *bucket) Get(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, there := b.objects[key]
	if !there {
		return nil, b.fail("get", key, plugins.ErrNotFound)
	}
	data = data[offset:]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (b *bucket) Stat(_ context.Context, key string) (plugins.ObjectInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.objects[key]; !there {
		return plugins.ObjectInfo{}, b.fail("stat", key, plugins.ErrNotFound)
	}
	return b.info(key), nil
}

func (b *bucket) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	b.mu.Lock()
	var found []plugins.ObjectInfo
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(key, prefix) {
			found = append(found, b.info(key))
		}
	}
	b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return b.fail("list", prefix, err)
	}
	for _, info := range found {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until := b.until[key]; until.After(b.now()) {
		return b.fail("delete", key, &plugins.RetainedError{Until: until})
	}
	delete(b.objects, key)
	delete(b.until, key)
	return nil
}

func (b *bucket) Retain(_ context.Context, key string, until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.objects[key]; !there {
		return b.fail("retain", key, plugins.ErrNotFound)
	}
	b.calls++
	if until.After(b.until[key]) {
		b.until[key] = until
	}
	return nil
}

func (b *bucket) String() string { return "memory://" }

var errDead = errors.New("the process was killed")

// mortal dies at a call (from 1; 0 never): that one and all later ones fail. With late, the call takes effect before.
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
	if m.at == 0 {
		return false, false
	}
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
