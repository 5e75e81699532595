package decorate

import (
	"context"
	"io"
	"strings"
	"time"

	"kedge.dev/kedge/plugins"
)

// Event is one finished operation.
type Event struct {
	// Op is "put", "get", "stat", "list", "delete" or "retain".
	Op string
	// Key is the object, or the prefix of a list. Class is what a metric may be labelled with: the first segment of the key.
	Key, Class string
	// Start and Duration: of a get until its reader is closed.
	Start    time.Time
	Duration time.Duration
	// Bytes that were stored or read; of a list, the number of objects.
	Bytes int64
	// Err is what the operation, or the reading, returned; nil also for a reader that was closed early.
	Err error
}

// Observe calls fn after every operation, from the goroutine that made it; fn must be quick and safe for use by many. now is the clock.
func Observe(store plugins.ObjectStore, now func() time.Time, fn func(ctx context.Context, e Event)) plugins.ObjectStore {
	return &observed{ObjectStore: store, fn: fn, now: now}
}

type observed struct {
	plugins.ObjectStore
	fn  func(ctx context.Context, e Event)
	now func() time.Time
}

// Unwrap gives the store that nobody watches.
func (o *observed) Unwrap() plugins.ObjectStore { return o.ObjectStore }

func (o *observed) begin(op, key string) Event {
	class, _, nested := strings.Cut(key, "/")
	if !nested {
		class = "" // the few objects at the top have no class, and a key of its own is no label
	}
	return Event{Op: op, Key: key, Class: class, Start: o.now()}
}

func (o *observed) end(ctx context.Context, e Event, err error) {
	e.Err, e.Duration = err, o.now().Sub(e.Start)
	o.fn(ctx, e)
}

func (o *observed) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	e := o.begin("put", key)
	info, err := o.ObjectStore.Put(ctx, key, r, opts)
	e.Bytes = info.Size
	o.end(ctx, e, err)
	return info, err
}

func (o *observed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	e := o.begin("get", key)
	r, err := o.ObjectStore.Get(ctx, key, offset, length)
	if err != nil {
		o.end(ctx, e, err)
		return nil, err
	}
	return &observedReader{ReadCloser: r, ctx: ctx, store: o, event: e}, nil
}

func (o *observed) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	e := o.begin("stat", key)
	info, err := o.ObjectStore.Stat(ctx, key)
	o.end(ctx, e, err)
	return info, err
}

func (o *observed) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	e := o.begin("list", prefix)
	err := o.ObjectStore.List(ctx, prefix, func(info plugins.ObjectInfo) error {
		e.Bytes++
		return fn(info)
	})
	o.end(ctx, e, err)
	return err
}

func (o *observed) Delete(ctx context.Context, key string) error {
	e := o.begin("delete", key)
	err := o.ObjectStore.Delete(ctx, key)
	o.end(ctx, e, err)
	return err
}

// observedReader counts, and reports when it is closed.
type observedReader struct {
	io.ReadCloser
	ctx   context.Context // the contract of Get: ctx governs the reader until it is closed
	store *observed
	event Event
	err   error
	done  bool
}

func (r *observedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.event.Bytes += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *observedReader) Close() error {
	err := r.ReadCloser.Close()
	if !r.done {
		r.done = true
		if r.err == nil {
			r.err = err
		}
		r.store.end(r.ctx, r.event, r.err)
	}
	return err
}
