package convert_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/restore/convert"
	"kedge.dev/kedge/test/testbed"
)

// TestAccepted sends the converted objects of the corpus to a real API server of 1.36, as a dry run with strict checking
// of fields: it takes every one that it would take if it had been written for it.
func TestAccepted(t *testing.T) {
	dir := corpusDir(t)
	cluster := testbed.SharedCluster(t, "1.36.3")
	client, err := dynamic.NewForConfig(cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	served := servedVersions(t, discovery.NewDiscoveryClientForConfigOrDie(cluster.Master()))
	files, err := filepath.Glob(filepath.Join(dir, "old-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]int{}
	for _, file := range files {
		for _, obj := range manifests(t, file) {
			name := filepath.Base(filepath.Dir(file)) + "/" + filepath.Base(file)
			if kind := sendConverted(t, client, served, name, obj); kind != "" {
				taken[kind]++
			}
		}
	}
	t.Logf("taken: %v", taken)
	for _, kind := range []string{"CustomResourceDefinition", "Ingress", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"} {
		if taken[kind] == 0 {
			t.Errorf("no %s was taken", kind)
		}
	}
}

// sendConverted gives the kind of an object that was converted and taken.
func sendConverted(t *testing.T, client dynamic.Interface, served map[schema.GroupKind][]schema.GroupVersionResource, name string, obj map[string]any) string {
	t.Helper()
	u := &unstructured.Unstructured{Object: obj}
	for _, successor := range convert.Successors(u.GroupVersionKind()) {
		for _, r := range served[successor.GroupKind()] {
			if r.Version != successor.Version || r.Version == u.GroupVersionKind().Version && r.Group == u.GroupVersionKind().Group {
				continue
			}
			if _, err := convert.Convert(obj, successor.GroupVersion()); err != nil {
				t.Logf("%s: %v", name, err)
				return ""
			}
			clean(u)
			api := dynamic.ResourceInterface(client.Resource(r))
			if isNamespaced[successor.Kind] {
				u.SetNamespace("default")
				api = client.Resource(r).Namespace("default")
			}
			_, err := api.Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{"All"}, FieldValidation: "Strict"})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				refusal(t, name, u, err)
				return ""
			}
			return successor.Kind
		}
	}
	return ""
}

// isNamespaced are the kinds of old objects that live in a namespace.
var isNamespaced = map[string]bool{
	"Deployment": true, "DaemonSet": true, "StatefulSet": true, "ReplicaSet": true, "Ingress": true, "NetworkPolicy": true, "CronJob": true,
	"PodDisruptionBudget": true, "HorizontalPodAutoscaler": true, "EndpointSlice": true, "Role": true, "RoleBinding": true, "Lease": true,
	"CSIStorageCapacity": true, "ControllerRevision": true,
}

// clean leaves out what a restore leaves out too.
func clean(u *unstructured.Unstructured) {
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	delete(u.Object, "status")
}

// wrongInCorpus are refusals of what is wrong in the manifests themselves, whatever their version.
var wrongInCorpus = []string{
	"__INGRESS_HOST__", "<your domain>", // placeholders
	`unknown field "spec.limited.assuredConcurrencyShares"`, // a v1beta3 object with v1beta2's field
	"spec.attacher: Required value",
	"`selector` does not match template `labels`", // apps/v1beta2 asked for a selector already
}

func refusal(t *testing.T, name string, u *unstructured.Unstructured, err error) {
	t.Helper()
	if _, ok := errors.AsType[*apierrors.StatusError](err); !ok {
		t.Fatal(err)
	}
	for _, known := range wrongInCorpus {
		if strings.Contains(err.Error(), known) {
			t.Logf("%s: %s %s is refused, as it would be by its own version: %v", name, u.GetKind(), u.GetName(), err)
			return
		}
	}
	t.Errorf("%s: %s %s is refused: %v", name, u.GetKind(), u.GetName(), err)
}
