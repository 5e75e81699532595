package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"kedge.dev/kedge/plugins"
)

// memory is an object store for tests that counts, and that can die at a chosen operation.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	changed map[string]time.Time
	clock   time.Time
	ops     int
	read    int64
	reads   map[string]int64 // by key, where there is a map

	// dieAt is the operation (from 1) at which the store dies and stays dead; 0 never. A Put that dies has stored its
	// object where dieStored is set: the reply is lost.
	dieAt     int
	dieStored bool
	log       []string
	// lose says that the reply to a Put that has taken effect is lost.
	lose func(key string) bool
	// retained are keys that cannot be removed.
	retained map[string]bool
	// before runs before each operation, outside of the lock.
	before func(op, key string) error
}

var errDead = errors.New("the store is gone")

func newMemory() *memory {
	return &memory{objects: map[string][]byte{}, changed: map[string]time.Time{}, clock: testNow}
}

// clone is the same bucket for a client that is alive.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemory()
	c.clock = m.clock
	for k, v := range m.objects {
		c.objects[k], c.changed[k] = bytes.Clone(v), m.changed[k]
	}
	return c
}

func (m *memory) keys(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.objects {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// step counts an operation. dead says that it fails, stored that a Put takes effect in spite of that.
func (m *memory) step(ctx context.Context, op, key string) (dead, stored bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	if m.before != nil {
		if err := m.before(op, key); err != nil {
			return false, false, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ops++
	m.log = append(m.log, op+" "+key)
	dead = m.dieAt > 0 && m.ops >= m.dieAt
	return dead, dead && m.ops == m.dieAt && m.dieStored, nil
}

func (m *memory) fail(op, key string, err error) error {
	return &plugins.StoreError{Op: op, Store: m.String(), Key: key, Err: err}
}

func (m *memory) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if err := plugins.CheckKey(key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	dead, stored, err := m.step(ctx, "put", key)
	if err != nil {
		return plugins.ObjectInfo{}, m.fail("put", key, err)
	}
	if dead && !stored {
		return plugins.ObjectInfo{}, m.fail("put", key, errDead)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return plugins.ObjectInfo{}, m.fail("put", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.objects[key]; there && opts.IfNoneMatch {
		return plugins.ObjectInfo{}, m.fail("put", key, plugins.ErrExists)
	}
	m.objects[key], m.changed[key] = data, m.clock
	if dead || m.lose != nil && m.lose(key) {
		return plugins.ObjectInfo{}, m.fail("put", key, errDead)
	}
	return plugins.ObjectInfo{Key: key, Size: int64(len(data)), LastModified: m.clock}, nil
}

func (m *memory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	dead, _, err := m.step(ctx, "get", key)
	if err != nil {
		return nil, m.fail("get", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, there := m.objects[key]
	switch {
	case dead:
		return nil, m.fail("get", key, errDead)
	case !there:
		return nil, m.fail("get", key, plugins.ErrNotFound)
	case offset > int64(len(data)):
		return nil, m.fail("get", key, plugins.ErrRange)
	}
	data = data[offset:]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	m.read += int64(len(data))
	if m.reads != nil {
		m.reads[key] += int64(len(data))
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memory) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	dead, _, err := m.step(ctx, "stat", key)
	if err != nil {
		return plugins.ObjectInfo{}, m.fail("stat", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, there := m.objects[key]
	if dead {
		return plugins.ObjectInfo{}, m.fail("stat", key, errDead)
	}
	if !there {
		return plugins.ObjectInfo{}, m.fail("stat", key, plugins.ErrNotFound)
	}
	return plugins.ObjectInfo{Key: key, Size: int64(len(data)), LastModified: m.changed[key]}, nil
}

func (m *memory) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	dead, _, err := m.step(ctx, "list", prefix)
	if err != nil || dead {
		return m.fail("list", prefix, errors.Join(err, errDead))
	}
	for _, k := range m.keys(prefix) {
		m.mu.Lock()
		info := plugins.ObjectInfo{Key: k, Size: int64(len(m.objects[k])), LastModified: m.changed[k]}
		m.mu.Unlock()
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Delete(ctx context.Context, key string) error {
	dead, stored, err := m.step(ctx, "delete", key)
	if err != nil {
		return m.fail("delete", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retained[key] && !dead {
		return m.fail("delete", key, plugins.ErrRetained)
	}
	if !dead || stored {
		delete(m.objects, key)
	}
	if dead {
		return m.fail("delete", key, errDead)
	}
	return nil
}

func (m *memory) String() string { return "memory://" }

// operations is what the store was asked, for messages.
func (m *memory) operation(n int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n < 1 || n > len(m.log) {
		return fmt.Sprintf("operation %d", n)
	}
	return m.log[n-1]
}
