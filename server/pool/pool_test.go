package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
)

func name(n string) types.NamespacedName { return types.NamespacedName{Namespace: "kedge", Name: n} }

// serve runs a pool with somebody who listens to its events, until the test ends. It gives what was heard.
func serve(t *testing.T, p *Pool[string]) (heard func() []string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var names []string
	group, _ := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Run(ctx) })
	group.Go(func() error {
		for {
			select {
			case e := <-p.changed:
				names = append(names, e.Object.Name)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return func() []string { synctest.Wait(); return names }, func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// held is work that lasts until it is let go or cancelled.
func held(gate <-chan struct{}) Work[string] {
	return func(ctx context.Context, _ func(v1alpha1.Progress)) (string, error) {
		select {
		case <-gate:
			return "done", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func phases(p *Pool[string], ids ...types.UID) []Phase {
	out := make([]Phase, len(ids))
	for i, id := range ids {
		out[i] = p.State(id).Phase
	}
	return out
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](3, 2)
		_, stop := serve(t, p)
		defer stop()
		gate := make(chan struct{})
		for i, class := range []string{"a", "a", "a", "b", "c"} {
			p.Start(types.UID(fmt.Sprint(i)), name(fmt.Sprint(i)), class, held(gate))
			synctest.Wait()
		}
		if got, want := phases(p, "0", "1", "2", "3", "4"), []Phase{Running, Running, Queued, Running, Queued}; !slices.Equal(got, want) {
			t.Errorf("with three in all and two of a class: phases %v, want %v", got, want)
		}
		if queued, running := p.Counts(); queued != 2 || running != 3 {
			t.Errorf("counts: %d queued, %d running, want 2 and 3", queued, running)
		}
		close(gate)
		synctest.Wait()
		if got, want := phases(p, "0", "1", "2", "3", "4"), []Phase{Ended, Ended, Ended, Ended, Ended}; !slices.Equal(got, want) {
			t.Errorf("after the gate opened: phases %v, want %v", got, want)
		}
	})
}

func TestStartTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](2, 2)
		heard, stop := serve(t, p)
		defer stop()
		var runs atomic.Int32
		work := func(context.Context, func(v1alpha1.Progress)) (string, error) {
			return fmt.Sprint(runs.Add(1)), nil
		}
		p.Start("1", name("one"), "a", work)
		synctest.Wait()
		p.Start("1", name("one"), "a", work)
		synctest.Wait()
		if s := p.State("1"); s.Phase != Ended || s.Result != "1" {
			t.Errorf("state is %+v, want the result of the one run", s)
		}
		if got := heard(); !slices.Equal(got, []string{"one"}) {
			t.Errorf("events for %v, want one", got)
		}
		p.Forget("1")
		if s := p.State("1"); s.Phase != Unknown {
			t.Errorf("a forgotten one is %v", s.Phase)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](1, 1)
		_, stop := serve(t, p)
		defer stop()
		p.Start("runs", name("runs"), "a", held(nil))
		synctest.Wait()
		p.Start("waits", name("waits"), "a", held(nil))
		p.Cancel("waits")
		p.Cancel("runs")
		synctest.Wait()
		for _, id := range []types.UID{"runs", "waits"} {
			if s := p.State(id); s.Phase != Ended || !errors.Is(s.Err, ErrCancelled) {
				t.Errorf("%s: state %v, error %v, want it cancelled", id, s.Phase, s.Err)
			}
		}
		p.Start("next", name("next"), "a", held(nil))
		synctest.Wait()
		if s := p.State("next"); s.Phase != Running {
			t.Errorf("after the cancels the next one is %v, want it running", s.Phase)
		}
	})
}

// A deleted object is known by its name only; one of the same name that was made since is another.
func TestSameNameAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](2, 2)
		_, stop := serve(t, p)
		defer stop()
		p.Start("old", name("x"), "a", held(nil))
		synctest.Wait()
		p.Start("new", name("x"), "a", held(nil))
		synctest.Wait()
		if got, want := phases(p, "old", "new"), []Phase{Unknown, Running}; !slices.Equal(got, want) {
			t.Errorf("phases %v, want %v", got, want)
		}
		p.ForgetKey(name("x"))
		synctest.Wait()
		if _, running := p.Counts(); running != 0 {
			t.Errorf("%d still run after the object is gone", running)
		}
	})
}

func TestProgressIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](1, 1)
		heard, stop := serve(t, p)
		defer stop()
		gate := make(chan struct{})
		p.Start("1", name("one"), "a", func(_ context.Context, report func(v1alpha1.Progress)) (string, error) {
			for i := range int64(1000) {
				report(v1alpha1.Progress{Done: i})
			}
			<-gate
			return "", nil
		})
		time.Sleep(5 * tellEvery)
		if got := heard(); !slices.Equal(got, []string{"one"}) {
			t.Errorf("a thousand reports at once gave events %v, want one event", got)
		}
		if s := p.State("1"); s.Progress.Done != 999 {
			t.Errorf("progress is %d, want 999", s.Progress.Done)
		}
		close(gate)
	})
}

// When the lease is gone, work is cancelled, waited for, and forgotten: the next leader begins it again.
func TestEndOfLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](1, 1)
		_, stop := serve(t, p)
		var ended atomic.Bool
		p.Start("1", name("one"), "a", func(ctx context.Context, _ func(v1alpha1.Progress)) (string, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Store(true)
			return "", ctx.Err()
		})
		synctest.Wait()
		stop()
		if !ended.Load() {
			t.Error("Run returned before its work had ended")
		}
		if s := p.State("1"); s.Phase != Unknown {
			t.Errorf("the work is %v, want it unknown", s.Phase)
		}
	})
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New[string](1, 1)
		_, stop := serve(t, p)
		defer stop()
		p.Start("1", name("one"), "a", func(context.Context, func(v1alpha1.Progress)) (string, error) { panic("oh") })
		p.Start("2", name("two"), "a", func(context.Context, func(v1alpha1.Progress)) (string, error) { return "fine", nil })
		synctest.Wait()
		if s := p.State("1"); s.Err == nil {
			t.Error("a panic is no error")
		}
		if s := p.State("2"); s.Result != "fine" {
			t.Errorf("the work after a panic ended with %q, %v", s.Result, s.Err)
		}
	})
}
