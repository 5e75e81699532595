package convert_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/restore/convert"
	"kedge.dev/kedge/test/testbed"
)

// TestServer reads objects from a real API server of 1.24 in every two versions that it serves of a kind: what Kedge makes
// of the one is what the server reads as the other.
func TestServer(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.24.17")
	client, err := dynamic.NewForConfig(cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	served := servedVersions(t, discovery.NewDiscoveryClientForConfigOrDie(cluster.Master()))
	createPairs(t, client, served)
	compared := map[string]int{}
	for gk, resources := range served {
		for _, from := range resources {
			for _, to := range resources {
				if from.Version == to.Version || !succeeds(from.GroupVersion().WithKind(gk.Kind), to.GroupVersion()) {
					continue
				}
				name := gk.Kind + " " + from.Version + " to " + to.Version
				t.Run(name, func(t *testing.T) { compared[gk.Kind] += compareReads(t, client, from, to) })
			}
		}
	}
	for _, kind := range []string{"CronJob", "PodDisruptionBudget", "HorizontalPodAutoscaler", "EndpointSlice", "FlowSchema", "PriorityLevelConfiguration", "RuntimeClass", "CSIStorageCapacity"} {
		if compared[kind] == 0 {
			t.Errorf("no %s was compared", kind)
		}
	}
	t.Logf("compared: %v", compared)
}

// servedVersions are the resources of every kind that the server has in several versions.
func servedVersions(t *testing.T, d discovery.DiscoveryInterface) map[schema.GroupKind][]schema.GroupVersionResource {
	t.Helper()
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	out := map[schema.GroupKind][]schema.GroupVersionResource{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !strings.Contains(r.Name, "/") {
				gk := schema.GroupKind{Group: gv.Group, Kind: r.Kind}
				out[gk] = append(out[gk], gv.WithResource(r.Name))
			}
		}
	}
	return out
}

func succeeds(from schema.GroupVersionKind, to schema.GroupVersion) bool {
	for _, s := range convert.Successors(from) {
		if s.GroupVersion() == to {
			return true
		}
	}
	return false
}

// createPairs creates the objects of testdata whose versions the server has, each under its file's name.
func createPairs(t *testing.T, client dynamic.Interface, served map[schema.GroupKind][]schema.GroupVersionResource) {
	t.Helper()
	for _, file := range pairFiles(t) {
		_, sections := pairOf(t, file)
		obj := &unstructured.Unstructured{Object: parsedYAML(t, sections["in.yaml"])}
		obj.SetName(strings.TrimSuffix(filepath.Base(file), ".txtar"))
		gvk := obj.GroupVersionKind()
		for _, r := range served[gvk.GroupKind()] {
			if r.Version != gvk.Version || len(served[gvk.GroupKind()]) < 2 {
				continue
			}
			api := dynamic.ResourceInterface(client.Resource(r))
			if namespaced[gvk.Kind] {
				obj.SetNamespace("default")
				api = client.Resource(r).Namespace("default")
			}
			_, err := api.Create(t.Context(), obj, metav1.CreateOptions{})
			if _, ok := errors.AsType[*apierrors.StatusError](err); ok {
				t.Logf("%s: the server refuses it: %v", obj.GetName(), err)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

var namespaced = map[string]bool{"CronJob": true, "PodDisruptionBudget": true, "HorizontalPodAutoscaler": true, "EndpointSlice": true, "CSIStorageCapacity": true, "Event": true}

func compareReads(t *testing.T, client dynamic.Interface, from, to schema.GroupVersionResource) int {
	t.Helper()
	// One list is older than the other; what changed in between is left to the next pair.
	olds, err := client.Resource(from).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	news, err := client.Resource(to).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]any{}
	for _, o := range news.Items {
		want[string(o.GetUID())+o.GetResourceVersion()] = o.Object
	}
	compared := 0
	for _, o := range olds.Items {
		now, ok := want[string(o.GetUID())+o.GetResourceVersion()]
		if !ok {
			continue
		}
		if _, err := convert.Convert(o.Object, to.GroupVersion()); err != nil {
			t.Errorf("%s: %v", o.GetName(), err)
			continue
		}
		compared++
		if why := readOtherwise[o.GetName()]; why != "" {
			continue
		}
		if diff := cmp.Diff(withoutBookkeeping(now), withoutBookkeeping(o.Object)); diff != "" {
			t.Errorf("%s (-read as %s +converted from %s):\n%s", o.GetName(), to.Version, from.Version, diff)
		}
	}
	return compared
}

// readOtherwise are objects that Kedge converts better than this server on purpose.
var readOtherwise = map[string]string{
	"autoscaler-v2beta1-better": "Kubernetes 1.24 loses the container's name and keeps a value that autoscaling/v2 refuses",
}

// withoutBookkeeping leaves out who owns which field, which each version words otherwise, and orders JSON in annotations.
func withoutBookkeeping(obj map[string]any) map[string]any {
	unstructured.RemoveNestedField(obj, "metadata", "managedFields")
	// Some versions write out the zeros of an empty status, some leave them out.
	status, _ := obj["status"].(map[string]any)
	for key, v := range status {
		if v == nil || v == int64(0) {
			delete(status, key)
		}
	}
	if len(status) == 0 {
		delete(obj, "status")
	}
	annotations, _, _ := unstructured.NestedMap(obj, "metadata", "annotations")
	for k, v := range annotations {
		var inner any
		if s, ok := v.(string); ok && strings.HasPrefix(k, "autoscaling.alpha.kubernetes.io/") && utiljson.Unmarshal([]byte(s), &inner) == nil {
			annotations[k] = inner
		}
	}
	if len(annotations) > 0 {
		meta, _ := obj["metadata"].(map[string]any)
		meta["annotations"] = annotations
	}
	return obj
}
