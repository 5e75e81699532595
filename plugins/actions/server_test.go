package actions_test

import (
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/test/testbed"
)

// manifests are objects that a server writes into when they are made.
const manifests = `
{apiVersion: v1, kind: Service, metadata: {name: allocated}, spec: {type: NodePort, selector: {app: a}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: chosen}, spec: {type: NodePort, selector: {app: a}, ports: [{name: http, port: 80, nodePort: 31999}, {name: alt, port: 81}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: local}, spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 443}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: a}, ports: [{port: 5432}]}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: generated}, spec: {template: {metadata: {labels: {mine: "1"}}, spec: {restartPolicy: Never, containers: [{name: main, image: busybox}]}}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: manual}, spec: {manualSelector: true, selector: {matchLabels: {mine: "2"}}, template: {metadata: {labels: {mine: "2"}}, spec: {restartPolicy: Never, containers: [{name: main, image: busybox}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: alone}, spec: {priorityClassName: system-cluster-critical, containers: [{name: main, image: nginx}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}, imagePullSecrets: [{name: registry}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: robot-key, annotations: {kubernetes.io/service-account.name: robot}}, type: kubernetes.io/service-account-token}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: legacy}, subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 80}]}]}
---
{apiVersion: v1, kind: Namespace, metadata: {name: actions-made}}
`

// TestServers makes objects on a server of 1.24, reads them back, and creates what actions leave of them on one of 1.36,
// with strict checking of fields.
func TestServers(t *testing.T) {
	const namespace = "kube-system" // system priority classes are allowed here on both
	clusters := testbed.NewClusters(t, "1.24.17", "1.36.3")
	var clients []dynamic.Interface
	for _, c := range clusters {
		client, err := dynamic.NewForConfig(c.Master())
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	chain, err := plugins.NewChain(actions.All(actions.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(manifests, "\n---\n") {
		made := object(t, text)
		ref := refOf(made)
		t.Run(tree.Text(made, "kind")+"/"+ref.Name, func(t *testing.T) {
			read := createdOn(t, clients[0], ref, namespace, made)
			raw, err := json.Marshal(read)
			if err != nil {
				t.Fatal(err)
			}
			managed, err := json.Marshal(tree.Map(read, "metadata")["managedFields"])
			if err != nil {
				t.Fatal(err)
			}
			wanted := chain.Wants(ref, raw)
			actions.DropServerFields(read)
			before := tree.Copy(read)
			item := &plugins.Item{Ref: ref, Object: read, ManagedFields: managed}
			if d, err := chain.Apply(t.Context(), item); err != nil || d.Skip {
				t.Fatalf("%+v, %v", d, err)
			}
			if after, _ := json.Marshal(item.Object); !wanted && string(after) != mustJSON(t, before) {
				t.Error("Wants says that there is nothing to do, but there is")
			}
			delete(item.Object, "status")
			got := createdOn(t, clients[1], ref, namespace, item.Object)
			checkMade(t, ref, item.Object, got)
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func createdOn(t *testing.T, client dynamic.Interface, ref plugins.Ref, namespace string, obj map[string]any) map[string]any {
	t.Helper()
	api := client.Resource(schema.GroupVersionResource{Group: ref.Group, Version: ref.Version, Resource: ref.Resource})
	u := &unstructured.Unstructured{Object: obj}
	opts := metav1.CreateOptions{FieldValidation: "Strict"}
	if ref.Resource == "namespaces" {
		out, err := api.Create(t.Context(), u, opts)
		if err != nil {
			t.Fatal(err)
		}
		return out.Object
	}
	u.SetNamespace(namespace)
	out, err := api.Namespace(namespace).Create(t.Context(), u, opts)
	if err != nil {
		t.Fatal(err)
	}
	return out.Object
}

// checkMade looks at what the actions sent and the target made of it.
func checkMade(t *testing.T, ref plugins.Ref, sent, made map[string]any) {
	t.Helper()
	var ports []any
	tree.Each(tree.Map(sent, "spec"), "ports", func(p map[string]any) { ports = append(ports, p["nodePort"]) })
	switch ref.Resource + "/" + ref.Name {
	case "services/allocated", "services/local":
		for _, p := range ports {
			if p != nil {
				t.Errorf("sent an allocated node port: %v", ports)
			}
		}
		if tree.Map(sent, "spec")["healthCheckNodePort"] != nil || tree.Text(tree.Map(sent, "spec"), "clusterIP") != "" {
			t.Errorf("sent allocated fields: %v", sent["spec"])
		}
	case "services/chosen":
		if ports[0] != int64(31999) || ports[1] != nil {
			t.Errorf("sent node ports %v, want the chosen one only", ports)
		}
	case "services/headless":
		if tree.Text(tree.Map(made, "spec"), "clusterIP") != "None" {
			t.Error("it is headless no more")
		}
	case "jobs/generated":
		uid := tree.Text(tree.Map(made, "metadata"), "uid")
		if got := tree.Text(tree.In(made, "spec", "selector", "matchLabels"), "batch.kubernetes.io/controller-uid"); got != uid {
			t.Errorf("the selector says %q, the Job is %q", got, uid)
		}
	}
}
