//go:build unix

package testbed

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var versions = []string{"1.24.17", "1.36.3"}

func TestClustersServeTheirVersion(t *testing.T) {
	for i, c := range NewClusters(t, versions...) {
		clients := clientsFor(t, c.Kedge(t))
		info, err := clients.Discovery().ServerVersion()
		if err != nil || info.GitVersion != "v"+versions[i] {
			t.Errorf("version of %s: %v, %v", versions[i], info, err)
		}
		aggregated := aggregatedDiscovery(t, c)
		if want := c.Version == "1.36.3"; aggregated != want {
			t.Errorf("%s serves aggregated discovery: %v", c.Version, aggregated)
		}
		_, err = clients.PolicyV1beta1().PodDisruptionBudgets("default").List(t.Context(), metav1.ListOptions{})
		if served := err == nil; served != (c.Version == "1.24.17") {
			t.Errorf("%s serves policy/v1beta1: %v", c.Version, err)
		}
	}
}

func aggregatedDiscovery(t *testing.T, c *Cluster) bool {
	t.Helper()
	client, err := rest.HTTPClientFor(c.Master())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/apis", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return strings.Contains(resp.Header.Get("Content-Type"), "as=APIGroupDiscoveryList")
}

func TestKedgeIsNoMaster(t *testing.T) {
	c := SharedCluster(t, "1.36.3")
	if c != SharedCluster(t, "v1.36.3") {
		t.Error("the second test got another cluster")
	}
	cfg := c.Kedge(t)
	path, err := c.Kubeconfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	review, err := clientsFor(t, fromFile).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := review.Status.UserInfo.Username; got != "system:serviceaccount:kedge-testbed:kedge" {
		t.Errorf("user %q", got)
	}
	for _, g := range review.Status.UserInfo.Groups {
		if g == "system:masters" {
			t.Error("is a master")
		}
	}
	weak, err := c.ServiceAccountConfigWithRules(t.Context(), "weak", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clientsFor(t, weak).CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an account without rules lists secrets: %v", err)
	}
}

const definitions = `
apiVersion: stable.example.com/v1
kind: Tent
metadata: {name: first, namespace: camp}
spec: {poles: 3}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nobody-home}
webhooks:
- name: nobody.example.com
  clientConfig: {service: {namespace: camp, name: absent}}
  rules: [{apiGroups: ["stable.example.com"], apiVersions: ["*"], operations: ["*"], resources: ["*"]}]
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: camp}
spec: {containers: [{name: c, image: example.com/guest}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tents.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: tents, singular: tent, kind: Tent}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: camp}}
---
`

func TestApplySendsInTheOrderThatAClusterNeeds(t *testing.T) {
	for _, c := range []*Cluster{SharedCluster(t, "1.24.17"), SharedCluster(t, "1.36.3"), NewCluster(t, "1.36.3", NoControllers())} {
		if err := c.ApplyYAML(t.Context(), definitions); err != nil {
			t.Errorf("%s: %v", c.Version, err)
		}
	}
}

func TestApplyNamesWhatTheServerRefuses(t *testing.T) {
	c := SharedCluster(t, "1.36.3")
	objects, err := Parse([]byte(`
{apiVersion: policy/v1beta1, kind: PodDisruptionBudget, metadata: {name: old}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: UPPER}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: posted}, data: {a: b}}
`))
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := c.Apply(t.Context(), objects, ApplyOptions{
		Namespace: "refusals", Create: func(o *unstructured.Unstructured) bool { return o.GetName() == "posted" },
	})
	if err != nil || len(outcomes) != 3 {
		t.Fatalf("%d outcomes, %v", len(outcomes), err)
	}
	if outcomes[0].Err == nil || outcomes[1].Err == nil || outcomes[2].Err != nil {
		t.Errorf("outcomes: %v; %v; %v", outcomes[0].Err, outcomes[1].Err, outcomes[2].Err)
	}
	if op := outcomes[2].Live.GetManagedFields()[0].Operation; op != metav1.ManagedFieldsOperationUpdate {
		t.Errorf("the posted object's fields are owned by %s", op)
	}
}

func TestControllersWork(t *testing.T) {
	c := SharedCluster(t, "1.36.3")
	clients := clientsFor(t, c.Master())
	err := c.ApplyYAML(t.Context(), `
{apiVersion: v1, kind: Namespace, metadata: {name: work}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: work}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: example.com/web}]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	pods := func() int {
		list, err := clients.CoreV1().Pods("work").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	waitFor(t, "two pods", func() bool { return pods() == 2 })
	if err := clients.AppsV1().Deployments("work").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the garbage collector", func() bool { return pods() == 0 })
	if err := clients.CoreV1().Namespaces().Delete(t.Context(), "work", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the namespace's end", func() bool {
		_, err := clients.CoreV1().Namespaces().Get(t.Context(), "work", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestExtraFlagsReachTheServer(t *testing.T) {
	c := NewCluster(t, "1.24.17", APIServerFlags("--enable-admission-plugins=PodSecurityPolicy"), NoControllers())
	// Without any policy the plugin refuses all pods of who is no master.
	cfg := c.Kedge(t)
	if err := c.ApplyYAML(t.Context(), "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: default}}"); err != nil {
		t.Fatal(err)
	}
	pod, err := Parse([]byte("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := newAPIClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pods := api.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("default")
	if _, err = pods.Create(t.Context(), pod[0], metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("create a pod: %v", err)
	}
}

func TestStoppedClusterIsGone(t *testing.T) {
	c := NewCluster(t, "1.36.3", NoControllers())
	clients := clientsFor(t, c.Master())
	c.Stop()
	c.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := clients.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("still answers")
	}
}

func TestBuckets(t *testing.T) {
	for name, b := range map[string]*Bucket{"plain": NewBucket(t), "versioned": NewBucket(t, Versioned()), "locked": NewBucket(t, Locked()), "tls": NewTLSBucket(t)} {
		t.Run(name, func(t *testing.T) {
			client := b.Client()
			put := func(body string) error {
				in := &s3.PutObjectInput{Bucket: &b.Name, Key: aws.String("a/b"), Body: strings.NewReader(body), IfNoneMatch: aws.String("*")}
				if name == "locked" {
					in.ObjectLockMode = s3types.ObjectLockModeCompliance
					in.ObjectLockRetainUntilDate = aws.Time(time.Now().Add(time.Hour))
				}
				_, err := client.PutObject(t.Context(), in)
				return err
			}
			if err := put("one"); err != nil {
				t.Fatal(err)
			}
			var refused smithy.APIError
			if err := put("two"); !errors.As(err, &refused) || refused.ErrorCode() != "PreconditionFailed" {
				t.Errorf("a second conditional put: %v", err)
			}
			out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b.Name, Key: aws.String("a/b")})
			if err != nil {
				t.Fatal(err)
			}
			_ = out.Body.Close()
			versioned := out.VersionId != nil && *out.VersionId != "null"
			if want := name == "versioned" || name == "locked"; versioned != want {
				t.Errorf("has a version: %v", versioned)
			}
			if name == "locked" {
				_, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b.Name, Key: aws.String("a/b"), VersionId: out.VersionId})
				if !errors.As(err, &refused) || refused.ErrorCode() != "AccessDenied" {
					t.Errorf("delete a locked version: %v", err)
				}
			}
		})
	}
}

func clientsFor(t *testing.T, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}
