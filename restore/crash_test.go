package restore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

// killer ends a run at its n-th request, before the request is sent or after its answer came, as a kill of the process would:
// from then on nothing reaches the server or the journal.
type killer struct {
	mu     sync.Mutex
	next   http.RoundTripper
	left   int  // requests until the end; negative means never
	sent   bool // the last request reaches the server
	count  int
	dead   bool
	cancel context.CancelFunc
}

var errKilled = errors.New("killed")

func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	k.mu.Lock()
	k.count++
	last := false
	if k.left == 0 {
		last, k.dead = true, true
	}
	k.left--
	dead, sent := k.dead, k.sent
	k.mu.Unlock()
	if dead && (!last || !sent) {
		k.end()
		return nil, errKilled
	}
	resp, err := k.next.RoundTrip(req)
	if last {
		if err == nil {
			resp.Body.Close()
		}
		k.end()
		return nil, errKilled
	}
	return resp, err
}

func (k *killer) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cancel != nil {
		k.cancel()
	}
}

// mortalJournal loses what is appended after the kill.
type mortalJournal struct {
	Journal
	k *killer
}

func (j mortalJournal) Append(ctx context.Context, r ...Record) error {
	j.k.mu.Lock()
	dead := j.k.dead
	j.k.mu.Unlock()
	if dead {
		return errKilled
	}
	return j.Journal.Append(ctx, r...)
}

// runMortal plans and runs until the kill, or to the end where n is negative. It gives the number of requests of the run.
func runMortal(t *testing.T, cluster *testbed.Cluster, source Source, req Request, journal string, n int, sent bool) (*Report, int) {
	t.Helper()
	k := &killer{left: -1, sent: sent}
	cfg := cluster.Kedge(t)
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		k.next = rt
		return k
	})
	j, err := OpenFileJournal(journal)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	e := engineFor(clientFor(t, cfg), source)
	e.Journal = mortalJournal{j, k}
	p, err := e.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k.mu.Lock()
	k.left, k.count, k.cancel = n, 0, cancel
	k.mu.Unlock()
	r, err := e.Run(ctx, p)
	if n < 0 && err != nil {
		t.Fatal(err)
	}
	return r, k.count
}

// stateOf describes what a test wrote, without what differs from run to run.
func stateOf(t *testing.T, c *kube.Client, ns string) map[string]string {
	t.Helper()
	out := map[string]string{}
	byUID := map[any]string{}
	for _, path := range []string{
		"/api/v1/namespaces/NS", "/api/v1/namespaces/NS/configmaps/plain", "/api/v1/namespaces/NS/configmaps/applied",
		"/apis/apps/v1/namespaces/NS/deployments/web", "/api/v1/namespaces/NS/configmaps/owned", "/api/v1/namespaces/NS/configmaps/orphan",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/carts.NS.example.com", "/apis/NS.example.com/v1/namespaces/NS/carts/c",
		"/api/v1/namespaces/NS/secrets/of-cart",
	} {
		obj := getObject(t, c, in(ns, path))
		meta := metaOf(obj)
		byUID[meta["uid"]] = path
		var managers []string
		fields, _ := meta["managedFields"].([]any)
		for _, m := range fields {
			if name := m.(map[string]any)["manager"].(string); !strings.HasPrefix(name, "kube-") {
				managers = append(managers, name+" "+m.(map[string]any)["operation"].(string))
			}
		}
		slices.Sort(managers)
		refs, _ := meta["ownerReferences"].([]any)
		for _, r := range refs {
			r := r.(map[string]any)
			r["uid"] = byUID[r["uid"]]
		}
		if !strings.Contains(path, "carts/c") {
			delete(obj, "status")
		}
		for _, f := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "annotations"} {
			delete(meta, f)
		}
		out[path] = strings.ReplaceAll(toJSON(obj)+fmt.Sprint(managers), ns, "NS")
	}
	return out
}

