package restore

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

var versions = []string{"1.24.17", "1.36.3"}

// getObject reads one object of a cluster.
func getObject(t testing.TB, c *kube.Client, path string) map[string]any {
	t.Helper()
	resp, err := c.Do(t.Context(), kube.Request{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(resp.Body, &obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func metaOf(obj map[string]any) map[string]any {
	m, _ := obj["metadata"].(map[string]any)
	return m
}

const basics = `
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {team: a}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain, namespace: NS, annotations: {a: "b"}}
data: {k: v}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: applied
  namespace: NS
  managedFields: [{manager: flux, operation: Apply, apiVersion: v1, time: "2026-01-02T03:04:05Z", fieldsType: FieldsV1, fieldsV1: {"f:data": {"f:k": {}}}}]
data: {k: v}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "registry.invalid/c:1"}]}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  namespace: NS
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: Deployment/NS/web, controller: true, blockOwnerDeletion: true}]
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: orphan
  namespace: NS
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: gone, uid: never}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: carts.NS.example.com}
spec:
  group: NS.example.com
  scope: Namespaced
  names: {plural: carts, singular: cart, kind: Cart, listKind: CartList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: NS.example.com/v1
kind: Cart
metadata: {name: c, namespace: NS}
spec: {size: 3}
status: {phase: Full}
---
apiVersion: v1
kind: Secret
metadata:
  name: of-cart
  namespace: NS
  ownerReferences: [{apiVersion: NS.example.com/v1, kind: Cart, name: c, uid: Cart/NS/c}]
data: {k: dg==}
`

func in(ns, manifests string) string {
	return string(bytes.ReplaceAll([]byte(manifests), []byte("NS"), []byte(ns)))
}

func TestRestoreBasics(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.SharedCluster(t, version)
			c := clientFor(t, cluster.Kedge(t))
			req := request("basics")
			req.Spec.RestoreStatus = []string{"carts.*"}
			r := restoreAll(t, engineFor(c, fromYAML(t, in("basics", basics))), req)
			if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 9 {
				t.Fatalf("%s: %+v %v", r.Phase, r.Counts, r.Entries)
			}
			deployment := metaOf(getObject(t, c, "/apis/apps/v1/namespaces/basics/deployments/web"))
			owned := metaOf(getObject(t, c, "/api/v1/namespaces/basics/configmaps/owned"))
			refs, _ := owned["ownerReferences"].([]any)
			if len(refs) != 1 || refs[0].(map[string]any)["uid"] != deployment["uid"] {
				t.Errorf("owner not relinked: %v, deployment is %v", refs, deployment["uid"])
			}
			if orphan := metaOf(getObject(t, c, "/api/v1/namespaces/basics/configmaps/orphan")); orphan["ownerReferences"] != nil {
				t.Errorf("the missing owner was kept: %v", orphan["ownerReferences"])
			}
			if e := entriesOf(r, "configmaps", "basics", "orphan"); len(e) != 1 || e[0].Reason != OwnerDropped || !e[0].Warning {
				t.Errorf("the dropped owner is not reported: %+v", e)
			}
			cart := getObject(t, c, "/apis/basics.example.com/v1/namespaces/basics/carts/c")
			if !reflect.DeepEqual(cart["status"], map[string]any{"phase": "Full"}) {
				t.Errorf("status is %v", cart["status"])
			}
			secret := metaOf(getObject(t, c, "/api/v1/namespaces/basics/secrets/of-cart"))
			if refs, _ := secret["ownerReferences"].([]any); len(refs) != 1 || refs[0].(map[string]any)["uid"] != metaOf(cart)["uid"] {
				t.Errorf("the custom owner is not relinked: %v", refs)
			}
			managers := metaOf(getObject(t, c, "/api/v1/namespaces/basics/configmaps/plain"))["managedFields"].([]any)
			if len(managers) != 1 || managers[0].(map[string]any)["manager"] != "kedge/basics" {
				t.Errorf("managers are %v", managers)
			}
			again := restoreAll(t, engineFor(c, fromYAML(t, in("basics", basics))), request("again"))
			if again.Phase != v1alpha1.PhaseCompleted || again.Counts.Created != 0 || again.Counts.Unchanged != 9 {
				t.Errorf("a second restore: %s: %+v %+v", again.Phase, again.Counts, again.Entries)
			}
		})
	}
}

// TestManagedFields puts back what a server-side apply owner owns, so that its next apply meets no conflict.
func TestManagedFields(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.SharedCluster(t, version)
			c := clientFor(t, cluster.Kedge(t))
			apply := func(ns, manager, body string, force bool) error {
				q := map[string][]string{"fieldManager": {manager}}
				if force {
					q["force"] = []string{"true"}
				}
				_, err := c.Do(t.Context(), kube.Request{Method: "PATCH", Path: "/apis/apps/v1/namespaces/" + ns + "/deployments/web",
					Query: q, Body: []byte(body), ContentType: "application/apply-patch+yaml"})
				return err
			}
			manifest := func(ns, image string) string {
				return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"` + ns + `"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"w"}},
				"template":{"metadata":{"labels":{"app":"w"}},"spec":{"containers":[{"name":"c","image":"` + image + `","env":[{"name":"A","value":"1"}]}]}}}}`
			}
			if err := cluster.ApplyYAML(t.Context(), `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"managed"}}`); err != nil {
				t.Fatal(err)
			}
			if err := apply("managed", "flux", manifest("managed", "registry.invalid/c:1"), false); err != nil {
				t.Fatal(err)
			}
			source := copyCluster(t, c)
			before := metaOf(getObject(t, c, "/apis/apps/v1/namespaces/managed/deployments/web"))["managedFields"]
			if _, err := c.Do(t.Context(), kube.Request{Method: "DELETE", Path: "/apis/apps/v1/namespaces/managed/deployments/web"}); err != nil {
				t.Fatal(err)
			}
			req := request("managed")
			req.Spec.IncludedNamespaces = []string{"managed"}
			req.Spec.IncludedResources = []string{"deployments"}
			r := restoreAll(t, engineFor(c, source), req)
			if r.Counts.Created != 1 || len(entriesOf(r, "deployments.apps", "managed", "web")) != 0 {
				t.Fatalf("%+v %+v", r.Counts, r.Entries)
			}
			after := metaOf(getObject(t, c, "/apis/apps/v1/namespaces/managed/deployments/web"))["managedFields"]
			if !sameManager(t, before, after, "flux") {
				t.Errorf("before %v\nafter %v", toJSON(before), toJSON(after))
			}
			if err := apply("managed", "flux", manifest("managed", "registry.invalid/c:2"), false); err != nil {
				t.Errorf("the owner's next apply: %v", err)
			}
		})
	}
}

func sameManager(t *testing.T, before, after any, name string) bool {
	t.Helper()
	pick := func(list any) any {
		for _, e := range list.([]any) {
			if e.(map[string]any)["manager"] == name {
				return e
			}
		}
		return nil
	}
	return pick(before) != nil && reflect.DeepEqual(pick(before), pick(after))
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
