// Package pool runs long work outside of reconcile calls: bounded, by turns, cancellable, and only while this process is the leader.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"kedge.dev/kedge/api/v1alpha1"
)

// ErrCancelled is the cause with which Cancel ends the context of work.
var ErrCancelled = errors.New("cancelled by request")

// Phase is where a piece of work stands.
type Phase int

// The phases. Unknown means that this process has never heard of it.
const (
	Unknown Phase = iota
	Queued
	Running
	Ended
)

// State is what is known of a piece of work.
type State[T any] struct {
	Phase    Phase
	Progress v1alpha1.Progress
	// Result and Err are what the work returned, once it has Ended.
	Result T
	Err    error
}

// Work is what a pool runs. It reports how far it is as often as it likes.
type Work[T any] func(ctx context.Context, report func(v1alpha1.Progress)) (T, error)

// Pool runs work by turns: so much at once in all, and in each class.
type Pool[T any] struct {
	total, perClass int
	wake            chan struct{}
	changed         chan event.TypedGenericEvent[types.NamespacedName]

	mu      sync.Mutex
	entries map[types.UID]*entry[T]
	turns   int64
	running map[string]int // by class
	busy    int
}

type entry[T any] struct {
	id     types.UID
	key    types.NamespacedName
	class  string
	turn   int64
	work   Work[T]
	state  State[T]
	moved  bool                    // progress was made since the last event
	cancel context.CancelCauseFunc // nil until it runs
	// cancelled is set where Cancel came before there was a context to cancel; gone where it was forgotten while it ran.
	cancelled, gone bool
}

// New makes a pool that runs total pieces of work at once, and perClass of one class; both are at least one.
func New[T any](total, perClass int) *Pool[T] {
	return &Pool[T]{
		total: max(total, 1), perClass: max(perClass, 1),
		wake:    make(chan struct{}, 1),
		changed: make(chan event.TypedGenericEvent[types.NamespacedName]),
		entries: map[types.UID]*entry[T]{}, running: map[string]int{},
	}
}

// Start queues work for an object, whose id and key events will name. Starting what is known already does nothing; other work of the
// same key (an object of that name that was deleted meanwhile) is cancelled.
func (p *Pool[T]) Start(id types.UID, key types.NamespacedName, class string, work Work[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries[id] != nil {
		return
	}
	p.dropKey(key)
	p.turns++
	p.entries[id] = &entry[T]{id: id, key: key, class: class, turn: p.turns, work: work, state: State[T]{Phase: Queued}}
	p.poke()
}

// State tells where the work of an object stands.
func (p *Pool[T]) State(id types.UID) State[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[id]; e != nil {
		return e.state
	}
	return State[T]{}
}

// Counts tells how much work is queued and how much is running.
func (p *Pool[T]) Counts() (queued, running int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if e.state.Phase == Queued {
			queued++
		}
	}
	return queued, p.busy
}

// Cancel ends the work of an object: what is queued never begins, what runs has its context cancelled with ErrCancelled.
func (p *Pool[T]) Cancel(id types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancelEntry(p.entries[id])
}

func (p *Pool[T]) cancelEntry(e *entry[T]) {
	switch {
	case e == nil:
	case e.state.Phase == Queued:
		e.state.Phase, e.state.Err = Ended, ErrCancelled
		e.moved = true
	case e.cancel != nil:
		e.cancel(ErrCancelled)
	default:
		e.cancelled = true
	}
}

// Forget drops what is known of an object's work; what still runs is cancelled.
func (p *Pool[T]) Forget(id types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(p.entries[id])
}

// ForgetKey is Forget for an object of which only the name is known, because it is gone.
func (p *Pool[T]) ForgetKey(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropKey(key)
}

func (p *Pool[T]) dropKey(key types.NamespacedName) {
	for _, e := range p.entries {
		if e.key == key {
			p.drop(e)
		}
	}
}

