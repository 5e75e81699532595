package restore

import (
	"slices"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

const gates = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: Service
metadata: {name: hook, namespace: NS}
spec: {selector: {app: hook}, ports: [{port: 443}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NS}
webhooks:
- name: configmaps.NS.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}}
  clientConfig: {service: {namespace: NS, name: hook, path: /}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.NS.example.com}
spec: {group: NS.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 10, service: {namespace: NS, name: hook}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: NS}
data: {k: v}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: NS}
data: {k: v}
`

// TestGates restores a webhook that would refuse everything, because nothing answers for it: it comes last, with a warning.
func TestGates(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	start := time.Now()
	r := restoreAll(t, engineFor(c, fromYAML(t, in("gates", gates))), request("gates"))
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 6 {
		t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
	}
	for _, resource := range []string{"validatingwebhookconfigurations.admissionregistration.k8s.io", "apiservices.apiregistration.k8s.io"} {
		if !slices.ContainsFunc(r.Entries, func(e Entry) bool {
			return e.Ref.GroupResource() == resource && e.Reason == BackendNotReady && e.Warning
		}) {
			t.Errorf("%s: no warning in %+v", resource, r.Entries)
		}
	}
	if time.Since(start) > 15*time.Second {
		t.Errorf("waited %s for a backend though no node can run it", time.Since(start))
	}
	// Now it is there, and refuses what a second restore brings.
	t.Run("refuses", func(t *testing.T) {
		more := fromYAML(t, in("gates", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late, namespace: NS}\ndata: {k: v}"))
		req := request("late")
		preview := previewOf(t, engineFor(c, more), req)
		for _, change := range preview {
			if change.Action != ActionRefused || change.Reason != WebhookNotReady || change.By != "webhook configmaps.gates.example.com" {
				t.Errorf("preview: %+v", change)
			}
		}
		req.Spec.WaitTimeout.Duration = time.Second
		r := restoreAll(t, engineFor(c, more), req)
		if r.Phase != v1alpha1.PhaseFailed || r.Entries[0].Reason != WebhookNotReady || r.Entries[0].By != "webhook configmaps.gates.example.com" {
			t.Errorf("%s %+v", r.Phase, r.Entries)
		}
	})
}

// TestPreviewOfFreshCluster cannot ask the server about objects in namespaces and of kinds that do not exist yet.
func TestPreviewOfFreshCluster(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	e := engineFor(c, fromYAML(t, in("fresh", basics)))
	got := previewOf(t, e, request("fresh"))
	for ref, want := range map[string]struct {
		action ChangeAction
		reason Reason
	}{
		"namespaces fresh": {ActionCreate, ""},
		"customresourcedefinitions.apiextensions.k8s.io carts.fresh.example.com": {ActionCreate, ""},
		"configmaps fresh/plain":          {ActionCreateUnchecked, NamespaceNotYet},
		"carts.fresh.example.com fresh/c": {ActionCreateUnchecked, APINotYet},
		"configmaps fresh/orphan":         {ActionCreateUnchecked, NamespaceNotYet},
		"deployments.apps fresh/web":      {ActionCreateUnchecked, NamespaceNotYet},
	} {
		if c := got[ref]; c.Action != want.action || c.Reason != want.reason {
			t.Errorf("%s: %+v, want %+v", ref, c, want)
		}
	}
	if _, err := c.Do(t.Context(), kube.Request{Path: "/api/v1/namespaces/fresh"}); kube.Code(err) != 404 {
		t.Errorf("the preview changed the target: %v", err)
	}
}

// TestSelection restores one namespace of several with what it needs of the cluster.
func TestSelection(t *testing.T) {
	const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: NS-a}
---
apiVersion: v1
kind: Namespace
metadata: {name: NS-b}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa, namespace: NS-a}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-used}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-unused}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NS-binding}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NS-used}
subjects: [{kind: ServiceAccount, name: sa, namespace: NS-a}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: NS-class}
provisioner: example.com/none
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS-a}
spec: {storageClassName: NS-class, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: NS-b}
`
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	plan := func(change func(*v1alpha1.RestoreSpec)) []string {
		t.Helper()
		req := request("selection")
		change(&req.Spec)
		p, err := engineFor(c, fromYAML(t, in("sel", manifests))).Plan(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		if err := p.Objects(func(o Planned) error { out = append(out, o.Ref.String()); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return out
	}
	got := plan(func(s *v1alpha1.RestoreSpec) { s.IncludedNamespaces = []string{"sel-a"} })
	want := []string{
		"clusterrolebindings.rbac.authorization.k8s.io sel-binding", "clusterroles.rbac.authorization.k8s.io sel-used",
		"namespaces sel-a", "persistentvolumeclaims sel-a/data", "serviceaccounts sel-a/sa", "storageclasses.storage.k8s.io sel-class",
	}
	if !slices.Equal(got, want) {
		t.Errorf("one namespace:\ngot  %q\nwant %q", got, want)
	}
	got = plan(func(s *v1alpha1.RestoreSpec) {
		s.Expression = "object.kind == 'ConfigMap'"
	})
	if !slices.Contains(got, "configmaps sel-b/other") || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "serviceaccounts") }) {
		t.Errorf("expression: %q", got)
	}
}

// TestReadsOnce: a restore of a namespace reads each chunk that it needs once, though it looks at it several times.
func TestReadsOnce(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	m := fromYAML(t, in("once", basics))
	m.reads = make([]int, len(m.chunks))
	req := request("once")
	req.Spec.IncludedNamespaces = []string{"once"}
	r := restoreAll(t, engineFor(c, m), req)
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created == 0 {
		t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
	}
	if slices.Max(m.reads) > 1 {
		t.Errorf("chunks were read %v times", m.reads)
	}
}
