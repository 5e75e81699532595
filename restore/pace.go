package restore

import (
	"context"
	"sync"
	"time"
)

// pace bounds the creates in flight to what the target gets through, and finds the bound itself. A server that is busy answers no
// faster for being asked by more at once: on two shared processors, 32 creates in flight were often half as fast as 16. So the
// bound goes beyond 16 only where the creates form no queue at the server, as TCP Vegas judges it (Brakmo and Peterson 1994):
// of n in flight, n*(1 - quickest/took) are waiting there. Where answers take long because of the way, and not because of the
// server, there is no queue, and the bound grows.
type pace struct {
	mu       sync.Mutex
	limit    float64
	most     float64
	inFlight int
	waiting  []chan struct{}
	quickest time.Duration
}

const (
	// firstPace is small, so that the first answers tell how quick the server can be.
	firstPace = 4
	// steadyPace is what every server is asked for at once.
	steadyPace = 16
	// shortQueue and longQueue are the lengths below which the bound grows and above which it shrinks.
	shortQueue, longQueue = 6, 10
)

func newPace(most int) *pace {
	return &pace{limit: min(firstPace, float64(most)), most: float64(most)}
}

// begin waits for a turn.
func (p *pace) begin(ctx context.Context) error {
	p.mu.Lock()
	if len(p.waiting) == 0 && float64(p.inFlight) < p.limit {
		p.inFlight++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return ctx.Err() // of the whole run: nobody waits for the turn that may come all the same
	}
}

// end gives the turn back and learns from how long the create took; zero teaches nothing.
func (p *pace) end(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took > 0 {
		p.learn(took)
	}
	p.inFlight--
	for len(p.waiting) > 0 && float64(p.inFlight) < p.limit {
		p.inFlight++
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
	}
}

func (p *pace) learn(took time.Duration) {
	if p.quickest == 0 || took < p.quickest {
		p.quickest = took
	}
	queue := float64(p.inFlight) * (1 - float64(p.quickest)/float64(took))
	switch {
	case p.limit < steadyPace:
		p.limit = min(p.most, p.limit+0.25)
	case queue > longQueue:
		p.limit = max(min(steadyPace, p.most), p.limit-1/p.limit)
	case queue < shortQueue && float64(p.inFlight) >= p.limit/2:
		p.limit = min(p.most, p.limit+1/p.limit)
	}
}
