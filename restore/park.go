package restore

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// parkedItem is an object that is tried again later.
type parkedItem struct {
	tries int
	next  time.Time
	busy  bool // it is being tried
	why   refusal
}

// parkPoll is how often parked objects are looked at.
const parkPoll = 50 * time.Millisecond

// park keeps an object for another try, unless what it waits for has been waited for long enough. Steps do not wait for
// their parked objects: what would help them may be in a later step.
func (x *run) park(ctx context.Context, i int32, why refusal) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one
	}
	first, gaveUp := x.parkOrGiveUp(i, &why)
	if gaveUp {
		if why.wait == waitServer {
			return fmt.Errorf("%w: %s", errUnreachable, why.message)
		}
		return x.finish(ctx, i, result{outcome: Failed, reason: why.reason, by: why.by, message: why.message})
	}
	if first && x.e.Events.Remark != nil {
		x.e.Events.Remark(Entry{Ref: x.plan.ref(i), Reason: why.reason, By: why.by, Message: "waiting: " + why.message, Warning: true})
	}
	return nil
}

// parkOrGiveUp says whether the object is the first to wait for its reason, and whether it has waited in vain.
func (x *run) parkOrGiveUp(i int32, why *refusal) (first, gaveUp bool) {
	now := x.e.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	deadline, waiting := x.waits[why.wait]
	if !waiting {
		deadline = now.Add(x.plan.waitTimeout())
		x.waits[why.wait] = deadline
	}
	p := x.parked[i]
	if p == nil {
		p = &parkedItem{}
	}
	p.tries++
	if !now.Before(deadline) || why.tries > 0 && p.tries > why.tries {
		if p.tries > 1 {
			why.message += fmt.Sprintf(" (tried %d times)", p.tries)
		}
		return !waiting, true
	}
	p.why, p.busy = *why, false
	p.next = now.Add(min(50*time.Millisecond<<min(p.tries, 7), 5*time.Second))
	if p.next.After(deadline) {
		p.next = deadline
	}
	x.parked[i] = p
	x.plan.items[i].flags |= flagParked
	return !waiting, false
}

// retryParked tries parked objects again when their time has come, until all steps are done and none is left.
func (x *run) retryParked(ctx context.Context, done []chan struct{}) error {
	for {
		last := allClosed(done)
		due, left := x.due()
		switch {
		case len(due) > 0:
			if err := x.submit(ctx, due); err != nil {
				return err
			}
		case last && left == 0:
			return nil
		default:
			if err := pause(ctx, parkPoll); err != nil {
				return err
			}
		}
	}
}

// due takes the objects whose time has come, and says how many there are in all.
func (x *run) due() (items []int32, all int) {
	now := x.e.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, p := range x.parked {
		if !p.busy && !p.next.After(now) {
			p.busy = true
			items = append(items, i)
		}
	}
	slices.Sort(items)
	return items, len(x.parked)
}

// drainParked waits until nothing is parked: what comes next could get in the way of it.
func (x *run) drainParked(ctx context.Context) error {
	for {
		x.mu.Lock()
		left := len(x.parked)
		x.mu.Unlock()
		if left == 0 {
			return nil
		}
		if err := pause(ctx, parkPoll); err != nil {
			return err
		}
	}
}

func allClosed(done []chan struct{}) bool {
	for _, d := range done {
		select {
		case <-d:
		default:
			return false
		}
	}
	return true
}

// pause waits, or gives the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
