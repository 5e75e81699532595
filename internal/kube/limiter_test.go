package kube

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiterAdapts(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(64, func() time.Time { return now })
	take := func(n int, overloaded bool) {
		for range n {
			if err := l.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.release(overloaded)
		}
	}
	take(5000, false)
	if l.current() != 64 {
		t.Fatalf("limit %d after success, want the ceiling", l.current())
	}
	now = now.Add(time.Second)
	take(3, true)
	if l.current() != 32 {
		t.Errorf("limit %d after one burst of refusals, want half", l.current())
	}
	for range 10 {
		now = now.Add(time.Second)
		take(1, true)
	}
	if l.current() != 1 {
		t.Errorf("limit %d after many refusals, want 1", l.current())
	}
	take(3, false)
	if l.current() < 2 {
		t.Errorf("limit %d after success, want growth", l.current())
	}
}

func TestLimiterBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2, time.Now)
		for range 2 {
			if err := l.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- l.acquire(ctx) }()
		got := make(chan error, 1)
		synctest.Wait()
		go func() { got <- l.acquire(t.Context()) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("a third request went through")
		}
		cancel()
		if err := l.acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		l.release(false)
		if err := <-got; err != nil {
			t.Error(err)
		}
		l.release(false)
		l.release(false)
		if err := l.acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if l.inFlight != 0 {
			t.Errorf("%d in flight at the end", l.inFlight)
		}
	})
}