func (p *Pool[T]) drop(e *entry[T]) {
	if e == nil {
		return
	}
	p.cancelEntry(e)
	e.gone = true
	delete(p.entries, e.id)
}

// Changed enqueues the objects whose work has ended or made progress.
func (p *Pool[T]) Changed() source.Source {
	return source.Channel(p.changed, handler.TypedFuncs[types.NamespacedName, reconcile.Request]{
		GenericFunc: func(_ context.Context, e event.TypedGenericEvent[types.NamespacedName], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			q.Add(reconcile.Request{NamespacedName: e.Object})
		},
	})
}

// tellEvery is how often progress is made known.
const tellEvery = time.Second

// Run runs what is started, until ctx ends; then it cancels everything and waits for it. As a manager's Runnable it runs only while the
// process is the leader: mgr.Add(manager.RunnableFunc(pool.Run)).
func (p *Pool[T]) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			for _, e := range p.next() {
				group.Go(func() error { return p.run(ctx, e) })
			}
			select {
			case <-ctx.Done():
				return nil
			case <-p.wake:
			case <-tick.C:
				if err := p.tell(ctx, p.movedKeys()); err != nil {
					return nil // the end of the context is how this ends
				}
			}
		}
	})
	return group.Wait()
}

// next takes the work whose turn it is, the oldest first, as far as there is room.
func (p *Pool[T]) next() []*entry[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	var waiting []*entry[T]
	for _, e := range p.entries {
		if e.state.Phase == Queued {
			waiting = append(waiting, e)
		}
	}
	slices.SortFunc(waiting, func(a, b *entry[T]) int { return cmp.Compare(a.turn, b.turn) })
	var out []*entry[T]
	for _, e := range waiting {
		if p.busy >= p.total {
			break
		}
		if p.running[e.class] >= p.perClass {
			continue
		}
		p.busy++
		p.running[e.class]++
		e.state.Phase, e.moved = Running, true
		out = append(out, e)
	}
	return out
}

// run does one piece of work and notes how it ended. Its error is none: one piece of work ends no other.
func (p *Pool[T]) run(outer context.Context, e *entry[T]) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	p.mu.Lock()
	e.cancel = cancel
	if e.cancelled {
		cancel(ErrCancelled)
	}
	p.mu.Unlock()
	result, err := guarded(ctx, e.work, func(progress v1alpha1.Progress) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if e.state.Progress != progress {
			e.state.Progress, e.moved = progress, true
		}
	})
	if err != nil && errors.Is(context.Cause(ctx), ErrCancelled) {
		err = errors.Join(ErrCancelled, err)
	}
	ended := ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrCancelled)
	p.mu.Lock()
	p.busy--
	if p.running[e.class]--; p.running[e.class] == 0 {
		delete(p.running, e.class)
	}
	e.state.Phase, e.state.Result, e.state.Err = Ended, result, err
	if ended { // the lease is gone; whoever leads next begins again
		delete(p.entries, e.id)
	}
	e.moved = false
	gone := e.gone || ended
	p.poke()
	p.mu.Unlock()
	if !gone {
		_ = p.tell(outer, []types.NamespacedName{e.key}) // fails only when all ends
	}
	return nil
}

// guarded keeps a panic in one piece of work from ending all others.
func guarded[T any](ctx context.Context, work Work[T], report func(v1alpha1.Progress)) (result T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the work panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return work(ctx, report)
}

// movedKeys gives, and forgets, which work has made progress.
func (p *Pool[T]) movedKeys() []types.NamespacedName {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []types.NamespacedName
	for _, e := range p.entries {
		if e.moved {
			e.moved = false
			keys = append(keys, e.key)
		}
	}
	return keys
}

// tell enqueues objects; it gives up where nobody listens any more.
func (p *Pool[T]) tell(ctx context.Context, keys []types.NamespacedName) error {
	for _, key := range keys {
		select {
		case p.changed <- event.TypedGenericEvent[types.NamespacedName]{Object: key}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// poke has Run look for work.
func (p *Pool[T]) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
