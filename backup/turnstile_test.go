package backup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := newTurnstile(1)
		if err := turn.enter(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- turn.enter(gone, 99) }()
		var order []int64
		var all sync.WaitGroup
		for _, weight := range []int64{2, 7, 5} {
			synctest.Wait()
			all.Go(func() {
				if err := turn.enter(t.Context(), weight); err != nil {
					t.Error(err)
				}
				order = append(order, weight)
				turn.leave()
			})
		}
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		turn.leave()
		all.Wait()
		if !slices.Equal(order, []int64{7, 5, 2}) || turn.free != 1 {
			t.Errorf("order %v, %d free", order, turn.free)
		}
	})
}
