package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// serve starts a server of one handler and a client of it whose waits are recorded.
func serve(t *testing.T, handler http.HandlerFunc) (*Client, *[]time.Duration) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	waits := &[]time.Duration{}
	c, err := New(&rest.Config{Host: server.URL}, Options{OnThrottle: func(_ string, d time.Duration) { *waits = append(*waits, d) }})
	if err != nil {
		t.Fatal(err)
	}
	return c, waits
}

func fail(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

func TestDoStatus(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			fail(w, 404, "NotFound", `pods "x" not found`)
		case "/proxy":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<html>"+strings.Repeat("no ", 200))
		default:
			_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Content-Type")+" "+r.URL.RawQuery)
		}
	})
	_, err := c.Do(t.Context(), Request{Path: "/missing"})
	if !apierrors.IsNotFound(err) || Code(err) != 404 || !strings.Contains(err.Error(), `get /missing: pods "x" not found (HTTP 404 NotFound)`) {
		t.Errorf("error %v", err)
	}
	if _, err := c.Do(t.Context(), Request{Path: "/proxy"}); Code(err) != 403 || len(err.Error()) > 300 {
		t.Errorf("error %v", err)
	}
	resp, err := c.Do(t.Context(), Request{Method: "PATCH", Path: "/x", Body: []byte("{}"), ContentType: "application/apply-patch+yaml", Query: map[string][]string{"force": {"true"}}})
	if err != nil || string(resp.Body) != "PATCH application/apply-patch+yaml force=true" {
		t.Errorf("%v, %v", resp, err)
	}
	if _, err := c.Do(t.Context(), Request{Path: "/x", MaxBody: 3}); err == nil || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestRetry says for each failure whether the request is sent again.
func TestRetry(t *testing.T) {
	again := map[string]string{"Retry-After": "0"}
	for name, c := range map[string]struct {
		method     string
		idempotent bool
		code       int
		header     map[string]string
		want       bool
	}{
		"get 429":           {"GET", false, 429, nil, true},
		"get 500":           {"GET", false, 500, nil, true},
		"get 503":           {"GET", false, 503, nil, true},
		"get 404":           {"GET", false, 404, nil, false},
		"get 403":           {"GET", false, 403, nil, false},
		"get 410":           {"GET", false, 410, nil, false},
		"post 429":          {"POST", false, 429, nil, true},
		"post 500":          {"POST", false, 500, nil, false},
		"post 503":          {"POST", false, 503, nil, false},
		"post 503 later":    {"POST", false, 503, map[string]string{"Retry-After": "1"}, true},
		"post 503 at once":  {"POST", false, 503, again, false},
		"post 504":          {"POST", false, 504, nil, false},
		"dry run post 500":  {"POST", true, 500, nil, true},
		"delete 500":        {"DELETE", false, 500, nil, false},
		"put 409":           {"PUT", false, 409, nil, false},
		"get 501":           {"GET", false, 501, nil, false},
		"dry run post 422":  {"POST", true, 422, nil, false},
		"patch 429 delayed": {"PATCH", false, 429, map[string]string{"Retry-After": "1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			client, waits := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if n.Add(1) == 1 {
					for k, v := range c.header {
						w.Header().Set(k, v)
					}
					fail(w, c.code, "X", "no")
				}
			})
			_, err := client.Do(t.Context(), Request{Method: c.method, Path: "/", Idempotent: c.idempotent})
			if (err == nil) != c.want || n.Load() != map[bool]int32{true: 2, false: 1}[c.want] {
				t.Errorf("%d requests, error %v", n.Load(), err)
			}
			if c.header["Retry-After"] == "1" && (len(*waits) != 1 || (*waits)[0] != time.Second) {
				t.Errorf("waited %v", *waits)
			}
		})
	}
}

// TestLogInAgain sends a request again once, as its credentials may have been replaced.
func TestLogInAgain(t *testing.T) {
	var n atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			fail(w, 401, "Unauthorized", "no")
		}
	})
	if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "/"}); err != nil || n.Load() != 2 {
		t.Errorf("%d requests, error %v", n.Load(), err)
	}
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) { fail(w, 401, "Unauthorized", "no") })
	if _, err := c.Do(t.Context(), Request{Path: "/"}); Code(err) != 401 {
		t.Errorf("error %v", err)
	}
}

func TestRetryEnds(t *testing.T) {
	var n atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { n.Add(1); fail(w, 500, "InternalError", "no") })
	if _, err := c.Do(t.Context(), Request{Path: "/"}); Code(err) != 500 || n.Load() != maxAttempts {
		t.Errorf("%d requests, error %v", n.Load(), err)
	}
}

func TestUnknownOutcome(t *testing.T) {
	var n atomic.Int32
	cut := func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack() // HTTP/1.1 always can
		if err == nil {
			conn.Close()
		}
	}
	c, _ := serve(t, cut)
	_, err := c.Do(t.Context(), Request{Method: "POST", Path: "/", Body: []byte("{}")})
	if !errors.Is(err, ErrUnknownOutcome) || n.Load() != 1 {
		t.Errorf("%d requests, error %v", n.Load(), err)
	}
	n.Store(0)
	if _, err := c.Do(t.Context(), Request{Path: "/"}); err == nil || errors.Is(err, ErrUnknownOutcome) || n.Load() < firstAttempts {
		t.Errorf("%d requests, error %v", n.Load(), err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c, err := New(&rest.Config{Host: address}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "/"}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v", err)
	}
}

