package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kedge.dev/kedge/internal/gate"
)

// Request is one call of the API.
type Request struct {
	Method string // "" means GET
	Path   string // escaped, from the root: "/api/v1/namespaces/shop/pods/web-0"
	Query  url.Values
	Body   []byte
	// ContentType of Body; "" means application/json.
	ContentType string
	// Accept; "" means application/json.
	Accept string
	// MaxBody bounds the answer's body in bytes; 0 means 32 MiB.
	MaxBody int64
	// Idempotent says that repeating the request does no harm, where its method does not say so: a dry run.
	Idempotent bool
}

// Response is a success.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

const (
	defaultMaxBody  = 32 << 20
	maxErrorBody    = 1 << 20
	firstAttempts   = 3
	maxAttempts     = 6
	patientAttempts = 10
	maxThrottled    = 60 // times that a server may say "later", beside maxAttempts
	baseBackoff     = 100 * time.Millisecond
	maxBackoff      = 10 * time.Second
	maxRetryAfter   = 2 * time.Minute
)

// Do sends one request and reads the whole answer. An answer that is no success is a *StatusError.
//
// What was surely not carried out (no connection, 429, 503 with Retry-After) is sent again after a pause, in which the
// server's Retry-After is obeyed; what may be repeated without harm (GET, HEAD, Request.Idempotent) also after a lost
// connection and 500, 502, 503, 504. Any other request whose reply was lost gives an error that wraps ErrUnknownOutcome.
func (c *Client) Do(ctx context.Context, req Request) (*Response, error) {
	var out *Response
	err := c.retry(ctx, &req, func(resp *http.Response) error {
		limit := req.MaxBody
		if limit <= 0 {
			limit = defaultMaxBody
		}
		body, err := readBody(resp, limit)
		if err != nil {
			return err
		}
		out = &Response{Status: resp.StatusCode, Header: resp.Header, Body: body}
		return nil
	})
	return out, err
}

func readBody(resp *http.Response, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, &transferError{err}
	}
	if n > limit {
		return nil, fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return buf.Bytes(), nil
}

// transferError marks a failure of the connection while an answer was read.
type transferError struct{ err error }

func (e *transferError) Error() string { return "read the answer: " + e.err.Error() }
func (e *transferError) Unwrap() error { return e.err }

// retry sends the request until consume has had a successful answer or trying again makes no sense. Consume's errors end
// it, except a *transferError of a request that may be repeated.
func (c *Client) retry(ctx context.Context, req *Request, consume func(*http.Response) error) error {
	if req.Method == "" {
		req.Method = http.MethodGet
	}
	throttled, relogged := 0, false
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, req, consume)
		if err == nil {
			return nil
		}
		if Code(err) == http.StatusUnauthorized && !relogged && ctx.Err() == nil {
			relogged = true // a token that has just expired is replaced on the next use
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s: %w", req.Method, req.Path, context.Cause(ctx))
		}
		again, reason, wait := verdict(req, err)
		if reason != "" && throttled < maxThrottled {
			throttled++
			attempt--
		}
		if !again || attempt >= c.attempts(err) {
			return c.explain(req, err)
		}
		if wait == 0 {
			wait = backoff(attempt+throttled, c.jitter())
		}
		if reason != "" {
			c.opts.OnThrottle(reason, wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%s %s: %w", req.Method, req.Path, context.Cause(ctx))
		}
	}
}

// attempts is how often a request is sent. A server that has answered before is waited for, about as long as one takes to start
// again; one that never has is probably not there.
func (c *Client) attempts(err error) int {
	var conn *connError
	switch {
	case !errors.As(err, &conn):
		return maxAttempts
	case c.answered.Load():
		return patientAttempts
	}
	return firstAttempts
}

func backoff(attempt int, jitter float64) time.Duration {
	d := min(baseBackoff<<min(max(attempt-1, 0), 10), maxBackoff)
	return d/2 + time.Duration(jitter*float64(d/2))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Request) repeatable() bool {
	return r.Idempotent || r.Method == http.MethodGet || r.Method == http.MethodHead
}

