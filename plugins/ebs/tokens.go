package ebs

import (
	"context"
	"sync"
)

// mostTokens bounds the tokens that are remembered, some 100 bytes each.
const mostTokens = 10_000

// tokens are those of the snapshots that this process has asked for: nobody asks with one while another does, and who asks with one that was used
// knows that EC2 may not show yet what it made. The zero value is ready.
type tokens struct {
	mu    sync.Mutex
	asked map[string]bool
	busy  map[string]chan struct{} // closed when the token is free again
}

// take waits until nobody else has the token, and says whether somebody had it before. release gives it back.
func (t *tokens) take(ctx context.Context, token string) (before bool, release func(), err error) {
	for {
		t.mu.Lock()
		free, taken := t.busy[token]
		if !taken {
			break
		}
		t.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return false, nil, context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	if t.asked == nil {
		t.asked, t.busy = map[string]bool{}, map[string]chan struct{}{}
	}
	before = t.asked[token]
	if len(t.asked) >= mostTokens {
		clear(t.asked) // what was asked long ago is shown by now
	}
	t.asked[token] = true
	done := make(chan struct{})
	t.busy[token] = done
	return before, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, token)
		close(done)
	}, nil
}

// forget makes a token one that was never asked with: the service refused, and so there is nothing to be found.
func (t *tokens) forget(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.asked, token)
}
