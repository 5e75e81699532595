package backup

import (
	"context"
	"sync"
)

// turnstile lets a number of callers through at once; of those that wait, the one with the greatest weight is next.
type turnstile struct {
	mu      sync.Mutex
	free    int
	waiting []*visitor
}

type visitor struct {
	weight int64
	enter  chan struct{}
}

func newTurnstile(n int) *turnstile { return &turnstile{free: n} }

func (t *turnstile) enter(ctx context.Context, weight int64) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	v := &visitor{weight, make(chan struct{})}
	t.waiting = append(t.waiting, v)
	t.mu.Unlock()
	select {
	case <-v.enter:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, w := range t.waiting {
		if w == v {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			t.mu.Unlock()
			return context.Cause(ctx)
		}
	}
	t.mu.Unlock()
	t.leave() // the turn came at the same moment: pass it on
	return context.Cause(ctx)
}

func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := -1
	for i, v := range t.waiting {
		if next < 0 || v.weight > t.waiting[next].weight {
			next = i
		}
	}
	if next < 0 {
		t.free++
		return
	}
	v := t.waiting[next]
	t.waiting = append(t.waiting[:next], t.waiting[next+1:]...)
	close(v.enter)
}
