//go:build unix

// Package faults disturbs programs under test: a proxy that spoils HTTP at random, seeded points, and a harness that kills processes
// at random, seeded moments.
package faults

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Fault is one way to spoil an exchange.
type Fault string

// The faults.
const (
	// Latency delays the request, up to Options.MaxLatency.
	Latency Fault = "latency"
	// ResetBefore resets the connection; the server never sees the request.
	ResetBefore Fault = "reset before"
	// ResetUpload resets the connection in the middle of the request's body (one without a body is reset before it is sent on).
	ResetUpload Fault = "reset upload"
	// ResetAfter resets the connection when the server has answered: what it did is done, and nobody is told.
	ResetAfter Fault = "reset after"
	// Truncate cuts the body of the answer somewhere and then the connection. An answer without a body is reset.
	Truncate Fault = "truncate"
	// Status429, Status500 and Status503 answer in the server's place.
	Status429 Fault = "429"
	Status500 Fault = "500"
	Status503 Fault = "503"
)

// All are all the faults.
func All() []Fault {
	return []Fault{Latency, ResetBefore, ResetUpload, ResetAfter, Truncate, Status429, Status500, Status503}
}

// Options say what a proxy spoils.
type Options struct {
	// Seed decides which requests are spoiled, and how: the n-th request of a proxy meets the same fate in each run with the seed.
	Seed uint64
	// Rate is the share of requests that are spoiled, from 0 to 1.
	Rate float64
	// Faults are chosen from evenly; all where empty.
	Faults []Fault
	// MaxLatency bounds Latency; 0 means 200 ms.
	MaxLatency time.Duration
	// RetryAfter is what 429 and 503 ask for, in seconds; negative sends no such header.
	RetryAfter int
	// Match chooses the requests that may be spoiled; nil means all.
	Match func(*http.Request) bool
	// Observe is told of each request before anything happens to it, and may hold it; nil watches nothing. Several may be told at once.
	Observe func(*http.Request)
	// Delay is how long every request is held, spoiled or not: a server that is far away.
	Delay time.Duration
	// Limit ends the disturbance after so many faults; 0 means never.
	Limit int
}

// Proxy passes HTTP on to a server and spoils some of it.
type Proxy struct {
	// URL is what clients use in place of the server's.
	URL string
	// CA is the authority of the proxy's certificate, in PEM, where the server speaks TLS.
	CA []byte

	opts      Options
	server    *httptest.Server
	transport *http.Transport

	mu     sync.Mutex
	seen   uint64
	total  int
	counts map[Fault]int
}

// NewProxy starts a proxy to the server at target ("https://127.0.0.1:6443") that ends with the test. A server that speaks TLS
// must be trusted by ca, in PEM; its clients trust the proxy by Proxy.CA.
func NewProxy(tb testing.TB, target string, ca []byte, opts Options) *Proxy {
	tb.Helper()
	p, err := Start(target, ca, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// Start is NewProxy outside of a test: Close ends the proxy.
func Start(target string, ca []byte, opts Options) (*Proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	if len(opts.Faults) == 0 {
		opts.Faults = All()
	}
	if opts.MaxLatency == 0 {
		opts.MaxLatency = 200 * time.Millisecond
	}
	p := &Proxy{opts: opts, counts: map[Fault]int{}}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 256, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12},
	}
	transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(ca)
	p.transport = transport
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // S3 signatures cover it
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:      nothing,
	}
	p.server = httptest.NewUnstartedServer(p.handler(pass))
	p.server.Config.ErrorLog = nothing
	if to.Scheme == "https" {
		p.server.EnableHTTP2 = true
		p.server.StartTLS()
		p.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	} else {
		p.server.Start()
	}
	p.URL = p.server.URL
	return p, nil
}

// Close ends the proxy and every connection through it.
func (p *Proxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
	p.transport.CloseIdleConnections()
}

// Config leads a client configuration of the API server through the proxy.
func (p *Proxy) Config(cfg *rest.Config) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Host, cfg.CAData, cfg.CAFile = p.URL, p.CA, ""
	return cfg
}

// Counts says how often each fault was met.
func (p *Proxy) Counts() map[Fault]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// String sums up what happened, for logs of tests.
func (p *Proxy) String() string {
	counts := p.Counts()
	p.mu.Lock()
	seen := p.seen
	p.mu.Unlock()
	var parts []string
	for _, f := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", f, counts[f]))
	}
	return fmt.Sprintf("seed %d: %d requests; %s", p.opts.Seed, seen, strings.Join(parts, ", "))
}

