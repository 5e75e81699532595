package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"kedge.dev/kedge/api/v1alpha1"
)

var base = time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time {
	t := metav1.NewTime(base.Add(d))
	return &t
}

// receiver is a webhook's other end.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer int
	header http.Header // of answers
	got    []request
}

type request struct {
	header http.Header
	body   string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{answer: http.StatusNoContent, header: http.Header{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, request{header: req.Header, body: string(body)})
		maps.Copy(w.Header(), r.header)
		w.WriteHeader(r.answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(answer int, header http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.header = answer, header
}

// requests gives what was received, in order, and ids the ids of that.
func (r *receiver) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) ids() []string {
	var out []string
	for _, g := range r.requests() {
		out = append(out, g.header.Get("Webhook-Id"))
	}
	return out
}

// bench is a notifier with a clock that a test turns.
type bench struct {
	*Notifier
	client client.Client
	now    time.Time
}

func newBench(t *testing.T, c client.Client, config string) *bench {
	t.Helper()
	parsed, err := Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{client: c, now: base.Add(time.Minute)}
	b.Notifier = New(Options{
		Client: c, Config: parsed, OwnCluster: func(context.Context) (string, error) { return "cluster-uid", nil }, ClusterName: "blue",
		UserAgent: "kedge/v1", Now: func() time.Time { return b.now }, Rand: func() float64 { return 0.5 },
	})
	return b
}

func newClientWith(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func (b *bench) reconcile(t *testing.T, object client.Object) time.Duration {
	t.Helper()
	result, err := b.Reconciler(object).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)})
	if err != nil {
		t.Fatal(err)
	}
	return result.RequeueAfter
}

// marked is the annotation that the object has in the cluster.
func (b *bench) marked(t *testing.T, object client.Object) string {
	t.Helper()
	fresh := object.DeepCopyObject().(client.Object)
	if err := b.client.Get(t.Context(), client.ObjectKeyFromObject(object), fresh); err != nil {
		t.Fatal(err)
	}
	return fresh.GetAnnotations()[NotifiedAnnotation]
}

func backup(name string, phase v1alpha1.Phase, end time.Duration) *v1alpha1.Backup {
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kedge", UID: types.UID("uid-" + name)}}
	b.Status = v1alpha1.BackupStatus{
		Schedule: "prod-hourly", Phase: phase, StorageLocation: "main", StoredBytes: 9, Counts: v1alpha1.Counts{Items: 7, Bytes: 70, Errors: 1},
		Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: string(phase), Message: "The backup holds what could be read."}},
	}
	if phase.Final() {
		b.Status.StartTime, b.Status.CompletionTime = at(end-time.Minute), at(end)
	}
	return b
}

func hooks(urls ...string) string {
	var b strings.Builder
	b.WriteString("webhooks:\n")
	for i, u := range urls {
		fmt.Fprintf(&b, "- name: hook%d\n  url: %s\n", i, u)
	}
	return b.String()
}

