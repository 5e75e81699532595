package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

// TestRepin lets the server compact the pinned revision away, and the engine must notice and pin another.
func TestRepin(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			c := testbed.NewCluster(t, version, testbed.NoControllers(), testbed.APIServerFlags("--etcd-compaction-interval=1s"))
			apply(t, c, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}")
			cfg := c.Kedge(t)
			direct := newClient(t, c)
			var waited atomic.Int32
			cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(req *http.Request) (*http.Response, error) {
					if q := req.URL.Query(); q.Get("resourceVersionMatch") == "Exact" && waited.Add(1) == 1 {
						waitCompacted(req.Context(), t, direct, q.Get("resourceVersion"))
					}
					return next.RoundTrip(req)
				})
			}
			client, err := kube.New(cfg, kube.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s, r := readInto(t, client, v1alpha1.BackupSpec{})
			if s.items()["configmaps/v1 default/x"] == nil || len(r.report().Errors) > 0 {
				t.Errorf("%+v", r.report())
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// waitCompacted changes an object until the server no longer has the revision.
func waitCompacted(ctx context.Context, t *testing.T, client *kube.Client, revision string) {
	t.Helper()
	for n := 0; ctx.Err() == nil; n++ {
		patch := fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n)
		if _, err := client.Do(ctx, kube.Request{Method: http.MethodPatch, Path: "/api/v1/namespaces/default/configmaps/x", Body: patch, ContentType: "application/merge-patch+json"}); err != nil {
			t.Errorf("change an object: %v", err)
			return
		}
		_, err := client.List(ctx, kube.ListRequest{Path: "/api/v1/configmaps", ResourceVersion: revision, Exact: true}, func([]byte) error { return nil })
		if errors.Is(err, kube.ErrRevisionGone) {
			return
		}
		if err != nil {
			t.Errorf("list at %s: %v", revision, err)
			return
		}
	}
}

// faultyClient is a client whose nth exact list gets another answer.
func faultyClient(t *testing.T, cfg *rest.Config, answer func(n int32, req *http.Request) *http.Response) *kube.Client {
	t.Helper()
	var n atomic.Int32
	cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Get("resourceVersionMatch") == "Exact" {
				if resp := answer(n.Add(1), req); resp != nil {
					return resp, nil
				}
			}
			return next.RoundTrip(req)
		})
	}
	client, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func status(code int, body map[string]any) *http.Response {
	body["kind"], body["code"] = "Status", code
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), ProtoMajor: 1, ProtoMinor: 1}
}

func TestRepinIsBounded(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	client := faultyClient(t, c.Kedge(t), func(int32, *http.Request) *http.Response {
		return status(http.StatusGone, map[string]any{"reason": "Expired", "message": "too old"})
	})
	_, err := (&Engine{Kube: client}).Preview(t.Context(), Request{})
	if !errors.Is(err, kube.ErrRevisionGone) || !strings.Contains(err.Error(), "5 times the revision was compacted away") {
		t.Errorf("error %v", err)
	}
}

// TestLostRevision gives the answers of which each must lead to a new pin, in the midst of a reading.
func TestLostRevision(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	for name, resp := range map[string]func() *http.Response{
		"410": func() *http.Response {
			return status(http.StatusGone, map[string]any{"reason": "Expired", "message": "The provided continue parameter is too old"})
		},
		"504": func() *http.Response {
			return status(http.StatusGatewayTimeout, map[string]any{"reason": "Timeout", "message": "Too large resource version: 9, current: 8"})
		},
		"500": func() *http.Response {
			return status(http.StatusInternalServerError, map[string]any{"message": "etcdserver: mvcc: required revision is a future revision"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := faultyClient(t, c.Kedge(t), func(n int32, _ *http.Request) *http.Response {
				if n == 7 {
					return resp()
				}
				return nil
			})
			s, r := readInto(t, client, v1alpha1.BackupSpec{})
			if report := r.report(); len(report.Errors) > 0 || len(s.items()) < 100 {
				t.Errorf("%d items, %+v", len(s.items()), report)
			}
		})
	}
}

// TestOtherHistory lets one resource answer with revisions of its own: it is read alone, and the report says so.
func TestOtherHistory(t *testing.T) {
	c := testbed.SharedCluster(t, versions[1])
	for name, revision := range map[string]string{"before the bracket": "3", "behind the bracket": "4000000000", "no number": "x"} {
		t.Run(name, func(t *testing.T) {
			s, r := readInto(t, strangerClient(t, c.Kedge(t), "/api/v1/serviceaccounts", func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error) {
				if exact {
					return status(http.StatusGone, map[string]any{"reason": "Expired", "message": "not of this history"}), nil
				}
				return rewriteRevision(revision)(next.RoundTrip(req))
			}), v1alpha1.BackupSpec{})
			checkAlone(t, s, r)
		})
	}
	t.Run("behind the bracket, and answering", func(t *testing.T) {
		s, r := readInto(t, strangerClient(t, c.Kedge(t), "/api/v1/serviceaccounts", func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error) {
			if exact {
				return next.RoundTrip(req)
			}
			return rewriteRevision("4000000000")(next.RoundTrip(req))
		}), v1alpha1.BackupSpec{})
		checkAlone(t, s, r)
	})
	t.Run("a page of another revision", func(t *testing.T) {
		s, r := readInto(t, strangerClient(t, c.Kedge(t), "/api/v1/serviceaccounts", func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error) {
			if exact {
				return rewriteRevision("3")(next.RoundTrip(req))
			}
			return next.RoundTrip(req)
		}), v1alpha1.BackupSpec{})
		checkAlone(t, s, r)
	})
	for name, exactly := range map[string]func(req *http.Request, next http.RoundTripper) (*http.Response, error){
		"the first reading was refused": func(*http.Request, http.RoundTripper) (*http.Response, error) {
			return status(http.StatusForbidden, map[string]any{"reason": "Forbidden", "message": "not at this revision"}), nil
		},
		"the first reading was broken": func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := rewriteRevision("3")(next.RoundTrip(req))
			return rewrite(`"name":"default"`, `"name":""`)(resp, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := readInto(t, strangerClient(t, c.Kedge(t), "/api/v1/serviceaccounts", func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error) {
				if exact {
					return exactly(req, next)
				}
				return rewriteRevision("4000000000")(next.RoundTrip(req))
			}), v1alpha1.BackupSpec{})
			checkAlone(t, s, r)
		})
	}
}

