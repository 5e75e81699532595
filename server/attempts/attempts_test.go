package attempts

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/server/outcome"
)

var now = time.Date(2026, 11, 26, 1, 0, 0, 0, time.UTC)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		lost, most int
		reason     string
		kind       outcome.Kind
	}{
		{0, 0, "", 0}, {1, 0, "", 0}, {2, 0, "", 0},
		{3, 0, ReasonInterrupted, outcome.IsWaiting}, {4, 0, ReasonInterrupted, outcome.IsWaiting},
		{5, 0, ReasonTooOften, outcome.IsStalled}, {9, 0, ReasonTooOften, outcome.IsStalled},
		{1, 1, ReasonTooOften, outcome.IsStalled}, {5, 6, ReasonInterrupted, outcome.IsWaiting}, {99, 100, ReasonInterrupted, outcome.IsWaiting},
	} {
		p := &Patience{Most: c.most}
		err := p.Check("a", c.lost, now)
		if c.reason == "" {
			if err != nil {
				t.Errorf("%d of %d: %v", c.lost, c.most, err)
			}
			continue
		}
		if o := outcome.Of(err); err == nil || o.Reason != c.reason || o.Kind != c.kind || (o.Kind == outcome.IsWaiting) != (o.After > 0) {
			t.Errorf("%d of %d: %v, %+v", c.lost, c.most, err, o)
		}
	}
	if err := (*Patience)(nil).Check("a", 99, now); err != nil {
		t.Errorf("no patience at all: %v", err)
	}
}

// TestWait waits once in a process, longer after each server, and not equally long with two pieces of work.
func TestWait(t *testing.T) {
	p := &Patience{}
	first := outcome.Of(p.Check("a", 3, now)).After
	if first < firstWait || first > 2*firstWait {
		t.Errorf("the first wait is %s", first)
	}
	if left := outcome.Of(p.Check("a", 3, now.Add(first-time.Second))).After; left != time.Second {
		t.Errorf("a second before its end %s are left", left)
	}
	for _, later := range []time.Duration{first, time.Hour} {
		if err := p.Check("a", 3, now.Add(later)); err != nil {
			t.Errorf("%s later: %v", later, err)
		}
	}
	p.Forget("a")
	if again := outcome.Of(p.Check("a", 3, now)).After; again != first {
		t.Errorf("another process waits %s, not %s", again, first)
	}
	if next := outcome.Of((&Patience{}).Check("a", 4, now)).After; next != 2*first {
		t.Errorf("after one more: %s, want twice %s", next, first)
	}
	waits := map[time.Duration]bool{}
	for n := range 50 {
		waits[outcome.Of(p.Check(types.UID(fmt.Sprint("uid-", n)), 3, now)).After] = true
	}
	if len(waits) < 40 {
		t.Errorf("50 pieces of work wait %d different times", len(waits))
	}
	if !errors.As(p.Check("z", 4, now), new(*outcome.Error)) {
		t.Error("a wait is no error of outcome")
	}
}
