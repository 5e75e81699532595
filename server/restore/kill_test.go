//go:build unix

package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/location"
)

// killer ends a server at its n-th request, before the request is sent or after its answer came: from then on nothing reaches the API server,
// neither of the engine nor of the journal.
type killer struct {
	next   http.RoundTripper
	sent   bool // the last request reaches the server
	cancel context.CancelFunc

	mu    sync.Mutex
	left  int // requests until the end; negative means never
	count int
	dead  bool
}

func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	k.mu.Lock()
	k.count++
	last := k.left == 0 && !k.dead
	k.dead = k.dead || last
	k.left--
	dead := k.dead
	k.mu.Unlock()
	if !dead {
		return k.next.RoundTrip(req)
	}
	if last && k.sent {
		if resp, err := k.next.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	}
	k.cancel()
	return refuseAll(req), nil
}

// refuseAll is an answer after which nobody tries again.
func refuseAll(req *http.Request) *http.Response {
	body := []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"the process is dead","code":403}`)
	return &http.Response{
		StatusCode: http.StatusForbidden, Status: "403 Forbidden", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}

// mortal runs one attempt at a restore until the kill, or to the end where n is negative. It gives the number of requests.
func (w *world) mortal(t testing.TB, o *v1alpha1.Restore, place *location.Place, n int, sent bool) (report *restore.Report, requests int, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k := &killer{left: n, sent: sent, cancel: cancel}
	cfg := w.cluster.Kedge(t)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		k.next = next
		return k
	})
	report, err = w.runner(t, cfg).Work(o, place)(ctx, func(v1alpha1.Progress) {})
	k.mu.Lock()
	defer k.mu.Unlock()
	return report, k.count, err
}

// TestKilled kills the server of a restore at its requests, before and after the API server has them, has another server go on, and compares with
// a restore that nobody disturbed: between a create and its record in the journal, between the record and the next, at the takeover, at the end.
func TestKilled(t *testing.T) {
	w := newWorld(t, "1.36.3", "killed")
	registry := &location.Registry{Client: w.client, Secrets: w.client, Namespace: w.kedge, PrivateDir: t.TempDir(), Now: time.Now}
	place, err := registry.Get(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	begin := func(t *testing.T, name string) *v1alpha1.Restore {
		t.Helper()
		o := w.restore(t, name, func(o *v1alpha1.Restore) { o.Spec.NamespaceMapping = map[string]string{w.shop: name} })
		o.Status.Attempts = 1
		return o
	}
	quiet, requests, err := w.mortal(t, begin(t, "quiet"), place, -1, false)
	if err != nil || quiet.Phase != v1alpha1.PhaseCompleted || quiet.Counts.Created != sizeOfShop {
		t.Fatalf("undisturbed: %+v, %v", quiet, err)
	}
	want := w.stateIn(t, "quiet")
	if len(want) != sizeOfShop-1 {
		t.Fatalf("undisturbed: %d objects", len(want))
	}
	step := max(1, requests/40)
	for n := 0; n <= requests; n += step {
		for _, sent := range []bool{false, true} {
			name := fmt.Sprintf("kill-%d-%v", n, sent)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o := begin(t, name)
				first, _, err := w.mortal(t, o, place, n, sent)
				if err == nil && first.Phase != v1alpha1.PhaseCompleted {
					t.Errorf("a killed server told of %+v", first)
				}
				o.Status.Attempts = 2
				again, _, err := w.mortal(t, o, place, -1, false)
				if err != nil {
					t.Fatal(err)
				}
				if again.Phase != quiet.Phase || again.Counts != quiet.Counts {
					t.Errorf("%s %+v, undisturbed %+v: %+v", again.Phase, again.Counts, quiet.Counts, again.Entries)
				}
				if diff := cmp.Diff(want, w.stateIn(t, name)); diff != "" {
					t.Errorf("-undisturbed +killed\n%s", diff)
				}
				if parts := w.parts(t, o); parts["journal"] != 0 || parts["report"] != 1 {
					t.Errorf("of the restore are kept %v", parts)
				}
			})
		}
	}
	t.Logf("%d requests, killed before and after every %d. of them", requests, step)
}

// stateIn is state for a namespace of a restore of the same name.
func (w *world) stateIn(t testing.TB, name string) map[string]string {
	t.Helper()
	in := *w
	in.shop = name
	out := in.state(t)
	for key := range out {
		out[key] = strings.ReplaceAll(out[key], "kedge/"+name, "kedge/NAME")
	}
	return out
}

// TestForgedJournal has a journal of another restore in the place of this one's: it is refused by name.
func TestForgedJournal(t *testing.T) {
	w := newWorld(t, "1.36.3", "forged")
	registry := &location.Registry{Client: w.client, Secrets: w.client, Namespace: w.kedge, PrivateDir: t.TempDir(), Now: time.Now}
	place, err := registry.Get(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	o := w.restore(t, "one", nil)
	other := w.restore(t, "other", nil)
	o.Status.Attempts, other.Status.Attempts = 1, 1
	// Kill the other in its middle, so that its journal stays, and hand it to the first.
	if _, _, err := w.mortal(t, other, place, 40, true); err == nil {
		t.Fatal("the restore was not killed")
	}
	var list corev1.SecretList
	if err := w.client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for i := range list.Items {
		s := &list.Items[i]
		if s.Labels["kedge.dev/restore-uid"] != string(other.UID) || s.Labels["kedge.dev/restore-part"] != "journal" {
			continue
		}
		forged := &corev1.Secret{Data: s.Data, Type: s.Type, Immutable: s.Immutable}
		forged.Namespace, forged.Name = s.Namespace, strings.ReplaceAll(s.Name, string(other.UID), string(o.UID))
		forged.Labels = map[string]string{"kedge.dev/restore-uid": string(o.UID), "kedge.dev/restore-part": "journal"}
		w.create(t, forged)
		moved++
	}
	if moved == 0 {
		t.Fatal("the killed restore has no journal")
	}
	_, _, err = w.mortal(t, o, place, -1, false)
	if err == nil || !strings.Contains(err.Error(), restore.ErrJournalMismatch.Error()) {
		t.Errorf("the forged journal was taken: %v", err)
	}
}

// TestCancelledAfterDeath cancels a restore whose server was killed: the next one writes nothing more to the cluster, and reports what was done.
func TestCancelledAfterDeath(t *testing.T) {
	w := newWorld(t, "1.36.3", "late")
	registry := &location.Registry{Client: w.client, Secrets: w.client, Namespace: w.kedge, PrivateDir: t.TempDir(), Now: time.Now}
	place, err := registry.Get(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	o := w.restore(t, "late", nil)
	o.Status.Attempts = 1
	if _, _, err := w.mortal(t, o, place, 45, true); err == nil {
		t.Fatal("the restore was not killed")
	}
	before := w.state(t)
	o.Status.Attempts, o.Spec.Cancel = 2, true
	report, _, err := w.mortal(t, o, place, -1, false)
	if err != nil || report.Phase != v1alpha1.PhaseCancelled || report.Counts.Planned != sizeOfShop || report.Counts.Created > len(before)+1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if diff := cmp.Diff(before, w.state(t)); diff != "" {
		t.Errorf("it was written on:\n%s", diff)
	}
}

// TestLateJournal has a write of a server that was replaced arrive when the restore is over, and its journal removed: the next look takes it away.
func TestLateJournal(t *testing.T) {
	w := newWorld(t, "1.36.3", "tidy")
	w.serve(t, w.cluster.Kedge(t), nil)
	w.restore(t, "over", nil)
	o := w.ended(t, "over")
	for range 2 { // a journal is fenced by whoever opens it next: so a Secret comes to be
		j, err := journal.Open(t.Context(), &journal.Store{Client: w.client, Lister: w.client, Owner: o, Writer: "old"}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append(t.Context(), restore.Record{Item: &restore.ItemRecord{Outcome: restore.Failed}}); err != nil {
			t.Fatal(err)
		}
	}
	runner := w.runner(t, w.cluster.Kedge(t))
	if err := runner.tidy(t.Context(), o); err != nil || w.parts(t, o)["journal"] == 0 {
		t.Errorf("of one attempt: %v, %v", w.parts(t, o), err) // it cannot be; nothing is asked for it
	}
	o.Status.Attempts = 2
	if err := runner.tidy(t.Context(), o); err != nil || w.parts(t, o)["journal"] != 0 || w.parts(t, o)["report"] == 0 {
		t.Errorf("of two: %v, %v", w.parts(t, o), err)
	}
}
