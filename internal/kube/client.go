// Package kube is raw access to one Kubernetes API server: bytes in, bytes out, with retries, adaptive concurrency, paged
// lists at a pinned revision, and discovery.
package kube

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// Options tune a Client. The zero value is good.
type Options struct {
	// UserAgent names the program to the server: "kedge/v0.1.0 (backup)".
	UserAgent string
	// MaxInFlight is the ceiling of requests in flight; 0 means 64. The Client finds the right number below it itself.
	MaxInFlight int
	// Compress asks the server for gzip. It pays on slow links only: the server's time for it is several times the list's own.
	Compress bool
	// StallTimeout ends a request whose answer, or whose next bytes, do not come; 0 means 75 seconds (API servers end what takes
	// over 60 themselves).
	StallTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// OnThrottle hears of every wait that the server's load caused.
	OnThrottle func(reason string, wait time.Duration)
}

// Client talks to one API server. It may be used from many goroutines.
type Client struct {
	base    *url.URL
	http    *http.Client
	limiter *limiter
	opts    Options
	jitter  func() float64
	// answered says that the server has answered at least once.
	answered atomic.Bool
}

// New makes a client for the server of cfg, with cfg's credentials (tokens, certificates, exec plugins, impersonation), proxy
// and dialer. cfg's QPS, Burst and RateLimiter are not used: the server's own answers set the pace.
func New(cfg *rest.Config, opts Options) (*Client, error) {
	if cfg == nil {
		return nil, errors.New("make a client: no configuration")
	}
	if opts.MaxInFlight <= 0 {
		opts.MaxInFlight = 64
	}
	if opts.StallTimeout <= 0 {
		opts.StallTimeout = 75 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the documented default
	}
	if opts.OnThrottle == nil {
		opts.OnThrottle = func(string, time.Duration) {}
	}
	cfg = rest.CopyConfig(cfg)
	if opts.UserAgent != "" {
		cfg.UserAgent = opts.UserAgent
	}
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client: read the server's address %q: %w", cfg.Host, err)
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	rt, err := newTransport(cfg, opts)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", base.Host, err)
	}
	return &Client{
		base:    base,
		http:    &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		limiter: newLimiter(opts.MaxInFlight, opts.Now),
		opts:    opts,
		jitter:  rand.Float64, //nolint:forbidigo // spreads retries; nothing depends on it
	}, nil
}

// Server is the address of the API server, for messages.
func (c *Client) Server() string { return c.base.Scheme + "://" + c.base.Host }

// InFlightLimit is the number of requests that the Client allows itself at this moment.
func (c *Client) InFlightLimit() int { return c.limiter.current() }

// newTransport makes a transport of many HTTP/1.1 connections: one HTTP/2 connection carries all its streams through one
// reader and one flow control window, which bounds large lists (docs/benchmarks.md has the figures).
func newTransport(cfg *rest.Config, opts Options) (http.RoundTripper, error) {
	if cfg.Transport != nil {
		return rest.TransportFor(cfg)
	}
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil {
		tlsConfig.NextProtos = []string{"http/1.1"}
		tlsConfig.ClientSessionCache = tls.NewLRUClientSessionCache(opts.MaxInFlight)
	}
	dial := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	if tc.DialHolder != nil {
		dial = tc.DialHolder.Dial
	}
	proxy := http.ProxyFromEnvironment
	if tc.Proxy != nil {
		proxy = tc.Proxy
	}
	rt := &http.Transport{
		Proxy:                 proxy,
		DialContext:           buffered(dial),
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   10 * time.Second,
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConns:          opts.MaxInFlight,
		MaxIdleConnsPerHost:   opts.MaxInFlight,
		IdleConnTimeout:       55 * time.Second, // below the server's own, so that it is not the server that ends a connection just in use
		DisableCompression:    !opts.Compress,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       16 << 10,
		ExpectContinueTimeout: time.Second,
	}
	return transport.HTTPWrappersForConfig(tc, rt)
}
