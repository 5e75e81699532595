//go:build unix

package restore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/outcome"
)

func (w *world) report(t testing.TB, o *v1alpha1.Restore) *restore.Report {
	t.Helper()
	report, err := journal.ReadReport(t.Context(), &journal.Store{Client: w.client, Lister: w.client, Owner: o})
	if err != nil || report == nil {
		t.Fatalf("the report of %s: %v, %v", o.Name, report, err)
	}
	return report
}

// TestRestore restores by an object on both versions, into a location that may be written and from one that may not.
func TestRestore(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, version, "whole")
			w.serve(t, w.cluster.Kedge(t), nil)
			w.restore(t, "back", nil)
			o := w.ended(t, "back")
			s := o.Status
			if s.Phase != v1alpha1.PhaseCompleted || s.Counts.Created != sizeOfShop || s.BackupUID != w.uid || s.Target == nil || s.Target.Name != "world" || s.Attempts != 1 || s.Progress != nil {
				t.Fatalf("status is %+v", s)
			}
			if c := ready(t, o); c.Status != metav1.ConditionTrue || c.Reason != "Completed" {
				t.Errorf("condition is %+v", c)
			}
			if got := w.state(t); len(got) != sizeOfShop-1 {
				t.Errorf("%d objects are in the shop", len(got))
			}
			if parts := w.parts(t, o); parts["report"] != 1 || parts["log"] != 1 || parts["journal"] != 0 {
				t.Errorf("of the restore are kept %v", parts)
			}
			if r := w.report(t, o); r.Counts != s.Counts {
				t.Errorf("the report counts %+v, the status %+v", r.Counts, s.Counts)
			}
			var log strings.Builder
			if err := journal.CopyLog(t.Context(), &journal.Store{Client: w.client, Lister: w.client, Owner: o}, &log); err != nil || !strings.Contains(log.String(), `"restore ends"`) {
				t.Errorf("the log is %q, %v", log.String(), err)
			}
			if kept := reportsIn(t, w.folder); len(kept) != 1 {
				t.Errorf("the location holds the reports %v", kept)
			}
			w.restore(t, "again", func(o *v1alpha1.Restore) { o.Spec.StorageLocation = "mirror" })
			o = w.ended(t, "again")
			if o.Status.Phase != v1alpha1.PhaseCompleted || o.Status.Counts.Created != 0 || o.Status.Counts.Unchanged != sizeOfShop {
				t.Errorf("the second restore is %+v: %+v", o.Status, w.report(t, o).Entries)
			}
			if kept := reportsIn(t, w.folder); len(kept) != 1 {
				t.Errorf("a read-only location was written: %v", kept)
			}
		})
	}
}

func reportsIn(t testing.TB, folder string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "restores", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestUnable: whoever waits for a backup is not given up for its length; whoever is refused is, an hour after it began.
func TestUnable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := &Reconciler{Now: func() time.Time { return now }}
	o := &v1alpha1.Restore{}
	notReady := outcome.Waiting(reasonNotReady, time.Minute, errors.New("it is not done yet"))
	for range 3 {
		r.unable(o, notReady)
		now = now.Add(unableFor)
	}
	away := errors.New("the store is away")
	r.unable(o, away)
	if o.Status.Phase != v1alpha1.PhaseQueued || o.Status.RefusedSince == nil {
		t.Fatalf("after three hours of waiting: %+v", o.Status)
	}
	now = now.Add(unableFor + time.Second)
	if r.unable(o, away); o.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(o.Status.Message, "the store is away") {
		t.Errorf("after an hour of refusals: %+v", o.Status)
	}
}

