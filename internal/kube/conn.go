package kube

import (
	"bufio"
	"context"
	"net"
)

// readAhead is how much a connection asks the system for at a time. TLS itself asks for one record, at most 16 KiB.
const readAhead = 128 << 10

// bufferedConn reads ahead, so that a large list costs fewer system calls.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// buffered makes a dialer's connections read ahead.
func buffered(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &bufferedConn{c, bufio.NewReaderSize(c, readAhead)}, nil
	}
}
