//go:build unix

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// countingProxy stands before the store and counts the bytes that are read from it, by key, and those that are written.
type countingProxy struct {
	url    string
	server *http.Server
	mu     sync.Mutex
	bytes  map[string]int64
	gets   int
	sent   int64
}

func startProxy(target string) (*countingProxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &countingProxy{url: "http://" + listener.Addr().String(), bytes: map[string]int64{}}
	proxy := &httputil.ReverseProxy{
		// The host stays what the client signed.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, r.In.Host
			if r.Out.Body != nil {
				r.Out.Body = &sentBody{r.Out.Body, p}
			}
		},
		ModifyResponse: p.count,
	}
	p.server = &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go p.server.Serve(listener)
	return p, nil
}

func (p *countingProxy) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.server.Shutdown(ctx)
}

func (p *countingProxy) count(resp *http.Response) error {
	if resp.Request.Method != http.MethodGet {
		return nil
	}
	p.mu.Lock()
	p.gets++
	p.mu.Unlock()
	resp.Body = &countedBody{ReadCloser: resp.Body, proxy: p, key: resp.Request.URL.Path}
	return nil
}

type countedBody struct {
	io.ReadCloser
	proxy *countingProxy
	key   string
}

func (b *countedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.proxy.mu.Lock()
	b.proxy.bytes[b.key] += int64(n)
	b.proxy.mu.Unlock()
	return n, err
}

type sentBody struct {
	io.ReadCloser
	proxy *countingProxy
}

// Read implements io.Reader.
func (b *sentBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.proxy.mu.Lock()
	b.proxy.sent += int64(n)
	b.proxy.mu.Unlock()
	return n, err
}

// written gives the bytes of all requests' bodies.
func (p *countingProxy) written() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *countingProxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets, p.sent = 0, 0
	clear(p.bytes)
}

func (p *countingProxy) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gets
}

// files gives what was read of each file of one backup: "index/items.jsonl.zst.age=1234 …".
func (p *countingProxy) files(backup string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for key, n := range p.bytes {
		if _, file, found := strings.Cut(key, "/backups/"+backup+"/"); found {
			out = append(out, file+"="+strconv.FormatInt(n, 10))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// read gives the bytes that were read of one backup: its items, its index, its record and whatever else.
func (p *countingProxy) read(backup string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum int64
	for key, n := range p.bytes {
		if strings.Contains(key, "/backups/"+backup+"/") {
			sum += n
		}
	}
	return sum
}
