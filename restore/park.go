package restore

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// wait is a time during which objects are tried that need the same thing. They share it, so that what never comes is waited for once and
// not once an object. It ends when it is in vain, and when one of them gets what it needs; an object that comes later begins a new one.
type wait struct{ deadline time.Time }

// stay is the part of one object in a wait. Where two things refuse the object in turns, each has the time that it has left, so that the
// turns end.
type stay struct {
	key   string        // refusal.wait
	wait  *wait         // nil while the object waits for something else
	rest  time.Duration // what was left then
	tries int
}

// parkedItem is an object that is tried again later.
type parkedItem struct {
	tries int
	next  time.Time
	busy  bool // it is being tried
	why   refusal
	stays []stay
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

// parkOrGiveUp says whether the object begins a wait, and whether it has waited in vain.
func (x *run) parkOrGiveUp(i int32, why *refusal) (first, gaveUp bool) {
	now := x.e.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.parked[i]
	if p == nil {
		p = &parkedItem{}
	}
	s, first := x.stay(p, why.wait, now)
	p.tries++
	s.tries++
	if !now.Before(s.wait.deadline) || why.tries > 0 && s.tries > why.tries {
		if x.waits[why.wait] == s.wait {
			x.forgetWait(why.wait)
		}
		if p.tries > 1 {
			why.message += fmt.Sprintf(" (tried %d times)", p.tries)
		}
		return first, true
	}
	p.why, p.busy = *why, false
	p.next = now.Add(min(50*time.Millisecond<<min(p.tries, 7), 5*time.Second))
	if p.next.After(s.wait.deadline) {
		p.next = s.wait.deadline
	}
	x.parked[i] = p
	x.plan.items[i].flags |= flagParked
	return first, false
}

// stay gives the object's part in a wait, and ends the one that it has left for it. The wait begins where nobody waits.
func (x *run) stay(p *parkedItem, key string, now time.Time) (s *stay, first bool) {
	for n := range p.stays {
		switch is := &p.stays[n]; {
		case is.key == key:
			s = is
		case is.wait != nil:
			is.rest, is.wait = is.wait.deadline.Sub(now), nil
			x.forgetWait(is.key)
		}
	}
	switch {
	case s == nil:
		w := x.waits[key]
		if first = w == nil; first {
			w = &wait{deadline: now.Add(x.plan.waitTimeout())}
			x.waits[key] = w
		}
		p.stays = append(p.stays, stay{key: key, wait: w})
		s = &p.stays[len(p.stays)-1]
	case s.wait == nil:
		s.wait = &wait{deadline: now.Add(s.rest)}
	}
	return s, first
}

// forgetWait lets objects that come later begin anew. Those that are in the wait keep its deadline.
func (x *run) forgetWait(key string) { delete(x.waits, key) }

// came ends the waits of an object that is done: what it needed is there, and what else is in them has its full time again.
func (x *run) came(p *parkedItem) {
	for _, s := range p.stays {
		if s.wait == nil {
			continue
		}
		s.wait.deadline = x.e.now().Add(x.plan.waitTimeout())
		if x.waits[s.key] == s.wait {
			x.forgetWait(s.key)
		}
	}
}

// wrote ends the waits that the write of any object of its kind, or in its namespace, proves to be over.
func (x *run) wrote(i int32) {
	if len(x.waits) == 0 {
		return
	}
	it := &x.plan.items[i]
	for _, key := range waitsForAny(x.plan.resources[it.res].groupResource(), x.plan.mapped[it.ns]) {
		if w := x.waits[key]; w != nil {
			w.deadline = x.e.now().Add(x.plan.waitTimeout())
			x.forgetWait(key)
		}
	}
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
