// Package repositorytest has what the tests of volume copies share: an object store in memory with a clock of its own, that counts, and that
// can die at a chosen operation.
package repositorytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"kedge.dev/kedge/plugins"
)

// ErrDead is what a store says that has died.
var ErrDead = errors.New("the store is gone")

// Clock is a time that moves when it is told to, and a millisecond whenever it is read: kopia takes the later of two changes for the valid one.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock starts at t.
func NewClock(t time.Time) *Clock { return &Clock{t: t} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(time.Millisecond)
	return c.t
}

// Advance moves the time.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// Store is a bucket in memory. Clones of it share nothing.
type Store struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string]object
	ops     int
	log     []string
	dieAt   int
	stored  bool

	put, got int64
	puts     int
}

type object struct {
	data     []byte
	modified time.Time
	retained time.Time
}

var (
	_ plugins.ObjectStore = (*Store)(nil)
	_ plugins.Retainer    = (*Store)(nil)
)

// NewStore is an empty bucket whose objects are dated by now.
func NewStore(now func() time.Time) *Store { return &Store{now: now, objects: map[string]object{}} }

// Clone is the same bucket, alive and with its counters at zero.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{now: s.now, objects: maps.Clone(s.objects)}
}

// DieAt makes the n-th operation from now on, and all after it, fail; where stored is set, the n-th takes effect in spite of that.
func (s *Store) DieAt(n int, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops, s.log, s.dieAt, s.stored = 0, nil, n, stored
}

// Ops is how many operations there were since DieAt, or since the store was made.
func (s *Store) Ops() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops
}

// Op names the n-th of them.
func (s *Store) Op(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 1 || n > len(s.log) {
		return fmt.Sprintf("operation %d", n)
	}
	return s.log[n-1]
}

// Written is how many bytes were put, in how many objects, since the last call; Read how many were got.
func (s *Store) Written() (bytes int64, objects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes, objects = s.put, s.puts
	s.put, s.puts = 0, 0
	return bytes, objects
}

// Read is how many bytes were got since the last call.
func (s *Store) Read() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.got
	s.got = 0
	return n
}

// Keys lists the objects that begin with prefix.
func (s *Store) Keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.objects {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Size is the object's size; 0 where there is none.
func (s *Store) Size(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects[key].data)
}

// Flip changes one bit of an object.
func (s *Store) Flip(key string, offset int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[key]
	o.data = bytes.Clone(o.data)
	o.data[offset] ^= 1
	s.objects[key] = o
}

// Drop removes an object behind everybody's back.
func (s *Store) Drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
}

// step counts an operation, and fails it where the store is dead. effect says whether it is to take effect.
func (s *Store) step(ctx context.Context, op, key string) (effect bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, s.fail(op, key, context.Cause(ctx))
	}
	if err := plugins.CheckPrefix(key); err != nil {
		return false, s.fail(op, key, err)
	}
	s.ops++
	s.log = append(s.log, op+" "+key)
	if s.dieAt > 0 && s.ops >= s.dieAt {
		return s.ops == s.dieAt && s.stored, s.fail(op, key, ErrDead)
	}
	return true, nil
}

func (s *Store) fail(op, key string, err error) error {
	return &plugins.StoreError{Op: op, Store: s.String(), Key: key, Err: err}
}

// Put stores an object.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if err := plugins.CheckKey(key); err != nil {
		return plugins.ObjectInfo{}, s.fail("put", key, err)
	}
	var body bytes.Buffer
	if sized, ok := r.(interface{ Len() int }); ok {
		body.Grow(sized.Len() + bytes.MinRead)
	}
	if _, err := body.ReadFrom(r); err != nil {
		return plugins.ObjectInfo{}, s.fail("put", key, err)
	}
	data := body.Bytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	effect, err := s.step(ctx, "put", key)
	if effect {
		old, there := s.objects[key]
		switch {
		case there && opts.IfNoneMatch:
			return plugins.ObjectInfo{}, s.fail("put", key, plugins.ErrExists)
		case there && s.now().Before(old.retained):
			return plugins.ObjectInfo{}, s.fail("put", key, &plugins.RetainedError{Until: old.retained})
		}
		s.objects[key] = object{data: data, modified: s.now(), retained: opts.RetainUntil}
		s.put += int64(len(data))
		s.puts++
	}
	if err != nil {
		return plugins.ObjectInfo{}, err
	}
	return plugins.ObjectInfo{Key: key, Size: int64(len(data)), LastModified: s.now()}, nil
}

// Get opens a range of an object.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.step(ctx, "get", key); err != nil {
		return nil, err
	}
	o, there := s.objects[key]
	switch {
	case !there:
		return nil, s.fail("get", key, plugins.ErrNotFound)
	case offset < 0 || offset > int64(len(o.data)):
		return nil, s.fail("get", key, plugins.ErrRange)
	}
	data := o.data[offset:]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	s.got += int64(len(data))
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.step(ctx, "stat", key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	o, there := s.objects[key]
	if !there {
		return plugins.ObjectInfo{}, s.fail("stat", key, plugins.ErrNotFound)
	}
	return plugins.ObjectInfo{Key: key, Size: int64(len(o.data)), LastModified: o.modified}, nil
}

// List calls fn for the objects that begin with prefix.
func (s *Store) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	s.mu.Lock()
	_, err := s.step(ctx, "list", prefix)
	objects := maps.Clone(s.objects)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		o := objects[key]
		if err := fn(plugins.ObjectInfo{Key: key, Size: int64(len(o.data)), LastModified: o.modified}); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	effect, err := s.step(ctx, "delete", key)
	if effect {
		if o := s.objects[key]; s.now().Before(o.retained) {
			return s.fail("delete", key, &plugins.RetainedError{Until: o.retained})
		}
		delete(s.objects, key)
	}
	return err
}

// Retain protects an object for longer.
func (s *Store) Retain(ctx context.Context, key string, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	effect, err := s.step(ctx, "retain", key)
	if effect {
		o, there := s.objects[key]
		if !there {
			return s.fail("retain", key, plugins.ErrNotFound)
		}
		if until.After(o.retained) {
			o.retained = until
			s.objects[key] = o
		}
	}
	return err
}

func (s *Store) String() string { return "memory://" }
