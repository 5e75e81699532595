//go:build unix

package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/test/testbed"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// TestDefinitionsAreEstablished creates the definition of each kind on the oldest and the newest API server. What such a server refuses (a
// validation rule that costs too much, above all) no other test of this repository finds as soon.
func TestDefinitionsAreEstablished(t *testing.T) {
	for _, version := range []string{"1.24.17", "1.36.3"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			cluster := testbed.NewCluster(t, version, testbed.NoControllers())
			client, err := dynamic.NewForConfig(cluster.Master())
			if err != nil {
				t.Fatal(err)
			}
			all := load(t)
			for _, d := range all {
				if _, err := client.Resource(definitions).Create(t.Context(), d, metav1.CreateOptions{FieldValidation: "Strict"}); err != nil {
					t.Errorf("create %s: %v", d.GetName(), err)
				}
			}
			if t.Failed() {
				return
			}
			for _, d := range all {
				if err := established(t.Context(), client, d.GetName()); err != nil {
					t.Errorf("%s: %v", d.GetName(), err)
				}
			}
		})
	}
}

// TestBrokenDefinitionIsRefused says that the test above can fail: a rule that walks a list of unknown length within a list costs too much, and
// one that names no field does not compile.
func TestBrokenDefinitionIsRefused(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.36.3", testbed.NoControllers())
	client, err := dynamic.NewForConfig(cluster.Master())
	if err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]string{
		"self.metadata.name == self.nothing": "undefined field",
		"self.spec.includedNamespaces.all(a, self.spec.includedNamespaces.all(b, self.spec.includedNamespaces.all(c, a + b + c != a)))": "cost",
	} {
		for _, d := range load(t) {
			if d.GetKind() != "CustomResourceDefinition" || !strings.HasPrefix(d.GetName(), "backups.") {
				continue
			}
			breakRule(t, d, rule)
			_, err := client.Resource(definitions).Create(t.Context(), d, metav1.CreateOptions{})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("with the rule %q: %v; want an error with %q", rule, err, want)
			}
		}
	}
}

// breakRule gives the schema of a definition another rule.
func breakRule(t *testing.T, d *unstructured.Unstructured, rule string) {
	t.Helper()
	versions, _, err := unstructured.NestedSlice(d.Object, "spec", "versions")
	if err != nil || len(versions) != 1 {
		t.Fatalf("%d versions: %v", len(versions), err)
	}
	of := versions[0].(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	of["x-kubernetes-validations"] = []any{map[string]any{"rule": rule, "message": "broken"}}
	if err := unstructured.SetNestedSlice(d.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
}

// load reads the definitions of the chart.
func load(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	files, err := deploy.CRDs.ReadDir("crds")
	if err != nil {
		t.Fatal(err)
	}
	var all []*unstructured.Unstructured
	for _, file := range files {
		text, err := deploy.CRDs.ReadFile("crds/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := testbed.Parse(bytes.TrimSpace(text))
		if err != nil {
			t.Fatalf("%s: %v", file.Name(), err)
		}
		all = append(all, parsed...)
	}
	if len(all) < 6 {
		t.Fatalf("the chart has %d definitions only", len(all))
	}
	return all
}

// established waits for the condition; conditions that say why it does not come end the wait.
func established(ctx context.Context, client dynamic.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		live, err := client.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions") // null to begin with, which is no list
		for _, c := range conditions {
			switch c := c.(map[string]any); {
			case c["type"] == "Established" && c["status"] == "True":
				return nil
			case c["type"] == "NonStructuralSchema" && c["status"] == "True", c["type"] == "NamesAccepted" && c["status"] == "False":
				return fmt.Errorf("%v: %v", c["reason"], c["message"])
			}
		}
		select {
		case <-ctx.Done():
			text, _ := json.Marshal(conditions)
			return fmt.Errorf("it is not established: %s", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
