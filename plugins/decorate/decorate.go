// Package decorate wraps object stores in what every one of them needs and none should know: bounds, measurements, second attempts, a prefix,
// a guard against writes.
package decorate

import (
	"context"
	"time"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
)

// Options choose the decorators. The zero value chooses none.
type Options struct {
	// Prefix is a folder within the store that becomes the whole of it, without slashes at its ends.
	Prefix string
	// ReadOnly refuses every write.
	ReadOnly bool
	// Gate is passed by each attempt at a write. Nil is always open.
	Gate *gate.Gate
	// MaxInFlight bounds reads, and writes likewise, that are under way at once. Zero does not.
	MaxInFlight int
	// Retry tries again what failed, for stores that do not do so themselves. Nil does not.
	Retry *RetryOptions
	// Observe is told of every operation as the engines see it, waits and attempts included. Nil is not.
	Observe func(ctx context.Context, e Event)
	// Now is the clock of Observe; nil means time.Now.
	Now func() time.Time
}

// Wrap composes the decorators around a store. An operation passes them from the outside in: it is observed, refused if it may not be, waits
// for its turn, is tried again, passes the gate, and gets its prefix. So a wait for a turn counts as time, a second attempt needs no second turn, and
// it is the attempt that passes the gate.
func Wrap(store plugins.ObjectStore, opts Options) (plugins.ObjectStore, error) {
	if opts.Prefix != "" {
		prefixed, err := Prefix(store, opts.Prefix)
		if err != nil {
			return nil, err
		}
		store = prefixed
	}
	if opts.Gate != nil {
		store = Gated(store, opts.Gate)
	}
	if opts.Retry != nil {
		store = Retry(store, *opts.Retry)
	}
	if opts.MaxInFlight > 0 {
		store = Limit(store, opts.MaxInFlight)
	}
	if opts.ReadOnly {
		store = ReadOnly(store)
	}
	if opts.Observe != nil {
		now := opts.Now
		if now == nil {
			now = time.Now //nolint:forbidigo // the default of a field
		}
		store = Observe(store, now, opts.Observe)
	}
	return store, nil
}
