package restore

import (
	"reflect"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/testbed"
)

const ownObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {old: "yes"}}
---
apiVersion: v1
kind: Secret
metadata: {name: credentials, namespace: NS}
data: {k: b2xk}
---
apiVersion: v1
kind: Secret
metadata: {name: missing, namespace: NS}
data: {k: b2xk}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kedge, namespace: NS}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kedge-server, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: old}}
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: "registry.invalid/old:1"}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: owns.kedge.dev, labels: {old: "yes"}}
spec:
  group: kedge.dev
  scope: Namespaced
  names: {plural: owns, singular: own, kind: Own, listKind: OwnList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop, namespace: NS-shop}
data: {k: old}
`

const ownLive = `
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {new: "yes"}}
---
apiVersion: v1
kind: Secret
metadata: {name: credentials, namespace: NS}
data: {k: bmV3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: owns.kedge.dev, labels: {new: "yes"}}
spec:
  group: kedge.dev
  scope: Namespaced
  names: {plural: owns, singular: own, kind: Own, listKind: OwnList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: NS-shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop, namespace: NS-shop}
data: {k: new}
`

// TestOwnNamespace restores over a cluster in which Kedge runs, with the policy that changes most: what Kedge runs on stays as it is, nothing of
// the old Kedge starts beside it, and what it lacks comes back.
func TestOwnNamespace(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	if err := cluster.ApplyYAML(t.Context(), in("own", ownLive)); err != nil {
		t.Fatal(err)
	}
	req := request("own")
	req.Spec.ExistingResourcePolicy, req.Spec.UpdateMode = v1alpha1.PolicyUpdate, v1alpha1.UpdateExact
	e := engineFor(c, fromYAML(t, in("own", ownObjects)))
	e.OwnNamespace = "own"
	r := restoreAll(t, e, req)
	if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Updated != 1 || r.Counts.Created != 1 {
		t.Errorf("%s %+v: %+v", r.Phase, r.Counts, r.Entries)
	}
	for _, want := range []struct{ resource, name string }{{"deployments.apps", "kedge-server"}, {"serviceaccounts", "kedge"}} {
		if got := entriesOf(r, want.resource, "own", want.name); len(got) != 1 || got[0].Outcome != Skipped || got[0].Reason != KedgeOwn {
			t.Errorf("%s %s: %+v", want.resource, want.name, got)
		}
	}
	if got := entriesOf(r, "secrets", "own", "credentials"); len(got) != 1 || got[0].Reason != ExistsDiffers || got[0].Outcome != Skipped {
		t.Errorf("credentials: %+v", got)
	}
	for path, want := range map[string]any{
		"/api/v1/namespaces/own/secrets/credentials":                             "bmV3",
		"/api/v1/namespaces/own/secrets/missing":                                 "b2xk",
		"/api/v1/namespaces/own-shop/configmaps/shop":                            "old",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/owns.kedge.dev": nil,
		"/api/v1/namespaces/own":                                                 nil,
	} {
		obj := getObject(t, c, path)
		if data, ok := obj["data"].(map[string]any); ok && !reflect.DeepEqual(data["k"], want) {
			t.Errorf("%s: %v, want %v", path, data, want)
		}
		if labels, _ := metaOf(obj)["labels"].(map[string]any); want == nil && (labels["old"] != nil || labels["new"] == nil) {
			t.Errorf("%s: its labels were changed: %v", path, labels)
		}
	}
	other := engineFor(c, fromYAML(t, in("own", ownObjects)))
	p, err := other.Plan(t.Context(), request("not-own"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Writes() != p.Len() {
		t.Errorf("where no Kedge runs, %d of %d objects are left out", p.Len()-p.Writes(), p.Len())
	}
}