// TestServersEnd has restores over which servers have ended: five are the end of one, four have it wait, and one that failed by itself does not wait for
// that, whatever was said of it last.
func TestServersEnd(t *testing.T) {
	w := newWorld(t, "1.36.3", "ended")
	for name, s := range map[string]v1alpha1.RestoreStatus{
		"five":   {Phase: v1alpha1.PhaseInProgress, Attempts: 5},
		"four":   {Phase: v1alpha1.PhaseInProgress, Attempts: 4},
		"failed": {Phase: v1alpha1.PhaseQueued, Attempts: 6, Failures: 4, Stops: 1, Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionUnknown, Reason: "AccessDenied", LastTransitionTime: metav1.Now()}}},
	} {
		o := w.restore(t, name, nil)
		o.Status = s
		if err := w.client.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	w.serve(t, w.cluster.Kedge(t), func(r *Reconciler) { r.Patience = &attempts.Patience{} })
	o := w.ended(t, "five")
	if c := ready(t, o); o.Status.Phase != v1alpha1.PhaseFailed || c.Reason != attempts.ReasonTooOften || o.Status.Attempts != 5 || !strings.Contains(o.Status.Message, "OOMKilled") {
		t.Errorf("after five: %+v, %+v", o.Status, c)
	}
	if report := w.report(t, o); report.Phase != v1alpha1.PhaseFailed || report.Counts.Planned != sizeOfShop || report.Counts.Created != 0 || !strings.Contains(report.Message, "OOMKilled") {
		t.Errorf("the report of what was given up: %s %+v %s", report.Phase, report.Counts, report.Message)
	}
	if o := w.ended(t, "failed"); o.Status.Phase != v1alpha1.PhaseCompleted || o.Status.Attempts != 7 {
		t.Errorf("after failures: %+v", o.Status)
	}
	wait(t, "the restore waits", func(ctx context.Context) (bool, any) {
		var o v1alpha1.Restore
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: w.kedge, Name: "four"}, &o); err != nil {
			return false, err
		}
		c := meta.FindStatusCondition(o.Status.Conditions, "Ready")
		return c != nil && c.Reason == attempts.ReasonInterrupted && o.Status.Attempts == 4, o.Status
	})
}

