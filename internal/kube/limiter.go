package kube

import (
	"context"
	"sync"
	"time"
)

// limiter bounds the requests in flight, and finds the bound itself: each success raises it a little, each sign of overload (429,
// 503, an answer that takes seconds to begin) cuts it (additive increase, multiplicative decrease).
type limiter struct {
	mu       sync.Mutex
	limit    float64
	max      float64
	inFlight int
	waiting  []chan struct{}
	cutAt    time.Time // when the limit was last cut
	now      func() time.Time
}

const (
	initialInFlight = 16
	slowAnswer      = 5 * time.Second
	// cutPause keeps one burst of refusals from counting as many.
	cutPause = 500 * time.Millisecond
)

func newLimiter(ceiling int, now func() time.Time) *limiter {
	return &limiter{limit: min(initialInFlight, float64(ceiling)), max: float64(ceiling), now: now}
}

// acquire waits for a slot.
func (l *limiter) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if len(l.waiting) == 0 && float64(l.inFlight) < l.limit {
		l.inFlight++
		l.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	l.waiting = append(l.waiting, ready)
	l.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.waiting {
		if w == ready {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	// The slot came at the same moment: hand it on.
	l.inFlight--
	l.wake()
	return ctx.Err()
}

// release gives the slot back. Overloaded says that the server showed signs of it.
func (l *limiter) release(overloaded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if overloaded {
		if now := l.now(); now.Sub(l.cutAt) >= cutPause {
			l.cutAt = now
			l.limit = max(1, l.limit/2)
		}
	} else {
		l.limit = min(l.max, l.limit+1/l.limit)
	}
	l.wake()
}

func (l *limiter) wake() {
	for len(l.waiting) > 0 && float64(l.inFlight) < l.limit {
		l.inFlight++
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
	}
}

// current is the bound as it stands.
func (l *limiter) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.limit)
}