func TestStall(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush() // it always can
		<-release
	}))
	defer server.Close()
	defer close(release)
	c, err := New(&rest.Config{Host: server.URL}, Options{StallTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "/"}); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, errStalled) {
		t.Errorf("error %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { cancel(why); fail(w, 503, "", "") })
	if _, err := c.Do(ctx, Request{Path: "/"}); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// pages serves a list of n items in pages, at revision 7. Fault may spoil an answer.
func pages(n int, fault func(request int, w http.ResponseWriter, body []byte) bool) http.HandlerFunc {
	var requests atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		limit, _ := strconv.Atoi(q.Get("limit"))
		start, _ := strconv.Atoi(q.Get("continue"))
		end := min(start+limit, n)
		var b bytes.Buffer
		b.WriteString(`{"kind":"ThingList","apiVersion":"v1","items":[`)
		for i := start; i < end; i++ {
			if i > start {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"n":%d}`, i)
		}
		token := ""
		if end < n {
			token = fmt.Sprintf(`,"continue":"%d","remainingItemCount":%d`, end, n-end)
		}
		fmt.Fprintf(&b, `],"metadata":{"resourceVersion":"7"%s}}`, token)
		if q.Has("continue") && (q.Has("resourceVersion") || q.Has("resourceVersionMatch")) {
			fail(w, 400, "BadRequest", "continue and resourceVersion")
			return
		}
		if fault == nil || !fault(int(requests.Add(1)), w, b.Bytes()) {
			_, _ = w.Write(b.Bytes())
		}
	}
}

func collect(t *testing.T, c *Client, req ListRequest) (string, ListMeta, error) {
	t.Helper()
	var got []string
	meta, err := c.List(t.Context(), req, func(raw []byte) error { got = append(got, string(raw)); return nil })
	return strings.Join(got, ""), meta, err
}

func all(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"n":%d}`, i)
	}
	return b.String()
}

func TestList(t *testing.T) {
	c, _ := serve(t, pages(25, nil))
	got, meta, err := collect(t, c, ListRequest{Path: "/", Limit: 10, ResourceVersion: "7", Exact: true})
	want := ListMeta{ResourceVersion: "7", APIVersion: "v1", Kind: "ThingList", Items: 25, Pages: 3}
	if err != nil || got != all(25) || meta != want {
		t.Errorf("%s, %+v, %v", got, meta, err)
	}
	got, meta, err = collect(t, c, ListRequest{Path: "/", Limit: 1, MaxPages: 1})
	if err != nil || got != all(1) || meta.Remaining != 24 || meta.Continue == "" {
		t.Errorf("%s, %+v, %v", got, meta, err)
	}
	var moved *RevisionError
	if _, _, err := collect(t, c, ListRequest{Path: "/", Limit: 10, ResourceVersion: "8", Exact: true}); !errors.As(err, &moved) || moved.Got != "7" {
		t.Errorf("error %v", err)
	}
}

// TestListBrokenPages cuts answers short: each item is given once all the same.
func TestListBrokenPages(t *testing.T) {
	for _, exact := range []bool{true, false} {
		for _, at := range []int{1, 2, 3} {
			c, _ := serve(t, pages(25, func(request int, w http.ResponseWriter, body []byte) bool {
				if request != at {
					return false
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				_, _ = w.Write(body[:len(body)/2])
				panic(http.ErrAbortHandler)
			}))
			req := ListRequest{Path: "/", Limit: 10}
			if exact {
				req.ResourceVersion, req.Exact = "7", true
			}
			if got, _, err := collect(t, c, req); err != nil || got != all(25) {
				t.Errorf("exact %v, cut %d: %s, %v", exact, at, got, err)
			}
		}
	}
}

func TestListStops(t *testing.T) {
	c, _ := serve(t, pages(25, nil))
	stop := errors.New("stop")
	if _, err := c.List(t.Context(), ListRequest{Path: "/"}, func([]byte) error { return stop }); err != stop { //nolint:errorlint // the very same
		t.Errorf("error %v", err)
	}
}

// TestListRevisionGone has the answers of API servers to a revision that they do not have.
func TestListRevisionGone(t *testing.T) {
	for name, body := range map[string]string{
		"compacted":         `410 {"kind":"Status","message":"The provided continue parameter is too old","reason":"Expired","code":410}`,
		"not yet, by cache": `504 {"kind":"Status","message":"Too large resource version: 99, current: 7","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}`,
		"not yet, by etcd":  `500 {"kind":"Status","message":"rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision is a future revision","code":500}`,
	} {
		var n atomic.Int32
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			code, text, _ := strings.Cut(body, " ")
			status, _ := strconv.Atoi(code)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		})
		if _, _, err := collect(t, c, ListRequest{Path: "/", ResourceVersion: "99", Exact: true}); !errors.Is(err, ErrRevisionGone) || n.Load() != 1 {
			t.Errorf("%s: %d requests, error %v", name, n.Load(), err)
		}
	}
}

func TestListSyntax(t *testing.T) {
	var n atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { n.Add(1); _, _ = io.WriteString(w, `<html>`) })
	if _, _, err := collect(t, c, ListRequest{Path: "/"}); err == nil || n.Load() != 1 {
		t.Errorf("%d requests, error %v", n.Load(), err)
	}
}
