//go:build unix

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"kedge.dev/kedge/test/testbed"
)

// dump reads everything of a cluster without controllers, by the name of each object, without what the API server
// chooses anew for each object. (What round trips compare is test/roundtrip's matter; here two targets of the same restore are.)
func dump(t *testing.T, c *testbed.Cluster) map[string]map[string]any {
	t.Helper()
	cfg := rest.CopyConfig(c.Master())
	cfg.QPS = -1
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := disco.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]any{}
	names := map[string]string{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if own := r.Name == "events" || r.Name == "leases" || r.Name == "componentstatuses" || r.Name == "ipaddresses" || r.Name == "apiservices"; own ||
				!strings.Contains(strings.Join(r.Verbs, ","), "list") {
				continue
			}
			items, err := client.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range items.Items {
				own := o.GetNamespace() == testbed.AccessNamespace || strings.HasPrefix(o.GetName(), testbed.AccessNamespace)
				if front := o.GetNamespace() == "default" && o.GetName() == "kubernetes"; own || front { // the API server's own address
					continue
				}
				key := fmt.Sprintf("%s.%s %s/%s", r.Name, gv.Group, o.GetNamespace(), o.GetName())
				names[string(o.GetUID())] = key
				all[key] = o.Object
			}
		}
	}
	for _, o := range all {
		strip(o, names)
	}
	return all
}

// strip removes what the API server chooses, and puts names in the place of owners' uids.
func strip(o map[string]any, names map[string]string) {
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation"} {
		unstructured.RemoveNestedField(o, "metadata", field)
	}
	applied := []any{}
	entries, _, _ := unstructured.NestedSlice(o, "metadata", "managedFields")
	for _, e := range entries {
		if entry, ok := e.(map[string]any); ok && entry["operation"] == "Apply" {
			delete(entry, "time")
			applied = append(applied, entry)
		}
	}
	unstructured.RemoveNestedField(o, "metadata", "managedFields")
	if len(applied) > 0 {
		_ = unstructured.SetNestedSlice(o, applied, "metadata", "managedFields")
	}
	owners, found, _ := unstructured.NestedSlice(o, "metadata", "ownerReferences")
	for _, e := range owners {
		if ref, ok := e.(map[string]any); ok {
			ref["uid"] = names[fmt.Sprint(ref["uid"])]
		}
	}
	if found {
		_ = unstructured.SetNestedSlice(o, owners, "metadata", "ownerReferences")
	}
	for _, path := range [][]string{{"status"}, {"spec", "clusterIP"}, {"spec", "clusterIPs"}} {
		if ip, _, _ := unstructured.NestedString(o, "spec", "clusterIP"); path[0] == "status" || ip != "None" {
			unstructured.RemoveNestedField(o, path...)
		}
	}
	if o["kind"] == "Service" {
		stripNodePorts(o)
	}
}

func stripNodePorts(o map[string]any) {
	if kind, _, _ := unstructured.NestedString(o, "spec", "type"); kind != "LoadBalancer" {
		return
	}
	ports, _, _ := unstructured.NestedSlice(o, "spec", "ports")
	for _, p := range ports {
		if port, ok := p.(map[string]any); ok {
			delete(port, "nodePort")
		}
	}
	_ = unstructured.SetNestedSlice(o, ports, "spec", "ports")
}
