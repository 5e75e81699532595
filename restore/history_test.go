package restore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/test/testbed"
)

const rollout = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "registry.invalid/c:TAG"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NS}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, image: "registry.invalid/c:TAG"}]}
`

// heads lists the objects of one resource in a namespace.
func heads(t testing.TB, c *kube.Client, path string) map[string]rawjson.Head {
	t.Helper()
	out := map[string]rawjson.Head{}
	_, err := c.List(t.Context(), kube.ListRequest{Path: path}, func(raw []byte) error {
		h, err := rawjson.ReadHead(raw)
		out[h.Name] = h
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits for what controllers do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		if err := pause(t.Context(), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s: not within a minute", what)
}

// TestRolloutHistory: controllers make the current ReplicaSet and ControllerRevision again; the older ones are restored, so that
// a rollout can still be undone.
func TestRolloutHistory(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	const ns = "history"
	sets, revisions := "/apis/apps/v1/namespaces/"+ns+"/replicasets", "/apis/apps/v1/namespaces/"+ns+"/controllerrevisions"
	for n := 1; n <= 2; n++ {
		if err := cluster.ApplyYAML(t.Context(), strings.ReplaceAll(in(ns, rollout), "TAG", fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the rollout", func() bool { return len(heads(t, c, sets)) == n && len(heads(t, c, revisions)) == n })
	}
	old := ""
	eventually(t, "the old ReplicaSet's end", func() bool {
		for name := range heads(t, c, sets) {
			if getObject(t, c, sets+"/"+name)["spec"].(map[string]any)["replicas"] == int64(0) {
				old = name
			}
		}
		return old != ""
	})
	wantSets, wantRevisions := heads(t, c, sets), heads(t, c, revisions)
	source := copyCluster(t, c)
	if _, err := c.Do(t.Context(), kube.Request{Method: "DELETE", Path: "/api/v1/namespaces/" + ns}); err != nil {
		t.Fatal(err)
	}
	req := request("history")
	req.Spec.WaitTimeout.Duration = time.Minute
	req.Spec.IncludedNamespaces = []string{ns}
	r := restoreAll(t, engineFor(c, source), req)
	if r.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
	}
	eventually(t, "the same ReplicaSets", func() bool { return sameNames(wantSets, heads(t, c, sets)) })
	eventually(t, "the same ControllerRevisions", func() bool { return sameNames(wantRevisions, heads(t, c, revisions)) })
	deployment := metaOf(getObject(t, c, "/apis/apps/v1/namespaces/"+ns+"/deployments/web"))["uid"]
	for name, h := range heads(t, c, sets) {
		if len(h.Owners) != 1 || h.Owners[0].UID != deployment {
			t.Errorf("%s is owned by %+v", name, h.Owners)
		}
	}
}

func sameNames(a, b map[string]rawjson.Head) bool {
	for name := range a {
		if _, ok := b[name]; !ok {
			return false
		}
	}
	return len(a) == len(b)
}

func TestRevisionOf(t *testing.T) {
	for raw, want := range map[string]int64{
		`{"kind":"ControllerRevision","metadata":{"name":"a"},"data":{"revision":9},"revision":7}`:                7,
		`{"kind":"ReplicaSet","metadata":{"annotations":{"deployment.kubernetes.io/revision":"12"}},"spec":{}}`:   12,
		`{"kind":"ReplicaSet","metadata":{"annotations":{"deployment.kubernetes.io/revision":"many"}},"spec":{}}`: 0,
		`{"kind":"ReplicaSet","metadata":{"annotations":{}},"spec":{}}`:                                           0,
	} {
		if got, err := revisionOf([]byte(raw)); got != want || err != nil {
			t.Errorf("revisionOf(%s) = %d, %v", raw, got, err)
		}
	}
}
