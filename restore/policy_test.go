package restore

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

const changedObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: same, namespace: NS}
data: {k: v}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: NS, labels: {from: backup}}
data: {k: archived, added: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden, namespace: NS}
data: {k: YXJjaGl2ZWQ=}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: archived}}
  template:
    metadata: {labels: {app: archived}}
    spec: {containers: [{name: c, image: "registry.invalid/c:1"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fresh, namespace: NS}
data: {k: v}
`

const liveObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {made: before}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: same, namespace: NS}
data: {k: v}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: NS, labels: {kept: "yes"}}
data: {k: live, own: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden, namespace: NS}
data: {k: bGl2ZQ==}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: live}}
  template:
    metadata: {labels: {app: live}}
    spec: {containers: [{name: c, image: "registry.invalid/c:0"}]}
`

func TestPolicies(t *testing.T) {
	for _, version := range versions {
		cluster := testbed.SharedCluster(t, version)
		c := clientFor(t, cluster.Kedge(t))
		for n, tc := range []struct {
			policy v1alpha1.ExistingResourcePolicy
			mode   v1alpha1.UpdateMode
			counts v1alpha1.RestoreCounts
			phase  v1alpha1.Phase
			data   map[string]any // of ConfigMap other
			// what becomes of the Deployment, whose selector cannot change
			deployment Outcome
			reason     Reason
		}{
			{v1alpha1.PolicySkip, "", v1alpha1.RestoreCounts{Created: 1, Unchanged: 2, Skipped: 3}, v1alpha1.PhaseCompleted,
				map[string]any{"k": "live", "own": "1"}, Skipped, ExistsDiffers},
			{v1alpha1.PolicyUpdate, v1alpha1.UpdateMerge, v1alpha1.RestoreCounts{Created: 1, Updated: 2, Unchanged: 2, Failed: 1}, v1alpha1.PhasePartiallyFailed,
				map[string]any{"k": "archived", "own": "1", "added": "1"}, Failed, RefusedInvalid},
			{v1alpha1.PolicyUpdate, v1alpha1.UpdateExact, v1alpha1.RestoreCounts{Created: 1, Updated: 2, Unchanged: 2, Failed: 1}, v1alpha1.PhasePartiallyFailed,
				map[string]any{"k": "archived", "added": "1"}, Failed, RefusedInvalid},
			{v1alpha1.PolicyRecreate, "", v1alpha1.RestoreCounts{Created: 4, Unchanged: 2}, v1alpha1.PhaseCompleted,
				map[string]any{"k": "archived", "added": "1"}, Created, ""},
			{v1alpha1.PolicyFail, "", v1alpha1.RestoreCounts{Created: 1, Failed: 5}, v1alpha1.PhasePartiallyFailed,
				map[string]any{"k": "live", "own": "1"}, Failed, ExistsFail},
		} {
			t.Run(fmt.Sprintf("%s %s%s", version, tc.policy, tc.mode), func(t *testing.T) {
				ns := fmt.Sprintf("policy-%d", n)
				if err := cluster.ApplyYAML(t.Context(), in(ns, liveObjects)); err != nil {
					t.Fatal(err)
				}
				req := request(ns)
				req.Spec.ExistingResourcePolicy, req.Spec.UpdateMode = tc.policy, tc.mode
				e := engineFor(c, fromYAML(t, in(ns, changedObjects)))
				preview := previewOf(t, e, req)
				r := restoreAll(t, e, req)
				tc.counts.Planned, tc.counts.Warnings = 6, r.Counts.Warnings
				if r.Counts != tc.counts || r.Phase != tc.phase {
					t.Errorf("got %s %+v, want %s %+v: %+v", r.Phase, r.Counts, tc.phase, tc.counts, r.Entries)
				}
				if got := getObject(t, c, "/api/v1/namespaces/"+ns+"/configmaps/other")["data"]; !reflect.DeepEqual(got, tc.data) {
					t.Errorf("other has %v, want %v", got, tc.data)
				}
				entries := entriesOf(r, "deployments.apps", ns, "web")
				if tc.deployment == Created && len(entries) != 0 || tc.deployment != Created && (len(entries) == 0 || entries[0].Outcome != tc.deployment || entries[0].Reason != tc.reason) {
					t.Errorf("deployment: %+v", entries)
				}
				checkPreview(t, preview, r)
			})
		}
	}
}

func previewOf(t *testing.T, e *Engine, req Request) map[string]Change {
	t.Helper()
	p, err := e.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Change{}
	sum, err := e.Preview(t.Context(), p, func(c Change) error {
		out[c.Ref.String()] = c
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, count := range sum.Counts {
		n += count
	}
	if n != p.Len() || n != len(out) {
		t.Errorf("%d changes counted, %d given, %d objects planned", n, len(out), p.Len())
	}
	return out
}

// checkPreview holds what a preview said against what a run did, and looks for secrets.
func checkPreview(t *testing.T, preview map[string]Change, r *Report) {
	t.Helper()
	expect := map[ChangeAction]Outcome{
		ActionCreate: Created, ActionCreateUnchecked: Created, ActionUnchanged: Unchanged, ActionUpdate: Updated, ActionRecreate: Created,
		ActionSkip: Skipped, ActionRefused: Failed,
	}
	outcome := map[string]Outcome{}
	for _, e := range r.Entries {
		if !e.Warning {
			outcome[e.Ref.String()] = e.Outcome
		}
	}
	for ref, c := range preview {
		got, ok := outcome[ref]
		if !ok {
			got = Created
		}
		if got != expect[c.Action] {
			t.Errorf("%s: the preview said %s (%s %s), the run made it %s", ref, c.Action, c.Reason, c.Message, got)
		}
		if text := toJSON(c); strings.Contains(text, "bGl2ZQ") || strings.Contains(text, "YXJjaGl2ZWQ") {
			t.Errorf("the preview shows a secret: %s", text)
		}
	}
	if text := toJSON(r); strings.Contains(text, "bGl2ZQ") || strings.Contains(text, "YXJjaGl2ZWQ") {
		t.Errorf("the report shows a secret: %s", text)
	}
}

// TestQuota restores more than a quota allows: what has no room waits, and is named.
func TestQuota(t *testing.T) {
	const quota = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: few, namespace: NS}
spec: {hard: {count/secrets: "2"}}
`
	const manifests = `
apiVersion: v1
kind: Secret
metadata: {name: a, namespace: NS}
---
apiVersion: v1
kind: Secret
metadata: {name: b, namespace: NS}
---
apiVersion: v1
kind: Secret
metadata: {name: c, namespace: NS}
`
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	if err := cluster.ApplyYAML(t.Context(), in("quota", quota)); err != nil {
		t.Fatal(err)
	}
	for getObject(t, c, "/api/v1/namespaces/quota/resourcequotas/few")["status"] == nil ||
		len(getObject(t, c, "/api/v1/namespaces/quota/resourcequotas/few")["status"].(map[string]any)) == 0 {
		if err := pause(t.Context(), 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	req := request("quota")
	req.Spec.WaitTimeout.Duration = 6 * time.Second
	r := restoreAll(t, engineFor(c, fromYAML(t, in("quota", manifests))), req)
	if r.Counts.Created != 2 || r.Counts.Failed != 1 {
		t.Fatalf("%+v %+v", r.Counts, r.Entries)
	}
	for _, e := range r.Entries {
		if e.Outcome == Failed && (e.Reason != RefusedByQuota || e.By != "ResourceQuota few") {
			t.Errorf("%+v", e)
		}
	}
}

// TestTerminatingNamespace waits for a namespace that is being deleted, and says what it waits for.
func TestTerminatingNamespace(t *testing.T) {
	const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: NS}
data: {k: v}
`
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	hold := func(ns string) {
		t.Helper()
		if err := cluster.ApplyYAML(t.Context(), in(ns, manifests)); err != nil {
			t.Fatal(err)
		}
		patch := func(finalizers string) error {
			_, err := c.Do(t.Context(), kube.Request{Method: "PATCH", Path: "/api/v1/namespaces/" + ns + "/configmaps/a",
				ContentType: "application/merge-patch+json", Body: []byte(`{"metadata":{"finalizers":` + finalizers + `}}`), Idempotent: true})
			return err
		}
		if err := patch(`["example.com/hold"]`); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Do(t.Context(), kube.Request{Method: "DELETE", Path: "/api/v1/namespaces/" + ns}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("for ever", func(t *testing.T) {
		hold("held")
		req := request("held")
		req.Spec.WaitTimeout.Duration = 2 * time.Second
		r := restoreAll(t, engineFor(c, fromYAML(t, in("held", manifests))), req)
		if r.Phase != v1alpha1.PhaseFailed || r.Counts.Failed != 2 {
			t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
		}
		for _, e := range r.Entries {
			if e.Reason != NamespaceTerminating && e.Reason != StillDeleting {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("for a while", func(t *testing.T) {
		hold("freed")
		req := request("freed")
		req.Spec.WaitTimeout.Duration = 60 * time.Second
		e := engineFor(c, fromYAML(t, in("freed", manifests)))
		freed := make(chan error, 1)
		e.Events.Remark = func(en Entry) {
			if en.Reason != NamespaceTerminating {
				return
			}
			select {
			case freed <- func() error {
				_, err := c.Do(t.Context(), kube.Request{Method: "PATCH", Path: "/api/v1/namespaces/freed/configmaps/a",
					ContentType: "application/merge-patch+json", Body: []byte(`{"metadata":{"finalizers":null}}`), Idempotent: true})
				return err
			}():
			default:
			}
		}
		r := restoreAll(t, e, req)
		if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 2 {
			t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
		}
		if err := <-freed; err != nil {
			t.Error(err)
		}
	})
}

// TestCancel stops a run in the middle; the report says what was done, and a resumed run does the rest.
func TestCancel(t *testing.T) {
	var manifests strings.Builder
	manifests.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: cancel}\n")
	const objects = 300
	for i := range objects {
		fmt.Fprintf(&manifests, "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d, namespace: cancel}\ndata: {k: v}\n", i)
	}
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	source := fromYAML(t, manifests.String())
	path := t.TempDir() + "/journal"
	run := func(stopAt int) *Report {
		t.Helper()
		j, err := OpenFileJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := engineFor(c, source)
		e.Journal = j
		e.Events.Progress = func(p Progress) {
			if p.Done >= stopAt {
				cancel()
			}
		}
		p, err := e.Plan(ctx, request("cancel"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Run(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := run(100)
	not := 0
	for _, e := range r.Entries {
		if e.Reason == NotReached {
			not++
		}
	}
	if r.Phase != v1alpha1.PhaseCancelled || r.Counts.Created+not != objects+1 || not == 0 {
		t.Fatalf("%s: %+v, %d not reached", r.Phase, r.Counts, not)
	}
	r = run(1 << 30)
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != objects+1 || !r.Resumed {
		t.Fatalf("%s: %+v %+v", r.Phase, r.Counts, r.Entries)
	}
}
