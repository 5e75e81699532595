package decorate

import (
	"context"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"kedge.dev/kedge/plugins"
)

// Limit bounds what is under way at once: n reads (a Get until its reader is closed, a Stat), and beside them n writes (a Put, a Delete, a Retain). Reads do
// not wait for writes, so a Put may stream from a Get of the same store. A List takes no turn: it has one request under way, and its
// callback may call the store. Who holds a reader open must not wait for another one.
func Limit(store plugins.ObjectStore, n int) plugins.ObjectStore {
	return &limited{ObjectStore: store, reads: semaphore.NewWeighted(int64(n)), writes: semaphore.NewWeighted(int64(n))}
}

type limited struct {
	plugins.ObjectStore
	reads, writes *semaphore.Weighted
}

// Unwrap gives the unbounded store.
func (l *limited) Unwrap() plugins.ObjectStore { return l.ObjectStore }

// turn waits for one of the turns, no longer than ctx.
func (l *limited) turn(ctx context.Context, turns *semaphore.Weighted, op, key string) error {
	if turns.Acquire(ctx, 1) == nil {
		return nil
	}
	return &plugins.StoreError{Op: op, Store: l.String(), Key: key, Err: context.Cause(ctx)}
}

func (l *limited) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if err := l.turn(ctx, l.writes, "put", key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	defer l.writes.Release(1)
	return l.ObjectStore.Put(ctx, key, r, opts)
}

func (l *limited) Delete(ctx context.Context, key string) error {
	if err := l.turn(ctx, l.writes, "delete", key); err != nil {
		return err
	}
	defer l.writes.Release(1)
	return l.ObjectStore.Delete(ctx, key)
}

func (l *limited) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	if err := l.turn(ctx, l.reads, "stat", key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	defer l.reads.Release(1)
	return l.ObjectStore.Stat(ctx, key)
}

func (l *limited) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := l.turn(ctx, l.reads, "get", key); err != nil {
		return nil, err
	}
	r, err := l.ObjectStore.Get(ctx, key, offset, length)
	if err != nil {
		l.reads.Release(1)
		return nil, err
	}
	return &limitedReader{ReadCloser: r, release: sync.OnceFunc(func() { l.reads.Release(1) })}, nil
}

// limitedReader gives its turn back when it is closed.
type limitedReader struct {
	io.ReadCloser
	release func()
}

func (r *limitedReader) Close() error {
	defer r.release()
	return r.ReadCloser.Close()
}
