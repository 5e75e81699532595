package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
)

// ErrNotBegun says of work that it was not begun, because that could not be written down.
var ErrNotBegun = errors.New("not begun")

// noteFor bounds how long it is tried to write down that work was stopped: the process waits for it, and its lease is short.
const noteFor = 5 * time.Second

// Noted is work of which it is written down when it begins, so that a server that ends over it is seen by the next, and where it is ended because
// all work ends: a stop in order says nothing about the work. Where begins fails nothing is done, and the error is ErrNotBegun. What stopped
// returns is dropped: a server that was replaced may not write any more.
func Noted[T any](work Work[T], begins, stopped func(context.Context) error) Work[T] {
	return func(ctx context.Context, report func(v1alpha1.Progress)) (result T, err error) {
		if err := begins(ctx); err != nil {
			return result, fmt.Errorf("%w: %w", ErrNotBegun, err)
		}
		defer func() {
			if ctx.Err() == nil || errors.Is(context.Cause(ctx), ErrCancelled) {
				return
			}
			late, done := context.WithTimeout(context.WithoutCancel(ctx), noteFor)
			defer done()
			_ = stopped(late)
		}()
		return work(ctx, report)
	}
}
