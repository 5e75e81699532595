package backup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

// TestDeadAggregatedAPI has an APIService whose backend does not exist: named as an error with its remedy, and everything else is read.
func TestDeadAggregatedAPI(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			c := testbed.NewCluster(t, version, testbed.NoControllers())
			client := newClient(t, c)
			post(t, client, "/apis/apiregistration.k8s.io/v1/apiservices", `{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.dead.example.com"},
				"spec":{"group":"dead.example.com","version":"v1","groupPriorityMinimum":1000,"versionPriority":10,"insecureSkipTLSVerify":true,"service":{"name":"dead","namespace":"default"}}}`)
			waitFor(t, "the API group", func() bool {
				d, err := client.Discover(t.Context())
				return err == nil && d.Failed["dead.example.com/v1"] != nil
			})
			s, r := readInto(t, client, v1alpha1.BackupSpec{})
			message := remarkOf(r.report().Errors, "*.dead.example.com", ReasonUnavailable)
			if !strings.Contains(message, "delete APIService v1.dead.example.com") || len(r.report().Errors) != 1 || phase(r.report()) != v1alpha1.PhasePartiallyFailed {
				t.Errorf("%+v", r.report())
			}
			if s.items()["apiservices.apiregistration.k8s.io/v1 v1.dead.example.com"] == nil {
				t.Error("the APIService itself is missing")
			}
			_, r = readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{ExcludedResources: []string{"*.dead.example.com"}}})
			if phase(r.report()) != v1alpha1.PhaseCompleted {
				t.Errorf("%+v", r.report())
			}
			// A name that nobody else has may be one of the group's: whether it is archived is not known.
			_, r = readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"configmaps", "widgets"}}})
			message = remarkOf(r.report().Errors, "*.dead.example.com", ReasonUnavailable)
			if !strings.Contains(message, `spec.includedResources[1]: "widgets" may be one of its resources`) || remarkOf(r.report().Warnings, "widgets", ReasonNoMatch) != "" {
				t.Errorf("%+v", r.report())
			}
			_, err := (&Engine{Kube: client}).Preview(t.Context(), Request{Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"widgets"}, IncludeClusterResources: new(bool)}}})
			if !errors.Is(err, ErrNothingRead) || !strings.Contains(err.Error(), "what is in dead.example.com/v1 is not known") {
				t.Errorf("error %v", err)
			}
		})
	}
}

const gadgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.%s.example.com}
spec:
  group: %[1]s.example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  %s
  versions:
  - {name: v2, served: true, storage: %v, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {b: {type: string}}}}}}}
  - {name: v1, served: true, storage: %v, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {a: {type: string}, b: {type: string}}}}}}}
