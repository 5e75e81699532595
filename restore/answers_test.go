package restore

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/testbed"
)

// answers gives answers of its own in the place of a real server.
type answers struct {
	next http.RoundTripper
	// answer gives nil where the server is to answer.
	answer func(req *http.Request, body string) *http.Response
}

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	if resp := a.answer(req, string(body)); resp != nil {
		resp.Request, resp.ProtoMajor, resp.ProtoMinor, resp.ContentLength = req, 1, 1, -1
		return resp, nil
	}
	return a.next.RoundTrip(req)
}

// answering makes a configuration whose requests answer sees first.
func answering(cfg *rest.Config, answer func(req *http.Request, body string) *http.Response) *rest.Config {
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &answers{next: rt, answer: answer} })
	return cfg
}

// status is an answer as servers give it.
func status(code int, reason, message string) *http.Response {
	body := toJSON(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// lost is an answer that breaks off.
func lost() *http.Response {
	return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: io.NopCloser(iotest.ErrReader(errors.New("cut off")))}
}

// createsOf says whether a request creates the object of a name, and no other.
func createsOf(req *http.Request, body, name string) bool {
	return req.Method == http.MethodPost && strings.Contains(body, `"name":"`+name+`"`)
}

const ghost = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ghost, namespace: NS}
data: {k: v}
`

// TestGhost restores an object that the server says to exist, or may have made, at each create, and that is never there. It fails, and the
// run ends.
func TestGhost(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	exists := func() *http.Response {
		return status(http.StatusConflict, "AlreadyExists", `configmaps "ghost" already exists`)
	}
	quota := func() *http.Response {
		return status(http.StatusForbidden, "Forbidden", `configmaps "ghost" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1`)
	}
	for name, c := range map[string]struct {
		// script is what the first creates get; the last one is for all that follow.
		script []func() *http.Response
		reason Reason
	}{
		"exists":               {[]func() *http.Response{exists}, Conflict},
		"exists after a wait":  {[]func() *http.Response{quota, exists}, Conflict},
		"lost":                 {[]func() *http.Response{lost}, ServerError},
		"lost after a wait":    {[]func() *http.Response{quota, lost}, ServerError},
		"lost and exists":      {[]func() *http.Response{lost, lost, lost, exists}, Conflict},
		"exists, then refused": {[]func() *http.Response{exists, quota}, RefusedByQuota},
	} {
		t.Run(name, func(t *testing.T) {
			ns := "ghost-" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
			creates := 0 // of one object, so one after the other
			cfg := answering(cluster.Kedge(t), func(req *http.Request, body string) *http.Response {
				if !createsOf(req, body, "ghost") {
					return nil
				}
				creates++
				return c.script[min(creates, len(c.script))-1]()
			})
			req := request(ns)
			req.Spec.WaitTimeout.Duration = time.Second
			r := restoreAll(t, engineFor(clientFor(t, cfg), fromYAML(t, in(ns, ghost))), req)
			want := v1alpha1.RestoreCounts{Planned: 2, Created: 1, Failed: 1}
			if r.Phase != v1alpha1.PhasePartiallyFailed || r.Counts != want {
				t.Errorf("%s %+v: %+v", r.Phase, r.Counts, r.Entries)
			}
			if e := entriesOf(r, "configmaps", ns, "ghost"); len(e) != 1 || e[0].Outcome != Failed || e[0].Reason != c.reason {
				t.Errorf("want %s: %+v", c.reason, e)
			}
		})
	}
}

func TestDecidePhase(t *testing.T) {
	for _, c := range []struct {
		counts    v1alpha1.RestoreCounts
		cancelled bool
		stopped   error
		phase     v1alpha1.Phase
		message   string
	}{
		{counts: v1alpha1.RestoreCounts{Planned: 4, Created: 1, Updated: 1, Unchanged: 1, Skipped: 1}, phase: v1alpha1.PhaseCompleted},
		{counts: v1alpha1.RestoreCounts{Planned: 2, Skipped: 2}, phase: v1alpha1.PhaseCompleted},
		{counts: v1alpha1.RestoreCounts{}, phase: v1alpha1.PhaseCompleted},
		{counts: v1alpha1.RestoreCounts{Planned: 3, Created: 2, Failed: 1}, phase: v1alpha1.PhasePartiallyFailed, message: "1 of 3 objects could not be restored"},
		{counts: v1alpha1.RestoreCounts{Planned: 3, Created: 2}, phase: v1alpha1.PhasePartiallyFailed, message: "1 of 3 objects could not be restored"},
		{counts: v1alpha1.RestoreCounts{Planned: 4, Unchanged: 1, Failed: 1}, phase: v1alpha1.PhasePartiallyFailed, message: "3 of 4 objects could not be restored"},
		{counts: v1alpha1.RestoreCounts{Planned: 3, Skipped: 1, Failed: 1}, phase: v1alpha1.PhaseFailed, message: "none of 2 objects could be restored"},
		{counts: v1alpha1.RestoreCounts{Planned: 3, Created: 2}, cancelled: true, phase: v1alpha1.PhaseCancelled, message: "stopped after 2 of 3 objects; it can be resumed"},
		{counts: v1alpha1.RestoreCounts{Planned: 3, Created: 3}, stopped: errUnreachable, phase: v1alpha1.PhaseFailed, message: errUnreachable.Error()},
	} {
		r := Report{Counts: c.counts}
		if r.decidePhase(c.cancelled, c.stopped); r.Phase != c.phase || r.Message != c.message {
			t.Errorf("%+v: got %s %q, want %s %q", c.counts, r.Phase, r.Message, c.phase, c.message)
		}
	}
}
