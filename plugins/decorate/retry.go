package decorate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"kedge.dev/kedge/internal/clock"
	"kedge.dev/kedge/plugins"
)

// RetryOptions say how often and how soon. The zero value means 5 attempts, the first pause up to 200 milliseconds, the longest 10 seconds.
type RetryOptions struct {
	Attempts              int
	FirstPause, LastPause time.Duration
	// Sleep waits for d or for ctx; nil is a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Retry tries again, with growing, jittered pauses, what failed for a reason that may pass: every error but those that wrap a sentinel of package
// plugins, and a cancel. A Put is tried again only where its source can be rewound (io.Seeker); with IfNoneMatch the second attempt may
// meet what the first one stored, as the contract says of lost replies. Of a Get it is the opening that is tried again, and a List goes on
// behind the last key that it showed.
func Retry(store plugins.ObjectStore, opts RetryOptions) plugins.ObjectStore {
	if opts.Attempts <= 0 {
		opts.Attempts = 5
	}
	if opts.FirstPause <= 0 {
		opts.FirstPause = 200 * time.Millisecond
	}
	if opts.LastPause <= 0 {
		opts.LastPause = 10 * time.Second
	}
	if opts.Sleep == nil {
		opts.Sleep = clock.Sleep
	}
	return &retrying{ObjectStore: store, opts: opts}
}

type retrying struct {
	plugins.ObjectStore
	opts RetryOptions
}

// Unwrap gives the store that tries once.
func (r *retrying) Unwrap() plugins.ObjectStore { return r.ObjectStore }

// gotOnError is a failure after some progress, from which on the attempts are counted anew.
type gotOnError struct{ err error }

func (e *gotOnError) Error() string { return e.err.Error() }

// do calls attempt until it succeeds, fails for good, or has been called often enough. The last error is returned.
func (r *retrying) do(ctx context.Context, attempt func() error) error {
	pause := r.opts.FirstPause
	for n := 1; ; n++ {
		err := attempt()
		if on, ok := errors.AsType[*gotOnError](err); ok {
			err, n, pause = on.err, 1, r.opts.FirstPause
		}
		if err == nil || n == r.opts.Attempts || plugins.Permanent(err) || ctx.Err() != nil {
			return err
		}
		jittered := pause/2 + rand.N(pause/2+1) //nolint:gosec // jitter is no secret
		if cancelled := r.opts.Sleep(ctx, jittered); cancelled != nil {
			return fmt.Errorf("%w (%w while waiting to try again)", err, cancelled)
		}
		pause = min(2*pause, r.opts.LastPause)
	}
}

func (r *retrying) Put(ctx context.Context, key string, source io.Reader, opts plugins.PutOptions) (info plugins.ObjectInfo, err error) {
	seeker, ok := source.(io.Seeker)
	if !ok {
		return r.ObjectStore.Put(ctx, key, source, opts)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return r.ObjectStore.Put(ctx, key, source, opts) // a pipe in a file's clothes
	}
	err = r.do(ctx, func() error {
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return err
		}
		info, err = r.ObjectStore.Put(ctx, key, source, opts)
		return err
	})
	return info, err
}

func (r *retrying) Get(ctx context.Context, key string, offset, length int64) (reader io.ReadCloser, err error) {
	err = r.do(ctx, func() error {
		reader, err = r.ObjectStore.Get(ctx, key, offset, length)
		return err
	})
	return reader, err
}

func (r *retrying) Stat(ctx context.Context, key string) (info plugins.ObjectInfo, err error) {
	err = r.do(ctx, func() error {
		info, err = r.ObjectStore.Stat(ctx, key)
		return err
	})
	return info, err
}

func (r *retrying) Delete(ctx context.Context, key string) error {
	return r.do(ctx, func() error { return r.ObjectStore.Delete(ctx, key) })
}

func (r *retrying) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	var last string
	var callback error
	err := r.do(ctx, func() error {
		before := last
		err := r.ObjectStore.List(ctx, prefix, func(info plugins.ObjectInfo) error {
			if last != "" && info.Key <= last {
				return nil // shown by an earlier attempt
			}
			last = info.Key
			callback = fn(info)
			return callback
		})
		if callback != nil {
			return nil //nolint:nilerr // the caller's own error is no failure of the store
		}
		if err != nil && last != before {
			return &gotOnError{err}
		}
		return err
	})
	if callback != nil {
		return callback
	}
	return err
}
