//go:build unix

package faults

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Cable is a TCP path to a server that can be cut. A cut is that of a network which loses packets: nobody is told, connections stay, new
// ones seem to be made, and nothing passes. Mended, it delivers what was sent meanwhile, however late, even where the sender is dead.
type Cable struct {
	// Address is what clients use in place of the server's: "127.0.0.1:40002".
	Address string

	target   string
	listener net.Listener

	mu     sync.Mutex
	whole  chan struct{} // closed while the cable is whole
	open   map[net.Conn]bool
	closed bool
	pumps  sync.WaitGroup
}

// NewCable lays a cable to the server at an address. It ends with the test, and with Close.
func NewCable(tb testing.TB, target string) *Cable {
	tb.Helper()
	var config net.ListenConfig
	l, err := config.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Cable{Address: l.Addr().String(), target: target, listener: l, whole: make(chan struct{}), open: map[net.Conn]bool{}}
	close(c.whole)
	c.pumps.Go(c.accept)
	tb.Cleanup(c.Close)
	return c
}

// Cut lets nothing pass any more.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.whole:
		c.whole = make(chan struct{})
	default:
	}
}

// Mend lets pass what waits, and all that comes.
func (c *Cable) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.whole:
	default:
		close(c.whole)
	}
}

// Idle says whether no connection is left: all that was sent has been delivered, and both sides have closed.
func (c *Cable) Idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open) == 0
}

// Close ends the cable and everything on it.
func (c *Cable) Close() {
	c.Mend()
	c.mu.Lock()
	c.closed = true
	_ = c.listener.Close()
	for conn := range c.open {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.pumps.Wait()
}

func (c *Cable) accept() {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		if !c.keep(near) {
			return
		}
		c.pumps.Go(func() { c.carry(near) })
	}
}

// keep remembers a connection, so that Close ends it.
func (c *Cable) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return false
	}
	c.open[conn] = true
	return true
}

func (c *Cable) drop(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	_ = conn.Close()
}

// carry connects one client to the server until both are done.
func (c *Cable) carry(near net.Conn) {
	defer c.drop(near)
	c.wait()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	far, err := dialer.DialContext(context.Background(), "tcp", c.target)
	if err != nil || !c.keep(far) {
		return
	}
	defer c.drop(far)
	var both sync.WaitGroup
	both.Go(func() { c.pump(far, near) })
	both.Go(func() { c.pump(near, far) })
	both.Wait()
}

// pump moves bytes one way, and then the end of them.
func (c *Cable) pump(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close() // nobody is there to take the rest
				return
			}
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				_ = half.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

// wait returns when the cable is whole.
func (c *Cable) wait() {
	c.mu.Lock()
	whole := c.whole
	c.mu.Unlock()
	<-whole
}