// verdict says whether a failed request is sent again, how long to wait where the server said so, and the reason where it is
// the server's load.
func verdict(req *Request, err error) (again bool, reason string, wait time.Duration) {
	if se, ok := errors.AsType[*StatusError](err); ok {
		wait = min(se.RetryAfter, maxRetryAfter)
		switch {
		case se.revisionGone():
			return false, "", 0
		case se.Code == http.StatusTooManyRequests:
			return true, "429 " + string(se.Reason), wait
		case se.Code == http.StatusServiceUnavailable && se.RetryAfter > 0:
			return true, "503 " + string(se.Reason), wait
		case se.Code >= 500 && se.Code != http.StatusNotImplemented:
			return req.repeatable(), "", wait
		}
		return false, "", 0
	}
	if _, ok := errors.AsType[*transferError](err); ok {
		return req.repeatable(), "", 0
	}
	if conn, ok := errors.AsType[*connError](err); ok {
		return conn.unsent || req.repeatable(), "", 0
	}
	return false, "", 0
}

// explain wraps the last error of a request with what its reader needs to know.
func (c *Client) explain(req *Request, err error) error {
	if _, ok := errors.AsType[*StatusError](err); ok {
		return err
	}
	var conn *connError
	isConn := errors.As(err, &conn)
	if isConn && conn.unsent {
		return fmt.Errorf("%s %s%s: %w: %w", req.Method, c.Server(), req.Path, ErrUnreachable, conn.err)
	}
	var lost *transferError
	if (isConn || errors.As(err, &lost)) && !req.repeatable() {
		return fmt.Errorf("%s %s: %w: %w", req.Method, req.Path, ErrUnknownOutcome, err)
	}
	return fmt.Errorf("%s %s: %w", req.Method, req.Path, err)
}

// connError is a request that got no answer.
type connError struct {
	err    error
	unsent bool // no byte of it can have reached the server
}

func (e *connError) Error() string { return e.err.Error() }
func (e *connError) Unwrap() error { return e.err }

// errStalled is the cause of a request that Options.StallTimeout ended.
var errStalled = errors.New("the server did not answer in time")

// once sends the request one time, within the limiter's bound.
func (c *Client) once(ctx context.Context, req *Request, consume func(*http.Response) error) error {
	if err := c.limiter.acquire(ctx); err != nil {
		return err
	}
	overloaded := false
	defer func() { c.limiter.release(overloaded) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.opts.StallTimeout, func() { cancel(errStalled) })
	defer watchdog.Stop()

	hreq, err := c.newRequest(ctx, req)
	if err != nil {
		return err
	}
	start := c.opts.Now()
	resp, err := c.http.Do(hreq)
	if err != nil {
		return asConnError(ctx, err)
	}
	defer drain(resp)
	c.answered.Store(true)
	resp.Body = &watchedBody{ReadCloser: resp.Body, timer: watchdog, every: c.opts.StallTimeout}
	overloaded = c.opts.Now().Sub(start) > slowAnswer
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		overloaded = overloaded || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return statusError(*req, resp, body, retryAfter(resp, c.opts.Now()))
	}
	err = consume(resp)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errStalled) {
		return &transferError{cause}
	}
	return err
}

func (c *Client) newRequest(ctx context.Context, req *Request) (*http.Request, error) {
	target := c.base.Scheme + "://" + c.base.Host + c.base.Path + req.Path
	if len(req.Query) > 0 {
		target += "?" + req.Query.Encode()
	}
	var body io.Reader
	if req.Body != nil {
		body = bytes.NewReader(req.Body)
	}
	hreq, err := http.NewRequestWithContext(ctx, req.Method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	hreq.Header.Set("Accept", orElse(req.Accept, "application/json"))
	if req.Body != nil {
		hreq.Header.Set("Content-Type", orElse(req.ContentType, "application/json"))
	}
	return hreq, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// asConnError tells a request that cannot have reached the server from one that may have.
func asConnError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return &connError{err: cause}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if errors.Is(err, gate.ErrShut) { // it was not sent, and will not be
		return err
	}
	var op *net.OpError
	unsent := errors.As(err, &op) && op.Op == "dial"
	return &connError{err: err, unsent: unsent || isTLS(err)}
}

// drain reads what little is left of an answer, so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// watchedBody lets the watchdog run only while it waits for bytes, not while its reader is busy with them.
type watchedBody struct {
	io.ReadCloser
	timer *time.Timer
	every time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.every)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

// retryAfter reads the header in both its forms: seconds and a date.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	v := resp.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