// TestInVain has a restore whose last attempt fails before anything can be planned: its report names what each attempt met.
func TestInVain(t *testing.T) {
	w := newWorld(t, "1.36.3", "vain")
	o := w.restore(t, "vain", nil)
	o.Status = v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseQueued, Attempts: 4, Failures: 4}
	if err := w.client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	earlier := &journal.Log{}
	if _, err := earlier.Write([]byte(`{"msg":"attempt ends","attempt":1,"error":"the quota is used up"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := earlier.Keep(t.Context(), &journal.Store{Client: w.client, Lister: w.client, Owner: o, Writer: "earlier"}); err != nil {
		t.Fatal(err)
	}
	w.serve(t, w.cluster.Kedge(t), func(r *Reconciler) { r.Runner.Config = &rest.Config{Host: "https://127.0.0.1:1"} })
	o = w.ended(t, "vain")
	if o.Status.Phase != v1alpha1.PhaseFailed || o.Status.Failures != 5 || !strings.HasPrefix(o.Status.Message, "given up after 5 attempts that failed, the last: ") {
		t.Errorf("%+v", o.Status)
	}
	report := w.report(t, o)
	var remarks []string
	for _, r := range report.Remarks {
		remarks = append(remarks, r.Reason+" "+r.Message)
	}
	if len(remarks) != 3 || !strings.Contains(remarks[2], "5 attempts failed, and the log says of 2") || remarks[0] != "AttemptFailed attempt 1: the quota is used up" || !strings.HasPrefix(remarks[1], "AttemptFailed attempt 5: ") || !strings.Contains(remarks[1], "127.0.0.1:1") {
		t.Errorf("remarks: %q", remarks)
	}
	if report.Phase != v1alpha1.PhaseFailed || report.Message != o.Status.Message || report.Backup != o.Spec.BackupName {
		t.Errorf("%+v", report)
	}
}

// TestRefused has objects that cannot be carried out: each says why, and is final.
func TestRefused(t *testing.T) {
	w := newWorld(t, "1.36.3", "refused")
	w.serve(t, w.cluster.Kedge(t), func(r *Reconciler) { r.RequireServiceAccount = true })
	account := func(change func(*v1alpha1.RestoreSpec)) func(*v1alpha1.Restore) {
		return func(o *v1alpha1.Restore) {
			o.Spec.ServiceAccountName = "any"
			change(&o.Spec)
		}
	}
	w.create(t, &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: w.kedge, Name: "broken"}})
	var broken v1alpha1.Backup
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.kedge, Name: "broken"}, &broken); err != nil {
		t.Fatal(err)
	}
	broken.Status.Phase, broken.Status.Message = v1alpha1.PhaseFailed, "no disk"
	if err := w.client.Status().Update(t.Context(), &broken); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change         func(*v1alpha1.Restore)
		reason, detail string
	}{
		"no-backup":     {account(func(s *v1alpha1.RestoreSpec) { s.BackupName = "never" }), "BackupNotFound", "never"},
		"failed-backup": {account(func(s *v1alpha1.RestoreSpec) { s.BackupName = "broken" }), "BackupUnusable", "no disk"},
		"bad-selection": {account(func(s *v1alpha1.RestoreSpec) { s.Expression = "object." }), "InvalidSpec", "spec.expression"},
		"bad-transform": {account(func(s *v1alpha1.RestoreSpec) {
			s.Transforms = &v1alpha1.Transforms{Modifiers: []v1alpha1.ResourceModifier{{Expression: "object."}}}
		}), "InvalidSpec", "modifiers[0]"},
		"bad-status": {account(func(s *v1alpha1.RestoreSpec) { s.RestoreStatus = []string{"["} }), "InvalidSpec", "spec.restoreStatus[0]"},
		"nothing": {account(func(s *v1alpha1.RestoreSpec) {
			s.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "such"}}
		}), "NothingSelected", "nothing"},
		"unsigned":   {account(func(s *v1alpha1.RestoreSpec) { s.RequireSignature = true }), "SignatureRefused", "nightly"},
		"no-account": {func(*v1alpha1.Restore) {}, "ServiceAccountRequired", "spec.serviceAccountName"},
		"cancelled":  {account(func(s *v1alpha1.RestoreSpec) { s.Cancel = true }), "Cancelled", "before"},
	}
	for name, c := range cases {
		w.restore(t, name, c.change)
	}
	for name, c := range cases {
		o := w.ended(t, name)
		got := ready(t, o)
		if got.Reason != c.reason || got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, c.detail) || o.Status.Message == "" {
			t.Errorf("%s: %s %+v, want %s with %q", name, o.Status.Phase, got, c.reason, c.detail)
		}
	}
	if got := w.state(t); len(got) != 0 {
		t.Errorf("they wrote %v", got)
	}
}

// TestServiceAccount restores as an account that may create ConfigMaps in one namespace and nothing else: every other object is refused by name.
func TestServiceAccount(t *testing.T) {
	w := newWorld(t, "1.36.3", "account")
	w.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.shop}})
	w.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.kedge, Name: "tenant"}})
	w.create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.shop, Name: "tenant"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "get", "patch", "update"}},
	}})
	w.create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.shop, Name: "tenant"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tenant"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.kedge, Name: "tenant"}},
	})
	w.serve(t, w.cluster.Kedge(t), nil)
	w.restore(t, "as-tenant", func(o *v1alpha1.Restore) { o.Spec.ServiceAccountName = "tenant" })
	o := w.ended(t, "as-tenant")
	if o.Status.Phase != v1alpha1.PhasePartiallyFailed || o.Status.Counts.Created != 20 || o.Status.Counts.Failed < 20 {
		t.Fatalf("status is %+v: %+v", o.Status, w.report(t, o).Entries)
	}
	refused := map[string]bool{}
	for _, e := range w.report(t, o).Entries {
		if e.Outcome == restore.Failed {
			refused[e.Ref.Resource+"/"+e.Ref.Name] = true
			if e.Reason != restore.Forbidden || !strings.Contains(e.Message, "system:serviceaccount:"+w.kedge+":tenant") {
				t.Errorf("%s: %s: %s", e.Ref, e.Reason, e.Message)
			}
		}
	}
	for n := range 20 {
		if !refused[fmt.Sprintf("secrets/secret-%d", n)] {
			t.Errorf("secret-%d is not among the refused: %v", n, refused)
		}
	}
	if got := w.state(t); len(got) != 20 {
		t.Errorf("the shop has %d objects", len(got))
	}
}

// gate holds creates of objects in a namespace until it is opened, or their requests are given up.
type gate struct {
	next   http.RoundTripper
	path   string
	passes int // so many go through before it closes

	mu   sync.Mutex
	held int
	open chan struct{}
}

func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost && strings.Contains(req.URL.Path, g.path) {
		g.mu.Lock()
		g.passes--
		hold := g.passes < 0
		if hold {
			g.held++
		}
		g.mu.Unlock()
		if hold {
			select {
			case <-g.open:
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		}
	}
	return g.next.RoundTrip(req)
}

func (g *gate) holds() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// gated serves through a gate.
func (w *world) gated(t testing.TB, passes int) (*gate, func()) {
	t.Helper()
	g := &gate{path: "/namespaces/" + w.shop + "/", passes: passes, open: make(chan struct{})}
	cfg := w.cluster.Kedge(t)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		g.next = next
		return g
	})
	return g, w.serve(t, cfg, nil)
}

// TestCancel cancels restores at work, by spec.cancel and by the removal of the object.
func TestCancel(t *testing.T) {
	w := newWorld(t, "1.36.3", "cancel")
	g, _ := w.gated(t, 10)
	o := w.restore(t, "cancel", nil)
	wait(t, "a held create", func(context.Context) (bool, any) { return g.holds() > 0, g.holds() })
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`))
	if err := w.client.Patch(t.Context(), o, patch); err != nil {
		t.Fatal(err)
	}
	o = w.ended(t, "cancel")
	if o.Status.Phase != v1alpha1.PhaseCancelled || o.Status.Counts.Created == 0 || o.Status.Counts.Created == sizeOfShop || ready(t, o).Reason != "Cancelled" {
		t.Errorf("status is %+v", o.Status)
	}
	if r := w.report(t, o); r.Phase != v1alpha1.PhaseCancelled {
		t.Errorf("the report says %s", r.Phase)
	}
	before := len(w.state(t))
	o = w.restore(t, "deleted", nil)
	held := g.holds()
	wait(t, "a held create", func(context.Context) (bool, any) { return g.holds() > held, g.holds() })
	if err := w.client.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of its Secrets", func(context.Context) (bool, any) { p := w.parts(t, o); return len(p) == 0, p })
	close(g.open)
	if after := len(w.state(t)); after != before {
		t.Errorf("the shop had %d objects, and has %d", before, after)
	}
}