// TestEvent: what is sent, key for key.
func TestEvent(t *testing.T) {
	r := newReceiver(t)
	o := backup("nightly", v1alpha1.PhasePartiallyFailed, 0)
	b := newBench(t, newClientWith(t, o), "webhooks:\n- name: ops\n  url: "+r.URL+"/path\n  signingSecret: "+secret+"\n  headers: {Authorization: Bearer abc}\n")
	if again := b.reconcile(t, o); again != 0 {
		t.Fatalf("it is to be sent again after %s", again)
	}
	got := r.requests()
	if len(got) != 1 {
		t.Fatalf("%d requests came", len(got))
	}
	var have, want any
	if err := json.Unmarshal([]byte(got[0].body), &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{
		"specversion": "1.0", "id": "uid-nightly-PartiallyFailed", "source": "/clusters/cluster-uid/namespaces/kedge", "type": "dev.kedge.backup.partialfailure",
		"subject": "nightly", "time": "2026-11-25T08:00:00Z", "datacontenttype": "application/json",
		"data": {
			"event": "PartialFailure", "kind": "Backup", "namespace": "kedge", "name": "nightly", "uid": "uid-nightly", "cluster": {"uid": "cluster-uid", "name": "blue"},
			"phase": "PartiallyFailed", "reason": "PartiallyFailed", "message": "The backup holds what could be read.", "schedule": "prod-hourly", "location": "main",
			"startTime": "2026-11-25T07:59:00Z", "completionTime": "2026-11-25T08:00:00Z", "durationSeconds": 60,
			"backupCounts": {"items": 7, "bytes": 70, "errors": 1}, "storedBytes": 9
		}}`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("the event differs (-want +got):\n%s", diff)
	}
	h := got[0].header
	for name, want := range map[string]string{
		"Content-Type": "application/cloudevents+json", "User-Agent": "kedge/v1", "Authorization": "Bearer abc", "Webhook-Id": "uid-nightly-PartiallyFailed",
		"Webhook-Timestamp": "1795593660", "Webhook-Signature": signature([]byte("01234567890123456789012345678901"), "uid-nightly-PartiallyFailed", "1795593660", []byte(got[0].body)),
	} {
		if h.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, h.Get(name), want)
		}
	}
	if got := b.marked(t, o); got != "uid-nightly-PartiallyFailed" {
		t.Errorf("it is marked %q", got)
	}
	b.reconcile(t, o)
	if len(r.ids()) != 1 {
		t.Errorf("what was marked was sent again: %v", r.ids())
	}
}

// TestSignature is the example of the specification of Standard Webhooks.
func TestSignature(t *testing.T) {
	c, err := Parse([]byte("webhooks:\n- name: a\n  url: https://h.example\n  signingSecret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := signature(c.Webhooks[0].secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTemplate(t *testing.T) {
	r := newReceiver(t)
	o := backup("nightly", v1alpha1.PhaseFailed, 0)
	b := newBench(t, newClientWith(t, o), "webhooks:\n- name: chat\n  url: "+r.URL+"\n  template: '{\"text\": {{json (printf \"%s %s: %s\" .Kind .Name .Event)}}}'\n")
	b.reconcile(t, o)
	if got := r.requests(); len(got) != 1 || got[0].body != `{"text": "Backup nightly: Failure"}` || got[0].header.Get("Content-Type") != "application/json" {
		t.Errorf("got %+v", got)
	}
}

// TestWhatIsTold: which objects are told, to whom.
func TestWhatIsTold(t *testing.T) {
	shown := backup("shown", v1alpha1.PhaseCompleted, 0)
	shown.Annotations = map[string]string{v1alpha1.ArchiveUIDAnnotation: "x"}
	byHand := backup("byhand", v1alpha1.PhaseCompleted, 0)
	byHand.Status.Schedule = ""
	restored := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "kedge", UID: "uid-r"}, Status: v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseFailed, CompletionTime: at(0)}}
	silent := func(reason string, status metav1.ConditionStatus) *v1alpha1.Schedule {
		return &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Name: "prod-hourly", Namespace: "kedge", UID: "uid-s"}, Status: v1alpha1.ScheduleStatus{
			Conditions: []metav1.Condition{{Type: "Healthy", Status: status, Reason: reason, LastTransitionTime: *at(0)}},
		}}
	}
	const onlySome = "  schedules: [prod-*]\n  events: [Failure, Silence]\n"
	for name, c := range map[string]struct {
		object client.Object
		fields string
		want   string // the id; "" is nothing
	}{
		"completed":               {object: backup("a", v1alpha1.PhaseCompleted, 0), want: "uid-a-Completed"},
		"failed":                  {object: backup("a", v1alpha1.PhaseFailed, 0), want: "uid-a-Failed"},
		"cancelled":               {object: backup("a", v1alpha1.PhaseCancelled, 0)},
		"in the making":           {object: backup("a", v1alpha1.PhaseInProgress, 0)},
		"shown from a bucket":     {object: shown},
		"too old":                 {object: backup("a", v1alpha1.PhaseCompleted, -6*time.Hour)},
		"old, but young enough":   {object: backup("a", v1alpha1.PhaseCompleted, -5*time.Hour), want: "uid-a-Completed"},
		"a restore":               {object: restored, want: "uid-r-Failed"},
		"an overdue schedule":     {object: silent("RunOverdue", metav1.ConditionFalse), want: "uid-s-Silence-1795593600"},
		"a schedule that fails":   {object: silent("LastRunFailed", metav1.ConditionFalse)},
		"a healthy schedule":      {object: silent("LastRunSucceeded", metav1.ConditionTrue)},
		"an event not wanted":     {object: backup("a", v1alpha1.PhaseCompleted, 0), fields: onlySome},
		"an event wanted":         {object: backup("a", v1alpha1.PhaseFailed, 0), fields: onlySome, want: "uid-a-Failed"},
		"silence wanted":          {object: silent("RunOverdue", metav1.ConditionFalse), fields: onlySome, want: "uid-s-Silence-1795593600"},
		"of no schedule":          {object: byHand, fields: "  schedules: ['*']\n"},
		"of another schedule":     {object: backup("a", v1alpha1.PhaseFailed, 0), fields: "  schedules: [test-*]\n"},
		"a restore, of schedules": {object: restored, fields: "  schedules: ['*']\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			b := newBench(t, newClientWith(t, c.object), hooks(r.URL)+c.fields)
			b.reconcile(t, c.object)
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if diff := cmp.Diff(want, r.ids()); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if got := b.marked(t, c.object); got != c.want {
				t.Errorf("it is marked %q, want %q", got, c.want)
			}
		})
	}
}

// TestOneFails: a webhook that is down keeps no other from being told, is tried later and later, and the other is told once.
func TestOneFails(t *testing.T) {
	good, bad := newReceiver(t), newReceiver(t)
	bad.set(http.StatusServiceUnavailable, nil)
	o := backup("a", v1alpha1.PhaseFailed, 0)
	c := newClientWith(t, o)
	b := newBench(t, c, hooks(good.URL, bad.URL))
	for i, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
		if got := b.reconcile(t, o); got != want+want/10 {
			t.Errorf("after failure %d it is tried again after %s, want %s and a tenth", i+1, got, want)
		}
		if got := b.reconcile(t, o); got != want+want/10 { // too early
			t.Errorf("too early after failure %d it is tried again after %s", i+1, got)
		}
		b.now = b.now.Add(want)
	}
	if len(good.ids()) != 1 || len(bad.ids()) != 3 || b.marked(t, o) != "" {
		t.Errorf("the good one was told %d times, the bad one %d times, mark %q", len(good.ids()), len(bad.ids()), b.marked(t, o))
	}

	// Another server takes over. It knows nothing of what was delivered, so the good one hears again, under the same id.
	restarted := newBench(t, c, hooks(good.URL, bad.URL))
	restarted.now = b.now
	bad.set(http.StatusOK, nil)
	if got := restarted.reconcile(t, o); got != 0 {
		t.Errorf("all is well, and it is tried again after %s", got)
	}
	if diff := cmp.Diff([]string{"uid-a-Failed", "uid-a-Failed"}, good.ids()); diff != "" {
		t.Errorf("the good one was told (-want +got):\n%s", diff)
	}
	if got := restarted.marked(t, o); got != "uid-a-Failed" {
		t.Errorf("it is marked %q", got)
	}
}

// TestAnOutageIsTriedOnce: while a webhook rests after a failure, other notices wait for it and do not try.
func TestAnOutageIsTriedOnce(t *testing.T) {
	r := newReceiver(t)
	r.set(http.StatusTooManyRequests, http.Header{"Retry-After": {"60"}})
	one, two := backup("one", v1alpha1.PhaseFailed, 0), backup("two", v1alpha1.PhaseFailed, 0)
	b := newBench(t, newClientWith(t, one, two), hooks(r.URL))
	for _, o := range []*v1alpha1.Backup{one, two} {
		if got := b.reconcile(t, o); got != 66*time.Second {
			t.Errorf("%s is tried again after %s, and not after the minute that was asked for", o.Name, got)
		}
	}
	if got := r.ids(); len(got) != 1 {
		t.Errorf("there were the attempts %v", got)
	}
}

// TestOneIsRefused: an answer that is about one notice does not keep others waiting.
func TestOneIsRefused(t *testing.T) {
	r := newReceiver(t)
	r.set(http.StatusBadRequest, nil)
	one, two := backup("one", v1alpha1.PhaseFailed, 0), backup("two", v1alpha1.PhaseFailed, 0)
	b := newBench(t, newClientWith(t, one, two), hooks(r.URL))
	if b.reconcile(t, one) == 0 {
		t.Error("what was refused is not tried again")
	}
	r.set(http.StatusOK, nil)
	if b.reconcile(t, two) != 0 || b.marked(t, two) == "" {
		t.Error("another notice waits")
	}
	if b.reconcile(t, one) == 0 {
		t.Error("what was refused is tried again at once")
	}
	b.now = b.now.Add(7 * time.Hour)
	if b.reconcile(t, one) != 0 || b.marked(t, one) != "" || len(r.ids()) != 2 {
		t.Errorf("what is too old is not given up: %v", r.ids())
	}
	if len(b.pending) != 0 {
		t.Errorf("%d notices are still in memory", len(b.pending))
	}
}

// TestRedirect: a redirect is not followed; it is a refusal.
func TestRedirect(t *testing.T) {
	target, r := newReceiver(t), newReceiver(t)
	r.set(http.StatusTemporaryRedirect, http.Header{"Location": {target.URL}})
	o := backup("a", v1alpha1.PhaseFailed, 0)
	b := newBench(t, newClientWith(t, o), hooks(r.URL))
	if b.reconcile(t, o) == 0 || len(target.ids()) != 0 || b.marked(t, o) != "" {
		t.Errorf("it was followed: %v", target.ids())
	}
}

// TestErrorsHideTheURL: the path of a webhook's URL is often all that keeps others from posting there.
func TestErrorsHideTheURL(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // only then does the server see that the client is gone
		<-req.Context().Done()
	}))
	defer hang.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, u := range map[string]string{"it hangs": hang.URL, "it is gone": gone.URL} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte("webhooks:\n- name: a\n  url: " + u + "/sesame?key=sesame\n  timeout: 100ms\n"))
			if err != nil {
				t.Fatal(err)
			}
			w := &c.Webhooks[0]
			err = send(t.Context(), newClient(w, nil), w, noticeOf(backup("a", v1alpha1.PhaseFailed, 0)), "kedge/v1", base)
			if err == nil || strings.Contains(err.Error(), "sesame") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestConflict: where somebody changed the object meanwhile the mark is refused, and the notice is not sent again by this server.
func TestConflict(t *testing.T) {
	r := newReceiver(t)
	o := backup("a", v1alpha1.PhaseFailed, 0)
	c := newClientWith(t, o)
	b := newBench(t, c, hooks(r.URL))
	stale := o.DeepCopy()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), stale); err != nil {
		t.Fatal(err)
	}
	changed := stale.DeepCopy()
	changed.Labels = map[string]string{"x": "y"}
	if err := c.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tell(t.Context(), "key", stale); err == nil {
		t.Error("a stale object was marked")
	}
	if _, err := b.tell(t.Context(), "key", changed); err != nil {
		t.Error(err)
	}
	if len(r.ids()) != 1 || b.marked(t, o) != "uid-a-Failed" {
		t.Errorf("sent %v, marked %q", r.ids(), b.marked(t, o))
	}
}

// TestGone: an object that was deleted is forgotten.
func TestGone(t *testing.T) {
	r := newReceiver(t)
	r.set(http.StatusInternalServerError, nil)
	o := backup("a", v1alpha1.PhaseFailed, 0)
	c := newClientWith(t, o)
	b := newBench(t, c, hooks(r.URL))
	b.reconcile(t, o)
	if err := c.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if again := b.reconcile(t, o); again != 0 || len(b.pending) != 0 {
		t.Errorf("it is tried again after %s, %d in memory", again, len(b.pending))
	}
}

// TestNoIdentity: a cluster that cannot be identified is tried again; nothing is sent without.
func TestNoIdentity(t *testing.T) {
	r := newReceiver(t)
	o := backup("a", v1alpha1.PhaseFailed, 0)
	b := newBench(t, newClientWith(t, o), hooks(r.URL))
	b.opts.OwnCluster = func(context.Context) (string, error) { return "", errors.New("no answer") }
	_, err := b.Reconciler(o).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
	if err == nil || len(r.ids()) != 0 {
		t.Errorf("got %v, sent %v", err, r.ids())
	}
}