// decide draws the fate of the next request: "" leaves it alone. The source of chance is for what else the fault needs.
func (p *Proxy) decide(r *http.Request) (Fault, *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	chance := rand.New(rand.NewPCG(p.opts.Seed, p.seen))
	if chance.Float64() >= p.opts.Rate || (p.opts.Match != nil && !p.opts.Match(r)) || (p.opts.Limit > 0 && p.total >= p.opts.Limit) {
		return "", chance
	}
	fault := p.opts.Faults[chance.IntN(len(p.opts.Faults))]
	if r.URL.Query().Has("watch") && (fault == ResetAfter || fault == Truncate) {
		fault = ResetBefore // its answer has no end to wait for
	}
	p.total++
	p.counts[fault]++
	return fault, chance
}

func (p *Proxy) handler(pass http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.opts.Observe != nil {
			p.opts.Observe(r)
		}
		if !hold(r, p.opts.Delay) {
			panic(http.ErrAbortHandler)
		}
		fault, chance := p.decide(r)
		switch fault {
		case Latency:
			if !hold(r, time.Duration(chance.Int64N(int64(p.opts.MaxLatency)))) {
				panic(http.ErrAbortHandler)
			}
		case ResetBefore:
			reset(w)
		case ResetUpload:
			if r.ContentLength == 0 {
				reset(w)
			}
			length := r.ContentLength
			if length < 0 {
				length = 64 << 10
			}
			r.Body = &cutReader{Reader: r.Body, Closer: r.Body, left: chance.Int64N(length)}
			pass.ServeHTTP(discard{http.Header{}}, r)
			reset(w)
		case ResetAfter:
			pass.ServeHTTP(discard{http.Header{}}, r)
			reset(w)
		case Truncate:
			w = &truncating{ResponseWriter: w, share: chance.Float64()}
		case Status429, Status500, Status503:
			p.answer(w, r, fault)
			return
		}
		pass.ServeHTTP(w, r)
		if cut, ok := w.(*truncating); ok {
			cut.finish()
		}
	})
}

// hold waits; it says false where the client has gone meanwhile.
func hold(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

// answer refuses a request as the server would: S3 in XML, Kubernetes in JSON.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, fault Fault) {
	code, _ := strconv.Atoi(string(fault))
	if code != http.StatusInternalServerError && p.opts.RetryAfter >= 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.opts.RetryAfter))
	}
	if strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-") || r.Header.Get("X-Amz-Date") != "" {
		name := map[Fault]string{Status429: "TooManyRequests", Status500: "InternalError", Status503: "SlowDown"}[fault]
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected</Message></Error>`, name)
		return
	}
	reason := map[Fault]string{Status429: "TooManyRequests", Status500: "InternalError", Status503: "ServiceUnavailable"}[fault]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"injected","reason":%q,"code":%d}`, reason, code)
}

// reset ends the connection (HTTP/1: with a TCP reset) or the stream (HTTP/2) of an exchange. It does not return.
func reset(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if conn, _, err := h.Hijack(); err == nil {
			raw := conn
			if t, ok := conn.(*tls.Conn); ok {
				raw = t.NetConn()
			}
			if tcp, ok := raw.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

var errCut = errors.New("cut by the proxy")

// cutReader fails after so many bytes.
type cutReader struct {
	io.Reader
	io.Closer
	left int64
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errCut
	}
	n, err := c.Reader.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		return n, errCut // the body was shorter than the cut; it is not to arrive whole all the same
	}
	return n, err
}

// discard drops an answer.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// truncating holds an answer back, and passes on a share of its body.
type truncating struct {
	http.ResponseWriter
	share float64
	code  int
	body  bytes.Buffer
}

// truncateLimit is how much of an answer is held back; what is longer is cut there at the latest.
const truncateLimit = 64 << 20

func (t *truncating) WriteHeader(code int) { t.code = code }

func (t *truncating) Write(b []byte) (int, error) {
	if t.body.Len() > truncateLimit {
		return 0, errCut
	}
	return t.body.Write(b)
}

// finish sends the header and part of the body, and resets. It does not return.
func (t *truncating) finish() {
	if t.body.Len() == 0 {
		reset(t.ResponseWriter)
	}
	if t.code == 0 {
		t.code = http.StatusOK
	}
	t.ResponseWriter.WriteHeader(t.code)
	part := int(t.share * float64(t.body.Len())) // at least one byte is missing
	_, _ = t.ResponseWriter.Write(t.body.Bytes()[:part])
	if f, ok := t.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}