// TestHandover stops a server in the middle of a restore, as the loss of its lease does: the next one goes on, and the result is that of a
// restore that nobody disturbed.
func TestHandover(t *testing.T) {
	w := newWorld(t, "1.36.3", "handover")
	stop := w.serve(t, w.cluster.Kedge(t), nil)
	w.restore(t, "same", nil)
	w.ended(t, "same")
	want := w.state(t)
	stop()
	w.forget(t)
	g, stop := w.gated(t, 15)
	w.restore(t, "moved", nil)
	wait(t, "a held create", func(context.Context) (bool, any) { return g.holds() > 0, g.holds() })
	stop()
	var o v1alpha1.Restore
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.kedge, Name: "moved"}, &o); err != nil || o.Status.Phase != v1alpha1.PhaseQueued || o.Status.Stops != 1 {
		t.Fatalf("a server that was stopped left %+v, %v", o.Status, err)
	}
	w.serve(t, w.cluster.Kedge(t), nil)
	done := w.ended(t, "moved")
	if done.Status.Phase != v1alpha1.PhaseCompleted || done.Status.Counts.Created != sizeOfShop || done.Status.Attempts != 2 || done.Status.Stops != 1 {
		t.Errorf("status is %+v: %+v", done.Status, w.report(t, done).Entries)
	}
	got := w.state(t)
	for name := range got {
		got[name] = strings.ReplaceAll(got[name], "kedge/moved", "kedge/same")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-undisturbed +handed over\n%s", diff)
	}
	if kept := reportsIn(t, w.folder); len(kept) != 2 {
		t.Errorf("the location holds the reports %v of 2 restores", kept)
	}
}
