// Package lease says which of several servers works. The election is client-go's; this package opens the gate that everything the leader
// does to the world passes, and keeps a server that was replaced from giving away, or taking back, what is another's by now.
package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kedge.dev/kedge/internal/gate"
)

// Name is the Lease's.
const Name = "kedge-server"

// Shortest is the shortest lease. The Lease object has whole seconds, so that a fraction would end for others before it ends for its holder.
const Shortest = 3 * time.Second

// Times are those of an election.
type Times struct {
	// Lease is how long a leader that is not heard of stays the leader.
	Lease time.Duration
	// Renew is how long after the beginning of its last renewal a leader begins nothing any more, and how long it tries to renew before it
	// gives up. What is left of the lease then is for requests under way, and for clocks that do not run alike.
	Renew time.Duration
	// Retry is the time between two renewals.
	Retry time.Duration
}

// TimesOf are the times for a lease of so long; zero means 15 seconds.
func TimesOf(lease time.Duration) (Times, error) {
	switch {
	case lease == 0:
		lease = 15 * time.Second
	case lease < Shortest || lease%time.Second != 0:
		return Times{}, fmt.Errorf("use a lease of %s: the lease is counted in whole seconds, at least %d (give such a number, as 15s)", lease, Shortest/time.Second)
	}
	return Times{Lease: lease, Renew: lease * 2 / 3, Retry: lease / 7}, nil
}

// Lock is the Lease as the election sees it. It opens the gate with each renewal, and shuts it for ever as soon as it is known that
// another server holds the lease, or that this one gives it away.
type Lock struct {
	resourcelock.Interface
	gate *gate.Gate
	log  logr.Logger

	mu     sync.Mutex
	holder string // as last read or written
}

// New makes the lock of one server; identity is no other's.
func New(cfg *rest.Config, namespace, identity string, times Times, g *gate.Gate, log logr.Logger) (*Lock, error) {
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), "leader-election")
	cfg.Timeout = max(times.Renew/2, time.Second) // one request that hangs does not cost the lease
	client, err := coordination.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for the lease: %w", err)
	}
	inner := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: Name}, Client: client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
	return &Lock{Interface: inner, gate: g, log: log}, nil
}

// Get reads who holds the lease.
func (l *Lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return record, raw, err
	}
	l.mu.Lock()
	l.holder = record.HolderIdentity
	l.mu.Unlock()
	if l.gate.Begun() && record.HolderIdentity != l.Identity() {
		l.lost(record.HolderIdentity)
	}
	return record, raw, nil
}

func (l *Lock) lost(to string) {
	if to == "" {
		to = "nobody"
	}
	l.log.Info("This server has lost its lease: it begins nothing any more and ends", "identity", l.Identity(), "holder", to)
	l.gate.Shut("its lease is held by " + to)
}

// Create makes the Lease, held by this server.
func (l *Lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.renew(func() error { return l.Interface.Create(ctx, record) })
}

// Update renews the lease, takes it, or gives it away.
func (l *Lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == l.Identity() {
		return l.renew(func() error { return l.Interface.Update(ctx, record) })
	}
	l.gate.Shut("it has given its lease away")
	l.mu.Lock()
	holder := l.holder
	l.mu.Unlock()
	// The election gives away what it last knew to be its own, after a fresh read that it does not look at: it would take the lease from
	// the server that has replaced this one.
	if holder != l.Identity() {
		return fmt.Errorf("give the lease away: %w (%s)", errNotHeld, holder)
	}
	return l.Interface.Update(ctx, record)
}

var errNotHeld = errors.New("it is another server's")

// renew opens the gate by a write of the Lease. A server whose gate is shut for ever must not lead again: it could do nothing.
func (l *Lock) renew(write func() error) error {
	if err := l.gate.Err(); err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	began, first := l.gate.Read(), !l.gate.Begun()
	if err := write(); err != nil {
		return err
	}
	l.mu.Lock()
	l.holder = l.Identity()
	l.mu.Unlock()
	l.gate.Renewed(began)
	if first {
		l.log.Info("This server leads", "identity", l.Identity())
	}
	return nil
}
