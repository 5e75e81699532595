package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

// serve accepts connections on a socket of the file system, which processes of any network can reach, and leads them to where an HTTP CONNECT
// request says, in the network of this process. It is what an API server uses to reach the kubelet and pods ("egress selector"). With POST
// /forward?from=…&to=… the other side of the node's border is reached at an address on this one.
func serve(socket string, allowed func(address string) error) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for connections across the node's border: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect && (allowed == nil || allowed(r.Host) == nil):
			connect(w, r.Host)
		case r.Method == http.MethodPost && r.URL.Path == "/forward" && allowed == nil:
			if err := forward(r.URL.Query().Get("by"), r.URL.Query().Get("from"), r.URL.Query().Get("to")); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		default:
			http.Error(w, "not for "+r.Method+" "+r.Host+r.URL.Path, http.StatusForbidden)
		}
	})}
	go func() { _ = server.Serve(listener) }() // ends with the process
	return nil
}

// loopbackOnly refuses what is not on this machine.
func loopbackOnly(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !ap.Addr().IsLoopback() {
		return errors.New("not an address of the loopback interface")
	}
	return nil
}

func connect(w http.ResponseWriter, address string) {
	out, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer out.Close()
	in, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	join(in, buffered.Reader, out, out)
}

// join carries bytes both ways, until both have ended.
func join(a net.Conn, fromA io.Reader, b net.Conn, fromB io.Reader) {
	done := make(chan struct{})
	go func() { // ends with the connections, at the latest when the other way has ended and both are closed
		defer close(done)
		_, _ = io.Copy(b, fromA)
		closeWrite(b)
	}()
	_, _ = io.Copy(a, fromB)
	closeWrite(a)
	<-done
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// forward leads connections to an address of this side to one of the other, through the other side's socket.
func forward(socket, from, to string) error {
	listener, err := net.Listen("tcp", from)
	if err != nil {
		return fmt.Errorf("lead %s to %s: %w", from, to, err)
	}
	go func() { // ends with the process
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				if err := carry(in, socket, to); err != nil {
					fmt.Fprintf(os.Stderr, "node: lead %s to %s: %v\n", from, to, err)
				}
			}()
		}
	}()
	return nil
}

func carry(in net.Conn, socket, to string) error {
	out, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := fmt.Fprintf(out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to); err != nil {
		return err
	}
	reader := bufio.NewReader(out)
	resp, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the other side answers %s", resp.Status)
	}
	join(in, in, out, reader)
	return nil
}
