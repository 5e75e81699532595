package restore

import (
	"net/http"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

// accountFor is a client of an account that may do what the rules say, and no more.
func accountFor(t *testing.T, cluster *testbed.Cluster, name string, rules ...rbacv1.PolicyRule) *kube.Client {
	t.Helper()
	cfg, err := cluster.ServiceAccountConfigWithRules(t.Context(), name, rules)
	if err != nil {
		t.Fatal(err)
	}
	return clientFor(t, cfg)
}

// TestUnknownBackend restores a webhook as an account that may not read endpoints: the webhook comes with a warning.
func TestUnknownBackend(t *testing.T) {
	const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NS}
webhooks:
- name: configmaps.NS.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}}
  clientConfig: {service: {namespace: NS, name: hook, path: /}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
`
	cluster := testbed.SharedCluster(t, "1.36.3")
	e := engineFor(accountFor(t, cluster, "no-endpoints", rbacv1.PolicyRule{
		APIGroups: []string{"", "admissionregistration.k8s.io"}, Resources: []string{"namespaces", "validatingwebhookconfigurations"}, Verbs: []string{"create", "get"},
	}), fromYAML(t, in("no-endpoints", manifests)))
	e.Look = clientFor(t, cluster.Kedge(t))
	r := restoreAll(t, e, request("no-endpoints"))
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 2 {
		t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
	}
	said := entriesOf(r, "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "no-endpoints")
	if len(said) != 1 || said[0].Reason != BackendNotReady || !said[0].Warning || !strings.Contains(said[0].Message, "may not look for") {
		t.Errorf("%+v", said)
	}
}

const tents = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tents.NS.example.com}
spec:
  group: NS.example.com
  scope: Namespaced
  names: {plural: tents, singular: tent, kind: Tent, listKind: TentList}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: NS.example.com/v1
kind: Tent
metadata: {name: t, namespace: NS}
spec: {poles: 3}
`

// TestUnknownDefinition restores a definition and its object as an account that may create them and read neither.
func TestUnknownDefinition(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	account := accountFor(t, cluster, "no-definitions",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"create", "get"}},
		rbacv1.PolicyRule{APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"tents"}, Verbs: []string{"create"}})
	tent := func(ns, version string) map[string]any {
		return getObject(t, c, "/apis/"+ns+".example.com/"+version+"/namespaces/"+ns+"/tents/t")
	}
	t.Run("new", func(t *testing.T) {
		e := engineFor(account, fromYAML(t, in("tents-new", tents)))
		e.Look = c
		r := restoreAll(t, e, request("tents-new"))
		if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 3 || r.Counts.Warnings != 0 {
			t.Errorf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
		}
		tent("tents-new", "v1")
	})
	t.Run("other version", func(t *testing.T) {
		live := strings.Split(strings.ReplaceAll(in("tents-other", tents), "name: v1", "name: v2"), "\n---\n")
		if err := cluster.ApplyYAML(t.Context(), live[0], live[1]); err != nil {
			t.Fatal(err)
		}
		source := fromYAML(t, in("tents-other", tents))
		e := engineFor(account, source)
		e.Look = c
		p, err := e.Plan(t.Context(), request("tents-other"))
		if err != nil {
			t.Fatal(err)
		}
		x, err := e.newRun(p)
		if err != nil {
			t.Fatal(err)
		}
		i := p.find(source.chunks[1].rows[0].Ref)
		x.notEstablished(t.Context(), i)
		said := x.entries[i]
		if len(said) != 1 || said[0].Reason != NotEstablished || !strings.Contains(said[0].Message, "forbidden") {
			t.Errorf("%+v", said)
		}
		if target := x.target(p.items[p.find(source.chunks[2].rows[0].Ref)].res); target.state != targetOther || target.Version != "v2" {
			t.Errorf("the target of tents is %+v", target)
		}
	})
	t.Run("no discovery", func(t *testing.T) {
		cfg := answering(cluster.Kedge(t), func(req *http.Request, _ string) *http.Response {
			if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/apis/tents-hidden.example.com") {
				return status(http.StatusForbidden, "Forbidden", `forbidden: User "u" cannot get path "/apis/tents-hidden.example.com"`)
			}
			return nil
		})
		e := engineFor(clientFor(t, cfg), fromYAML(t, in("tents-hidden", tents)))
		e.Look = c
		req := request("tents-hidden")
		req.Spec.WaitTimeout.Duration = time.Minute
		r := restoreAll(t, e, req)
		if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 3 {
			t.Errorf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
		}
		said := entriesOf(r, "customresourcedefinitions.apiextensions.k8s.io", "", "tents.tents-hidden.example.com")
		if len(said) != 1 || said[0].Reason != NotEstablished || !said[0].Warning {
			t.Errorf("%+v", said)
		}
		tent("tents-hidden", "v1")
	})
}
