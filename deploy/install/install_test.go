package install

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/deploy/render"
)

// TestEveryKindIsRemoved checks that an uninstall finds whatever values can make, but for what it keeps.
func TestEveryKindIsRemoved(t *testing.T) {
	objects, err := render.Objects(deploy.Chart, render.Options{
		Release: "kedge", Namespace: "kedge", APIVersions: render.VersionsOf(36),
		Values: map[string]any{
			"image":           map[string]any{"repository": "kedge"},
			"namespace":       map[string]any{"create": true},
			"metrics":         map[string]any{"serviceMonitor": map[string]any{"enabled": true}},
			"prometheusRule":  map[string]any{"enabled": true},
			"admissionPolicy": map[string]any{"enabled": true},
			"dashboard":       map[string]any{"enabled": true},
			"locations":       []any{map[string]any{"name": "a", "spec": map[string]any{}}},
			"schedules":       []any{map[string]any{"name": "a", "spec": map[string]any{}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"namespace": true, "customresourcedefinition": true}
	for _, resource := range slices.Concat(owned, settings) {
		name, _, _ := strings.Cut(resource, ".")
		name = strings.TrimSuffix(strings.Replace(name, "policies", "policys", 1), "s")
		known[strings.Replace(name, "classe", "class", 1)] = true
	}
	for _, o := range objects {
		if !known[strings.ToLower(o.GetKind())] {
			t.Errorf("nobody would remove %s %s", o.GetKind(), o.GetName())
		}
		if o.GetLabels()[managedByLabel] != render.Service || o.GetLabels()[instanceLabel] != "kedge" {
			t.Errorf("%s %s has not the labels by which it is found: %v", o.GetKind(), o.GetName(), o.GetLabels())
		}
		if o.GetNamespace() != "" && o.GetNamespace() != "kedge" {
			t.Errorf("%s %s is in namespace %s", o.GetKind(), o.GetName(), o.GetNamespace())
		}
	}
}

func TestWarningText(t *testing.T) {
	for header, want := range map[string]string{
		`299 - "policy/v1beta1 is deprecated"`: "policy/v1beta1 is deprecated",
		`299 - "a \"b\" c" "a date"`:           `a "b" c`,
		"nonsense":                             "nonsense",
		`299 - "open`:                          `299 - "open`,
	} {
		if got := warningText(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func TestRolledOut(t *testing.T) {
	object := func(generation int64, status map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"generation": generation}, "spec": map[string]any{"replicas": int64(2)}, "status": status,
		}}
	}
	status := func(observed, all, updated, available int64) map[string]any {
		return map[string]any{"observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available}
	}
	for _, c := range []struct {
		name   string
		object *unstructured.Unstructured
		want   bool
	}{
		{"done", object(3, status(3, 2, 2, 2)), true},
		{"not seen yet", object(3, status(2, 2, 2, 2)), false},
		{"old pods left", object(3, status(3, 3, 2, 2)), false},
		{"half updated", object(3, status(3, 2, 1, 2)), false},
		{"not available", object(3, status(3, 2, 2, 1)), false},
		{"new", object(1, nil), false},
	} {
		if got, state := rolledOut(c.object); got != c.want {
			t.Errorf("%s: %v (%s)", c.name, got, state)
		}
	}
}

func TestPodComplaint(t *testing.T) {
	pod := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
		"conditions": []any{map[string]any{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nodes"}},
	}}}
	if got := podComplaint(pod); got != "Unschedulable: no nodes" {
		t.Errorf("it says %q", got)
	}
	pod.Object["status"].(map[string]any)["containerStatuses"] = []any{map[string]any{
		"state": map[string]any{"waiting": map[string]any{"reason": "ImagePullBackOff", "message": "not found"}},
	}}
	if got := podComplaint(pod); got != "ImagePullBackOff: not found" {
		t.Errorf("it says %q", got)
	}
}
