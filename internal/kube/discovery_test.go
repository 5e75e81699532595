package kube

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

var legacyAnswers = map[string]string{
	"/version": `{"gitVersion":"v1.24.17"}`,
	"/api":     `{"kind":"APIVersions","versions":["v1"]}`,
	"/apis": `{"kind":"APIGroupList","groups":[
		{"name":"batch","versions":[{"version":"v1beta1"},{"version":"v1"}],"preferredVersion":{"version":"v1"}},
		{"name":"policy","versions":[{"version":"v1"},{"version":"v1beta1"}],"preferredVersion":{"version":"v1"}},
		{"name":"metrics.k8s.io","versions":[{"version":"v1beta1"}],"preferredVersion":{"version":"v1beta1"}}]}`,
	"/api/v1":              `{"resources":[{"name":"pods","kind":"Pod","namespaced":true,"shortNames":["po"],"verbs":["list","get","create"]},{"name":"pods/status","kind":"Pod","namespaced":true},{"name":"pods/exec","kind":"PodExecOptions"}]}`,
	"/apis/batch/v1":       `{"resources":[{"name":"jobs","kind":"Job","singularName":"","namespaced":true,"verbs":["list"]},{"name":"cronjobs","kind":"CronJob","namespaced":true,"shortNames":["cj"],"verbs":["list"]}]}`,
	"/apis/batch/v1beta1":  `{"resources":[{"name":"cronjobs","kind":"CronJob","namespaced":true,"shortNames":["cj"],"verbs":["list"]}]}`,
	"/apis/policy/v1":      `{"resources":[{"name":"poddisruptionbudgets","kind":"PodDisruptionBudget","namespaced":true,"verbs":["list"]}]}`,
	"/apis/policy/v1beta1": `{"resources":[{"name":"poddisruptionbudgets","kind":"PodDisruptionBudget","namespaced":true,"verbs":["list"]},{"name":"podsecuritypolicies","kind":"PodSecurityPolicy","verbs":["list"]}]}`,
}

func TestDiscoverLegacy(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if body, ok := legacyAnswers[r.URL.Path]; ok {
			_, _ = w.Write([]byte(body))
			return
		}
		fail(w, 403, "Forbidden", "no")
	})
	d, err := c.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range d.Resources {
		s := r.GroupResource() + "/" + r.Version
		if r.Preferred {
			s += "*"
		}
		got = append(got, s)
	}
	want := "pods/v1* cronjobs.batch/v1* cronjobs.batch/v1beta1 jobs.batch/v1* poddisruptionbudgets.policy/v1* poddisruptionbudgets.policy/v1beta1 podsecuritypolicies.policy/v1beta1*"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if Code(d.Failed["metrics.k8s.io/v1beta1"]) != 403 || len(d.Failed) != 1 || d.ServerVersion != "v1.24.17" {
		t.Errorf("failed %v, version %s", d.Failed, d.ServerVersion)
	}
	pods, _ := d.Preferred("", "pods")
	if !slices.Equal(pods.Subresources, []string{"exec", "status"}) || pods.Singular != "pod" {
		t.Errorf("%+v", pods)
	}
	for pattern, want := range map[string]int{"po": 1, "Pod": 1, "pods": 1, "pods.v1": 1, "pods.": 1, "cj": 1, "cronjobs.v1beta1.batch": 1, "cronjobs.v2.batch": 0, "*.batch": 2, "*": 5, "*.v1beta1.*": 3, "poddisruptionbudget": 1, "p*": 3, "pods.apps": 0} {
		if got := d.Lookup(pattern); len(got) != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	if r, ok := d.FindKind("batch", "v1beta1", "CronJob"); !ok || r.Version != "v1beta1" {
		t.Errorf("%+v", r)
	}
}

func TestDiscoverAggregated(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/version":
			_, _ = w.Write([]byte(`{"gitVersion":"v1.36.3"}`))
		case "/api", "/apis":
			w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
			body := `{"items":[{"metadata":{"name":"apps"},"versions":[
				{"version":"v1","freshness":"Current","resources":[{"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","shortNames":["deploy"],"verbs":["list"],"subresources":[{"subresource":"status"},{"subresource":"scale"}]}]}]},
				{"metadata":{"name":"x.example.com"},"versions":[{"version":"v1","freshness":"Stale","resources":[]}]}]}`
			if r.URL.Path == "/api" {
				body = `{"items":[]}`
			}
			_, _ = w.Write([]byte(body))
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	})
	d, err := c.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Resources) != 1 || d.Failed["x.example.com/v1"] == nil {
		t.Fatalf("%+v", d)
	}
	r := d.Resources[0]
	if r.Kind != "Deployment" || !r.Namespaced || !r.Preferred || strings.Join(r.Subresources, " ") != "scale status" {
		t.Errorf("%+v", r)
	}
}

func TestPath(t *testing.T) {
	pods := Resource{Version: "v1", Resource: "pods", Namespaced: true}
	nodes := Resource{Version: "v1", Resource: "nodes"}
	roles := Resource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles", Namespaced: true}
	for got, want := range map[string]string{
		pods.Path("", ""):              "/api/v1/pods",
		pods.Path("a", "b"):            "/api/v1/namespaces/a/pods/b",
		nodes.Path("a", "n"):           "/api/v1/nodes/n",
		roles.Path("a", "system::x/y"): "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/system::x%2Fy",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