// TestKill kills a restore at each of its requests, before and after the server has it, resumes it, and compares with a run that
// nobody disturbed.
func TestKill(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.SharedCluster(t, version)
			c := clientFor(t, cluster.Kedge(t))
			req := request("kill")
			req.Spec.RestoreStatus = []string{"carts.*"}
			quiet, requests := runMortal(t, cluster, fromYAML(t, in("undisturbed", basics)), req, filepath.Join(t.TempDir(), "j"), -1, false)
			want := stateOf(t, c, "undisturbed")
			for n := range requests {
				for _, sent := range []bool{false, true} {
					ns := fmt.Sprintf("kill-%d-%v", n, sent)
					t.Run(ns, func(t *testing.T) {
						t.Parallel() // most of a case is waiting for the server to serve a definition
						journal := filepath.Join(t.TempDir(), "j")
						runMortal(t, cluster, fromYAML(t, in(ns, basics)), req, journal, n, sent)
						r, _ := runMortal(t, cluster, fromYAML(t, in(ns, basics)), req, journal, -1, false)
						compareKilled(t, r, quiet, stateOf(t, c, ns), want)
					})
				}
			}
			t.Logf("%d requests, each killed before and after", requests)
		})
	}
}

// compareKilled holds a resumed restore against one that nobody disturbed.
func compareKilled(t *testing.T, r, quiet *Report, got, want map[string]string) {
	t.Helper()
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts != quiet.Counts {
		t.Errorf("%s %+v, undisturbed %+v: %+v", r.Phase, r.Counts, quiet.Counts, r.Entries)
	}
	for k := range want {
		if got[k] != want[k] {
			t.Errorf("%s\ngot  %s\nwant %s", k, got[k], want[k])
		}
	}
}

// TestKillPolicies does the same where the target has the objects already, and they differ.
func TestKillPolicies(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	state := func(ns string) string {
		t.Helper()
		text := ""
		for _, path := range []string{"/api/v1/namespaces/NS/configmaps/other", "/api/v1/namespaces/NS/configmaps/fresh",
			"/api/v1/namespaces/NS/secrets/hidden", "/apis/apps/v1/namespaces/NS/deployments/web"} {
			obj := getObject(t, c, in(ns, path))
			text += toJSON(obj["data"]) + toJSON(metaOf(obj)["labels"])
			if spec, ok := obj["spec"].(map[string]any); ok {
				text += toJSON(spec["selector"])
			}
		}
		return text
	}
	for n, policy := range []v1alpha1.ExistingResourcePolicy{v1alpha1.PolicyRecreate, v1alpha1.PolicyUpdate, v1alpha1.PolicyFail} {
		t.Run(string(policy), func(t *testing.T) {
			req := request(fmt.Sprintf("kill-policy-%d", n))
			req.Spec.ExistingResourcePolicy = policy
			req.Spec.UpdateMode = v1alpha1.UpdateExact
			run := func(ns, journal string, left int, sent bool) (*Report, int) {
				return runMortal(t, cluster, fromYAML(t, in(ns, changedObjects)), req, journal, left, sent)
			}
			prepare := func(ns string) {
				if err := cluster.ApplyYAML(t.Context(), in(ns, liveObjects)); err != nil {
					t.Fatal(err)
				}
			}
			ns := fmt.Sprintf("kp-%d", n)
			prepare(ns)
			quiet, requests := run(ns, filepath.Join(t.TempDir(), "j"), -1, false)
			want := state(ns)
			for left := range requests {
				for _, sent := range []bool{false, true} {
					ns, journal := fmt.Sprintf("kp-%d-%d-%v", n, left, sent), filepath.Join(t.TempDir(), "j")
					prepare(ns)
					run(ns, journal, left, sent)
					r, _ := run(ns, journal, -1, false)
					if got := state(ns); got != want || r.Phase != quiet.Phase || r.Counts.Failed != quiet.Counts.Failed {
						t.Errorf("killed at request %d of %d (sent: %v): %s %+v, undisturbed %s %+v\ngot  %s\nwant %s", left, requests, sent, r.Phase, r.Counts, quiet.Phase, quiet.Counts, got, want)
					}
				}
			}
			t.Logf("%d requests, each killed before and after", requests)
		})
	}
}