// TestForgetfulStranger has a resource with a history of its own whose server forgets a list between two pages, once, or whenever it is asked. It costs
// the resource at the most, and never the pin.
func TestForgetfulStranger(t *testing.T) {
	gone := func() *http.Response {
		return status(http.StatusGone, map[string]any{"reason": "Expired", "message": "The provided continue parameter is too old"})
	}
	const accounts, bindings = "serviceaccounts", "clusterrolebindings.rbac.authorization.k8s.io"
	related := v1alpha1.Selection{IncludedNamespaces: []string{"kube-system"}, IncludedResources: []string{accounts}}
	for name, c := range map[string]struct {
		path, resource string
		sel            v1alpha1.Selection
		probes         bool  // they are refused too
		refused        int32 // lists
		failed         bool
	}{
		"once":                       {"/api/v1/serviceaccounts", accounts, v1alpha1.Selection{}, false, 1, false},
		"always":                     {"/api/v1/serviceaccounts", accounts, v1alpha1.Selection{}, false, 100, true},
		"at the probe":               {"/api/v1/serviceaccounts", accounts, v1alpha1.Selection{}, true, 100, true},
		"of related objects":         {"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bindings, related, false, 1, false},
		"of related objects, always": {"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bindings, related, false, 100, true},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := testbed.SharedCluster(t, versions[1])
			var pins, lists atomic.Int32
			cfg := cluster.Kedge(t)
			cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(req *http.Request) (*http.Response, error) {
					if req.URL.Path == "/version" {
						pins.Add(1)
					}
					return next.RoundTrip(req)
				})
			}
			client := strangerClient(t, cfg, c.path, func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error) {
				probe := req.URL.Query().Get("limit") == "1"
				if exact || probe && c.probes || !probe && lists.Add(1) <= c.refused {
					return gone(), nil
				}
				return rewriteRevision("4000000000")(next.RoundTrip(req))
			})
			s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: c.sel})
			report := r.report()
			if pins.Load() != 1 || len(s.items()) == 0 {
				t.Errorf("discovered %d times, %d items", pins.Load(), len(s.items()))
			}
			if !c.failed {
				told := strings.Count(strings.Join(report.Notes, "\n"), c.resource+" have a history of their own")
				if len(report.Errors) > 0 || told != 1 {
					t.Errorf("%+v", report)
				}
				return
			}
			if got := remarkOf(report.Errors, c.resource, ReasonListFailed); len(report.Errors) != 1 || !strings.Contains(got, "continue parameter is too old") {
				t.Errorf("%+v", report)
			}
		})
	}
}

// strangerClient is a client for which the lists of one resource answer otherwise.
func strangerClient(t *testing.T, cfg *rest.Config, path string, answer func(req *http.Request, exact bool, next http.RoundTripper) (*http.Response, error)) *kube.Client {
	t.Helper()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path != path {
				return next.RoundTrip(req)
			}
			return answer(inJSON(req), req.URL.Query().Get("resourceVersionMatch") == "Exact", next)
		})
	})
	client, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func checkAlone(t *testing.T, s *memorySink, r *reading) {
	t.Helper()
	report := r.report()
	if len(report.Errors) > 0 || !strings.Contains(strings.Join(report.Notes, "\n"), "serviceaccounts") || s.items()["serviceaccounts/v1 kube-system/default"] == nil {
		t.Errorf("%+v", report)
	}
}

// rewriteRevision changes the revision that a list says it is of.
func rewriteRevision(revision string) func(*http.Response, error) (*http.Response, error) {
	return change(func(body []byte) []byte {
		head, rest, _ := bytes.Cut(body, []byte(`"metadata":{"resourceVersion":"`))
		_, rest, _ = bytes.Cut(rest, []byte(`"`))
		return append(append(bytes.Clone(head), `"metadata":{"resourceVersion":"`+revision+`"`...), rest...)
	})
}

// inJSON asks for an answer whose text can be changed.
func inJSON(req *http.Request) *http.Request {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "application/json")
	return req
}

// rewrite replaces a text wherever it stands in an answer.
func rewrite(old, text string) func(*http.Response, error) (*http.Response, error) {
	return change(func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(old), []byte(text)) })
}

// change gives an answer another body.
func change(edit func([]byte) []byte) func(*http.Response, error) (*http.Response, error) {
	return func(resp *http.Response, err error) (*http.Response, error) {
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		body = edit(body)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		resp.ContentLength = int64(len(body))
		return resp, nil
	}
}
