package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kedge.dev/kedge/internal/gate"
)

// maxAnswer bounds what is read of an answer, so that its connection can be used again. It is not looked at.
const maxAnswer = 16 << 10

// refusal is an answer that is not a success.
type refusal struct {
	code  int
	after time.Duration // what Retry-After asks for
}

func (r *refusal) Error() string { return "it answered " + strconv.Itoa(r.code) }

// about says whether the refusal is about this notice, and not about the state that the receiver is in.
func (r *refusal) about() bool {
	switch r.code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return r.code >= 400 && r.code < 500
}

// newClient makes the client of one webhook. It follows no redirects: they could lead anywhere, and would take headers along.
func newClient(w *Webhook, g *gate.Gate) *http.Client {
	return &http.Client{
		Timeout:       w.Timeout.Duration,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: g.Transport(&http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxConnsPerHost: 4, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: w.Timeout.Duration, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: w.roots},
		}),
	}
}

// send makes one attempt. Its errors hold no part of the URL but its host, which is no secret.
func send(ctx context.Context, c *http.Client, w *Webhook, n *notice, userAgent string, now time.Time) error {
	body, contentType, err := w.render(n)
	if err != nil {
		return fmt.Errorf("make the body: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("make the request: the URL cannot be used")
	}
	for name, value := range w.Headers {
		req.Header.Set(name, value)
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Webhook-Id", n.id)
	req.Header.Set("Webhook-Timestamp", stamp)
	if w.secret != nil {
		req.Header.Set("Webhook-Signature", signature(w.secret, n.id, stamp, body))
	}
	resp, err := c.Do(req)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // the outer one quotes the URL, which may be all that keeps others from posting there
		}
		return fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the status has been read, and is all that counts
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date, or nothing, is 0
		return &refusal{code: resp.StatusCode, after: time.Duration(max(0, min(seconds, 86400))) * time.Second}
	}
	return nil
}

// signature is that of Standard Webhooks, version 1: over the id, the time and the body.
func signature(secret []byte, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
