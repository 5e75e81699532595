// Package podexec runs commands in containers through the API server.
package podexec

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// Request is one command in one container.
type Request struct {
	Namespace, Pod, Container string
	// Command is the program and its arguments; there is no shell.
	Command []string
	// Timeout ends the wait for the command. Zero means no other end than the context's.
	Timeout time.Duration
}

// Errors that callers test for, with errors.Is.
var (
	// ErrTimeout means that the command was asked for, and had not ended in its time. It may still run: Kubernetes has no call that ends it.
	ErrTimeout = errors.New("it did not end in time")
	// ErrForbidden means that the account may not run commands in the pod.
	ErrForbidden = errors.New("forbidden")
	// ErrGone means that there is no such pod or container, or none that runs.
	ErrGone = errors.New("the container is not there")
)

// ExitError means that the command ran to its end and was not content.
type ExitError struct {
	Code int
	// Output is the last of what it wrote to stderr, or else to stdout: bounded, without control characters.
	Output string
}

// Error gives the exit code and the last of the output.
func (e *ExitError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return fmt.Sprintf("exit code %d: %s", e.Code, e.Output)
}

// Client runs commands as one account. It may be used from many goroutines.
type Client struct {
	cfg  *rest.Config
	base *url.URL
}

// New makes a client for the server of cfg, with its credentials, impersonation and wrappers.
func New(cfg *rest.Config) (*Client, error) {
	cfg = rest.CopyConfig(cfg)
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for commands in containers: read the server's address %q: %w", cfg.Host, err)
	}
	cfg.Timeout = 0 // of whole requests, which last as long as a command
	cfg.WrapTransport = transport.Wrappers(watch, cfg.WrapTransport)
	return &Client{cfg: cfg, base: base}, nil
}

// Exec runs a command and waits for its end. It asks by WebSocket, and where the server or what is between does not know that, by SPDY.
// The error is an *ExitError where the command ended with another code than 0, wraps ErrTimeout, ErrForbidden or ErrGone, or is the context's.
// Any other means that nobody knows whether the command began.
func (c *Client) Exec(ctx context.Context, req Request) error {
	var sent atomic.Bool
	run := context.WithValue(ctx, sentKey{}, &sent)
	run = klog.NewContext(run, logr.Discard()) // client-go would log what a connection says that was given up
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeout(run, req.Timeout)
		defer cancel()
	}
	var stdout, stderr tail
	err := c.stream(run, req, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	if err == nil {
		return nil
	}
	var exit exec.CodeExitError
	switch {
	case errors.As(err, &exit):
		text := stderr.text()
		if text == "" {
			text = stdout.text()
		}
		return &ExitError{Code: exit.Code, Output: text}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case run.Err() != nil && !sent.Load():
		return fmt.Errorf("it could not be asked for within %s: %w", req.Timeout, err)
	case run.Err() != nil:
		return fmt.Errorf("%w: %s", ErrTimeout, req.Timeout)
	case forbidden(err):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

func forbidden(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// stream runs a command. Its errors have nothing of what the command was given.
func (c *Client) stream(ctx context.Context, req Request, opts remotecommand.StreamOptions) error {
	target := c.target(req)
	err := c.streamTo(ctx, target, opts)
	if err == nil {
		return nil
	}
	if text := withoutQuery(err.Error(), target); text != err.Error() {
		return &quiet{text, err}
	}
	return err
}

// withoutQuery cuts the query of an address out of a text: the errors of transports hold addresses, and this one the command with its arguments.
func withoutQuery(text string, target *url.URL) string {
	forms := []string{target.RawQuery}
	if plain, err := url.QueryUnescape(target.RawQuery); err == nil {
		forms = append(forms, plain)
	}
	for _, form := range forms {
		quoted := strconv.Quote(form)
		text = strings.NewReplacer(form, "…", quoted[1:len(quoted)-1], "…").Replace(text)
	}
	return text
}

// quiet is an error with another text.
type quiet struct {
	text string
	err  error
}

func (q *quiet) Error() string { return q.text }
func (q *quiet) Unwrap() error { return q.err }

// streamTo runs a command by one of the two protocols.
func (c *Client) streamTo(ctx context.Context, target *url.URL, opts remotecommand.StreamOptions) error {
	socket, err := remotecommand.NewWebSocketExecutor(c.cfg, http.MethodGet, target.String())
	if err != nil {
		return fmt.Errorf("make a WebSocket: %w", err)
	}
	err = socket.StreamWithContext(ctx, opts)
	upgrade, refused := errors.AsType[*httpstream.UpgradeFailureError](err)
	if ctx.Err() != nil || !refused && !httpstream.IsHTTPSProxyError(err) {
		return err
	}
	// Servers before 1.29 do not speak the protocol, and some roles allow only the POST with which the other one begins.
	older, err := remotecommand.NewSPDYExecutor(c.cfg, http.MethodPost, target)
	if err != nil {
		return fmt.Errorf("make a SPDY connection: %w", err)
	}
	err = older.StreamWithContext(ctx, opts)
	if _, ran := errors.AsType[exec.CodeExitError](err); err == nil || ran || !refused {
		return err
	}
	// SPDY's errors have the server's text, the WebSocket's its reason.
	return &refusal{err, upgrade.Cause}
}

// sentKey is of the context's value that notes that a request was answered. Nodes begin commands after that: a request that waited too long for
// a lease, a connection or an answer began none that is known of.
type sentKey struct{}

// watch notes requests that were answered, behind all that may hold them up.
func watch(next http.RoundTripper) http.RoundTripper { return &watched{next} }

type watched struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if sent, ok := req.Context().Value(sentKey{}).(*atomic.Bool); ok && err == nil {
		sent.Store(true)
	}
	return resp, err
}

// WrappedRoundTripper gives the transport below; client-go looks through transports for what they can do.
func (w *watched) WrappedRoundTripper() http.RoundTripper { return w.next }

// refusal is an answer of the server in words, and as it can be tested for.
type refusal struct{ words, reason error }

func (r *refusal) Error() string   { return r.words.Error() }
func (r *refusal) Unwrap() []error { return []error{r.words, r.reason} }

// target is the address of the command.
func (c *Client) target(req Request) *url.URL {
	out := c.base.JoinPath("api", "v1", "namespaces", req.Namespace, "pods", req.Pod, "exec")
	query := url.Values{"command": req.Command, "stdout": {"true"}, "stderr": {"true"}}
	if req.Container != "" {
		query.Set("container", req.Container)
	}
	out.RawQuery = query.Encode()
	return out
}