`

// TestStorageVersion: with conversion None, v2 would drop field a without a word; the storage version v1 keeps it. AlsoVersions adds v2.
func TestStorageVersion(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		apply(t, c, fmt.Sprintf(gadgets, "stored", "conversion: {strategy: None}", false, true))
		client := newClient(t, c)
		post(t, client, "/apis/stored.example.com/v1/namespaces/default/gadgets", `{"apiVersion":"stored.example.com/v1","kind":"Gadget","metadata":{"name":"x"},"spec":{"a":"1","b":"2"}}`)
		s, r := readInto(t, client, v1alpha1.BackupSpec{AlsoVersions: []string{"gadgets.v2.stored.example.com", "nothing.v1.example.com"}})
		items := s.items()
		if got := string(items["gadgets.stored.example.com/v1 default/x"]); !strings.Contains(got, `"a":"1"`) || !strings.Contains(got, `"apiVersion":"stored.example.com/v1"`) {
			t.Errorf("v1: %s", got)
		}
		if got := string(items["gadgets.stored.example.com/v2 default/x"]); strings.Contains(got, `"a":"1"`) || !strings.Contains(got, `"apiVersion":"stored.example.com/v2"`) {
			t.Errorf("v2: %s", got)
		}
		if remarkOf(r.report().Warnings, "nothing.v1.example.com", ReasonNoMatch) == "" {
			t.Errorf("%+v", r.report())
		}
		narrow, err := c.ServiceAccountConfigWithRules(t.Context(), "no-definitions", []rbacv1.PolicyRule{{APIGroups: []string{"", "stored.example.com"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}})
		if err != nil {
			t.Fatal(err)
		}
		blind, err := kube.New(narrow, kube.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, unknown := readInto(t, blind, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedResources: []string{"gadgets"}, IncludeClusterResources: new(bool)}})
		if remarkOf(unknown.report().Warnings, "gadgets.stored.example.com", ReasonVersionUnknown) == "" || unknown.anchor.path == "" {
			t.Errorf("%+v", unknown.report())
		}
		for _, api := range r.apis() {
			if api.Group == "stored.example.com" && (api.Archived != "v1" || api.Preferred != "v2" || strings.Join(api.Versions, " ") != "v2 v1") {
				t.Errorf("%+v", api)
			}
		}
	})
}

// TestDeadConversionWebhook: objects that were stored in an older version cannot be read by anybody; they are named, with the remedy.
func TestDeadConversionWebhook(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		webhook := "conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: 'https://127.0.0.1:1/convert'}}}"
		apply(t, c, fmt.Sprintf(gadgets, "broken", webhook, false, true))
		client := newClient(t, c)
		post(t, client, "/apis/broken.example.com/v1/namespaces/default/gadgets", `{"apiVersion":"broken.example.com/v1","kind":"Gadget","metadata":{"name":"x"},"spec":{"a":"1"}}`)
		s, r := readInto(t, client, v1alpha1.BackupSpec{})
		if s.items()["gadgets.broken.example.com/v1 default/x"] == nil || len(r.report().Errors) > 0 {
			t.Errorf("in its storage version the object needs no conversion: %+v", r.report())
		}
		apply(t, c, fmt.Sprintf(gadgets, "broken", webhook, true, false))
		var message string
		waitFor(t, "the new storage version", func() bool {
			_, r = readInto(t, client, v1alpha1.BackupSpec{})
			message = remarkOf(r.report().Errors, "gadgets.broken.example.com", ReasonConversionFailed)
			return message != ""
		})
		if !strings.Contains(message, "repair the conversion webhook of CustomResourceDefinition gadgets.broken.example.com") || len(r.report().Errors) != 1 {
			t.Errorf("%+v", r.report())
		}
		if _, err := client.Do(t.Context(), kube.Request{Method: http.MethodDelete, Path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.broken.example.com"}); err != nil {
			t.Error(err)
		}
	})
}

func TestTerminatingNamespace(t *testing.T) {
	onEach(t, func(t *testing.T, c *testbed.Cluster) {
		client := newClient(t, c)
		post(t, client, "/api/v1/namespaces", `{"metadata":{"name":"ending"}}`)
		post(t, client, "/api/v1/namespaces/ending/configmaps", `{"metadata":{"name":"held","finalizers":["example.com/hold"]}}`)
		if _, err := client.Do(t.Context(), kube.Request{Method: http.MethodDelete, Path: "/api/v1/namespaces/ending"}); err != nil {
			t.Fatal(err)
		}
		s, r := readInto(t, client, v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"ending", "absent"}}})
		if s.items()["configmaps/v1 ending/held"] == nil || remarkOf(r.report().Warnings, "namespaces", ReasonTerminating) == "" {
			t.Errorf("%v, %+v", s.keys(), r.report())
		}
		if got := remarkOf(r.report().Warnings, "namespaces", ReasonNamespaceNotFound); !strings.Contains(got, `there is no namespace "absent"`) {
			t.Errorf("%+v", r.report())
		}
	})
}

func post(t *testing.T, client *kube.Client, path, body string) {
	t.Helper()
	if _, err := client.Do(t.Context(), kube.Request{Method: http.MethodPost, Path: path, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// waitFor asks again until the server has got there, or the test's time is over.
func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for !there() {
		if err := t.Context().Err(); err != nil {
			t.Fatalf("wait for %s: %v", what, context.Cause(t.Context()))
		}
	}
}
