// Package gate lets a process act on the world only while it is known to be the one that may. Whoever holds a lease opens the gate with
// each renewal, for less time than the lease lasts; requests that change something pass through it.
package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrShut means that a request was not sent, because the process is not the one that may send it any more. It never will be again.
var ErrShut = errors.New("this server is not the leader any more")

// Reading is one look at both clocks of a machine. A wall clock can be set back; a monotonic one stands still while the machine, or the
// virtual machine, sleeps. What neither says is over is not over.
type Reading struct {
	Wall time.Time
	Mono time.Duration // since any fixed moment
}

// since is the longer of the times that the clocks say have passed.
func (r Reading) since(earlier Reading) time.Duration {
	return max(r.Wall.Sub(earlier.Wall), r.Mono-earlier.Mono)
}

// Clocks makes readings of a function such as time.Now, whose times have a monotonic part.
func Clocks(now func() time.Time) func() Reading {
	start := now()
	return func() Reading {
		t := now()
		return Reading{Wall: t.Round(0), Mono: t.Sub(start)} // Round takes the monotonic part away
	}
}

// Gate is shut until Renewed is called, then open for so long after the beginning of the last renewal. It may be used from many goroutines. A nil
// Gate is always open.
type Gate struct {
	read  func() Reading
	holds time.Duration

	mu      sync.Mutex
	begun   bool          // it was open at least once
	renewed Reading       // when the last renewal began
	shut    error         // not nil: for ever
	changed chan struct{} // closed when any of the above changes
}

// New makes a gate that each renewal opens for so long.
func New(holds time.Duration, read func() Reading) *Gate {
	return &Gate{read: read, holds: holds, changed: make(chan struct{})}
}

// Read looks at the clocks. What it gives before a renewal is sent is what Renewed takes when it has succeeded.
func (g *Gate) Read() Reading { return g.read() }

// Renewed opens the gate, for a renewal that began at began. One that took too long opens nothing.
func (g *Gate) Renewed(began Reading) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begun, g.renewed = true, began
	g.tell()
}

// Begun says whether the gate was open at any time.
func (g *Gate) Begun() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begun
}

// Err is why the gate is shut for ever; nil where it is not.
func (g *Gate) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// Shut shuts the gate for ever. The first reason counts.
func (g *Gate) Shut(reason string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = fmt.Errorf("%w: %s", ErrShut, reason)
		g.tell()
	}
}

// tell wakes who waits. It is called with the lock held.
func (g *Gate) tell() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Pass returns nil when something may begin now. Where the last renewal is too old, it waits: for the next one, which opens the gate again;
// for the gate to be shut for ever, which is ErrShut; or for ctx.
//
// Nothing can make what follows a Pass simultaneous with it: a process can be stopped right behind it. What is sent then must do no
// harm by itself.
func (g *Gate) Pass(ctx context.Context) error {
	if g == nil {
		return nil
	}
	for {
		g.mu.Lock()
		shut, changed := g.shut, g.changed
		open := g.begun && g.read().since(g.renewed) < g.holds
		g.mu.Unlock()
		switch {
		case shut != nil:
			return shut
		case open:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until the lease is renewed: %w", context.Cause(ctx))
		}
	}
}
