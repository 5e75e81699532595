package gate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// clocks are two that a test moves.
type clocks struct {
	mu  sync.Mutex
	now Reading
}

func newClocks() *clocks {
	return &clocks{now: Reading{Wall: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Mono: time.Hour}}
}

func (c *clocks) read() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clocks) move(wall, mono time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Wall, c.now.Mono = c.now.Wall.Add(wall), c.now.Mono+mono
}

// passes says how a Pass ends whose caller does not wait.
func passes(g *Gate) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errWaits)
	return g.Pass(ctx)
}

var errWaits = errors.New("it waits")

func TestGateOpensWithRenewals(t *testing.T) {
	const holds = 10 * time.Second
	for _, c := range []struct {
		name       string
		wall, mono time.Duration
		want       error
	}{
		{"at once", 0, 0, nil},
		{"just before the end", holds - 1, holds - 1, nil},
		{"at the end", holds, holds, errWaits},
		{"the machine slept: the monotonic clock stood still", time.Minute, 0, errWaits},
		{"the wall clock was set back", -time.Hour, holds, errWaits},
		{"the wall clock was set back a little", -time.Second, time.Second, nil},
	} {
		clocks := newClocks()
		g := New(holds, clocks.read)
		if err := passes(g); !errors.Is(err, errWaits) || g.Begun() {
			t.Fatalf("before the first renewal: %v", err)
		}
		g.Renewed(g.Read())
		clocks.move(c.wall, c.mono)
		if err := passes(g); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		g.Renewed(g.Read())
		if err := passes(g); err != nil {
			t.Errorf("%s, and renewed: %v", c.name, err)
		}
	}
}

// A renewal counts from its beginning: who waits for the lease to end may have seen it right then.
func TestRenewalThatTakesLong(t *testing.T) {
	clocks := newClocks()
	g := New(10*time.Second, clocks.read)
	began := g.Read()
	clocks.move(9*time.Second, 9*time.Second)
	g.Renewed(began)
	if err := passes(g); err != nil {
		t.Errorf("within the time: %v", err)
	}
	clocks.move(time.Second, time.Second)
	if err := passes(g); !errors.Is(err, errWaits) {
		t.Errorf("ten seconds after the beginning: %v", err)
	}
}

func TestShutIsForEver(t *testing.T) {
	clocks := newClocks()
	g := New(time.Second, clocks.read)
	g.Renewed(g.Read())
	g.Shut("somebody else leads")
	g.Shut("another reason")
	g.Renewed(g.Read())
	if err := passes(g); !errors.Is(err, ErrShut) || !strings.HasSuffix(err.Error(), ": somebody else leads") {
		t.Errorf("%v", err)
	}
	var open *Gate
	open.Shut("no matter")
	if err := open.Pass(t.Context()); err != nil {
		t.Errorf("no gate: %v", err)
	}
}

func TestWaitersWake(t *testing.T) {
	for name, c := range map[string]struct {
		wake func(*Gate)
		want error
	}{
		"renewed": {func(g *Gate) { g.Renewed(g.Read()) }, nil},
		"shut":    {func(g *Gate) { g.Shut("over") }, ErrShut},
	} {
		synctest.Test(t, func(t *testing.T) {
			clocks := newClocks()
			g := New(time.Second, clocks.read)
			g.Renewed(g.Read())
			clocks.move(time.Minute, time.Minute)
			done := make(chan error, 3)
			for range cap(done) {
				go func() { done <- g.Pass(t.Context()) }()
			}
			synctest.Wait()
			if len(done) != 0 {
				t.Fatalf("%s: the gate was open", name)
			}
			c.wake(g)
			for range cap(done) {
				if err := <-done; !errors.Is(err, c.want) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// counting is a server that counts.
type counting struct{ n int }

func (c *counting) RoundTrip(*http.Request) (*http.Response, error) {
	c.n++
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// body notes that it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

func TestTransport(t *testing.T) {
	clocks := newClocks()
	g := New(time.Second, clocks.read)
	server := &counting{}
	rt := g.Transport(server)
	g.Renewed(g.Read())
	send := func(method string) error {
		b := &body{Reader: strings.NewReader("x")}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://server", b)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			if !b.closed {
				t.Error("the body stays open")
			}
			return err
		}
		return resp.Body.Close()
	}
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	for _, method := range methods {
		if err := send(method); err != nil {
			t.Errorf("%s through an open gate: %v", method, err)
		}
	}
	g.Shut("over")
	for _, method := range methods {
		if err := send(method); Reads(method) != (err == nil) || err != nil && !errors.Is(err, ErrShut) {
			t.Errorf("%s through a shut gate: %v", method, err)
		}
	}
	if server.n != len(methods)+2 {
		t.Errorf("the server had %d requests", server.n)
	}
	// A command in a pod begins with a GET where it is asked for by WebSocket.
	for path, want := range map[string]error{"/api/v1/namespaces/shop/pods/db/exec": ErrShut, "/api/v1/namespaces/shop/pods/exec": nil, "/bucket/exec": nil} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(req)
		if err == nil {
			err = resp.Body.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("GET %s through a shut gate: %v", path, err)
		}
	}
	if (*Gate)(nil).Transport(server) != http.RoundTripper(server) {
		t.Error("no gate is in the way")
	}
}

func TestClocks(t *testing.T) {
	read := Clocks(time.Now)
	first := read()
	second := read()
	if second.Mono < first.Mono || first.Wall.IsZero() || strings.Contains(second.Wall.String(), "m=") {
		t.Errorf("%+v, then %+v", first, second)
	}
}
