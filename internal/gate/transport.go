package gate

import (
	"context"
	"net/http"
	"strings"
)

// Transport sends requests that change something only through the gate; it is asked right before each is handed to next. Reading is free.
func (g *Gate) Transport(next http.RoundTripper) http.RoundTripper {
	if g == nil {
		return next
	}
	return &transport{next: next, pass: g.Pass}
}

type transport struct {
	next http.RoundTripper
	pass func(context.Context) error
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !Reads(req.Method) || runs(req) {
		if err := t.pass(req.Context()); err != nil {
			if req.Body != nil {
				_ = req.Body.Close() // the contract of RoundTrip
			}
			return nil, err
		}
	}
	return t.next.RoundTrip(req)
}

// WrappedRoundTripper gives the transport below; client-go looks through transports for what they can do.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// Reads says whether requests of an HTTP method change nothing.
func Reads(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// runs says whether a request to an API server runs a command in a pod: where it is made by WebSocket it begins with a GET.
func runs(req *http.Request) bool {
	_, rest, ok := strings.Cut(req.URL.Path, "/api/v1/namespaces/")
	parts := strings.Split(rest, "/") // <namespace>/pods/<name>/exec
	return ok && len(parts) == 4 && parts[1] == "pods" && parts[3] == "exec"
}
