//go:build unix

package faults

import (
	"io"
	"net"
	"testing"
	"time"
)

// receiver is a server that notes what it gets of each connection.
func receiver(t *testing.T) (address string, got <-chan string) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out := make(chan string, 16)
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(conn)
			_, _ = conn.Write([]byte("answer"))
			_ = conn.Close()
			out <- string(text)
		}
	}()
	return l.Addr().String(), out
}

func TestCable(t *testing.T) {
	address, got := receiver(t)
	c := NewCable(t, address)
	send := func(text string) *net.TCPConn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", c.Address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			t.Fatalf("%T", conn)
		}
		return tcp
	}
	whole := send("first")
	_ = whole.CloseWrite()
	if text := <-got; text != "first" {
		t.Errorf("the server got %q", text)
	}
	if answer, err := io.ReadAll(whole); err != nil || string(answer) != "answer" {
		t.Errorf("the client got %q, %v", answer, err)
	}
	c.Cut()
	c.Cut() // twice is once
	_ = send("late").Close()
	select {
	case text := <-got:
		t.Errorf("%q passed the cut", text)
	case <-time.After(50 * time.Millisecond):
	}
	c.Mend()
	if text := <-got; text != "late" {
		t.Errorf("what was sent to a cut cable arrives as %q", text)
	}
	for !c.Idle() {
		time.Sleep(time.Millisecond)
	}
	left := send("never ended")
	c.Close()
	if _, err := io.ReadAll(left); err == nil {
		t.Log("the connection ended in order") // or with a reset: either is an end
	}
}
