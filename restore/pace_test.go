package restore

import (
	"testing"
	"time"
)

// TestPace plays servers of several kinds and looks where the bound settles.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name string
		// answer is how long a create takes with so many in flight.
		answer     func(inFlight int) time.Duration
		least, max float64
	}{
		{"near and busy", func(n int) time.Duration { return time.Duration(max(n, 4)) * time.Millisecond }, steadyPace, 18},
		{"far and idle", func(int) time.Duration { return 50 * time.Millisecond }, 60, 64},
		{"far and busy", func(n int) time.Duration { return 50*time.Millisecond + time.Duration(max(0, n-30))*5*time.Millisecond }, 30, 50},
		{"slow webhook", func(int) time.Duration { return 300 * time.Millisecond }, 60, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPace(64)
			for range 20_000 {
				for float64(p.inFlight) < p.limit {
					if err := p.begin(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				p.end(c.answer(p.inFlight))
			}
			if p.limit < c.least || p.limit > c.max {
				t.Errorf("settled at %.1f, want %.0f to %.0f", p.limit, c.least, c.max)
			}
		})
	}
}

func TestPaceWaits(t *testing.T) {
	p := newPace(1)
	if err := p.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- p.begin(t.Context()) }()
	select {
	case <-second:
		t.Fatal("two turns at once")
	case <-time.After(10 * time.Millisecond):
	}
	p.end(0)
	if err := <-second; err != nil {
		t.Error(err)
	}
}
