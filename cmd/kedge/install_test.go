package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/deploy/render"
	"kedge.dev/kedge/test/testbed"
)

// TestInstallScripts installs, upgrades and removes the server on the oldest and the newest API server.
func TestInstallScripts(t *testing.T) {
	for _, version := range []string{"1.24.17", "1.36.3"} {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.NewCluster(t, version)
			kubeconfig, err := cluster.Kubeconfig(cluster.Master())
			if err != nil {
				t.Fatal(err)
			}
			commands := map[string]func(*testscript.TestScript, bool, []string){
				"exits": scriptCommands["exits"], "cluster": (&installed{t.Context(), cluster}).command,
			}
			testscript.Run(t, testscript.Params{
				Dir: filepath.Join("testdata", "install"), Cmds: commands, RequireExplicitExec: true,
				Condition: func(string) (bool, error) { return version != "1.24.17", nil }, // policies: of admission
				Setup: func(env *testscript.Env) error {
					env.Setenv("KUBECONFIG", kubeconfig)
					return quietHome(env)
				},
			})
		})
	}
}

// TestServerKnowsItsArguments holds the arguments that the chart gives the server against the server's flags.
func TestServerKnowsItsArguments(t *testing.T) {
	objects, err := render.Objects(deploy.Chart, render.Options{Release: "kedge", Namespace: "anchor", Values: map[string]any{
		"image": map[string]any{"repository": "kedge"},
		"server": map[string]any{
			"clusterName": "blue", "requireServiceAccount": true, "maxBackups": int64(7), "maxPerLocation": int64(3), "maxRestores": int64(2), "maxInterruptions": int64(9), "extraArgs": []any{"--lease-duration=30s"},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if err != nil || len(containers) != 1 {
			t.Fatalf("the containers are %v (%v)", containers, err)
		}
		args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
		if err != nil || len(args) < 8 || args[0] != "server" {
			t.Fatalf("the arguments are %v (%v)", args, err)
		}
		cmd := testApp().serverCommand()
		if err := cmd.ParseFlags(args[1:]); err != nil || cmd.Flags().NArg() > 0 {
			t.Errorf("the server does not take %v: %v", args, err)
		}
		for name, want := range map[string]string{"namespace": "anchor", "cluster-name": "blue", "max-backups": "7", "max-per-location": "3", "max-restores": "2", "max-interruptions": "9", "require-service-account": "true"} {
			if got := cmd.Flags().Lookup(name).Value.String(); got != want {
				t.Errorf("--%s is %q, want %q", name, got, want)
			}
		}
		return
	}
	t.Error("there is no Deployment")
}

// installed looks at a cluster as its administrator.
type installed struct {
	ctx     context.Context
	cluster *testbed.Cluster
}

// command is "cluster" in scripts: get RESOURCE NAME, labels RESOURCE NAME KEY=VALUE, apply FILE, restricted, as-server.
func (c *installed) command(ts *testscript.TestScript, neg bool, args []string) {
	switch args[0] {
	case "get", "labels":
		found, labels, err := c.get(args[1], args[2])
		ts.Check(err)
		if found == neg {
			ts.Fatalf("%s %s: there=%v", args[1], args[2], found)
		}
		if args[0] == "labels" {
			key, value, _ := strings.Cut(args[3], "=")
			if labels["app.kubernetes.io/"+key] != value {
				ts.Fatalf("the labels of %s %s are %v", args[1], args[2], labels)
			}
		}
	case "apply":
		ts.Check(c.cluster.ApplyYAML(c.ctx, ts.ReadFile(args[1])))
	case "restricted":
		ts.Check(c.restricted())
	case "as-server":
		ts.Check(c.rights())
	default:
		ts.Fatalf("cluster %s: unknown", args[0])
	}
}

// get finds an object ("deployments.apps", "kedge"), in the namespace kedge where it has one.
func (c *installed) get(resource, name string) (bool, map[string]string, error) {
	client, err := dynamic.NewForConfig(c.cluster.Master())
	if err != nil {
		return false, nil, err
	}
	plural, group, _ := strings.Cut(resource, ".")
	version := "v1"
	if group == "kedge.dev" {
		version = "v1alpha1"
	}
	var objects dynamic.ResourceInterface = client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
	if plural != "namespaces" && !strings.HasPrefix(plural, "cluster") && plural != "customresourcedefinitions" {
		objects = client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: plural}).Namespace("kedge")
	}
	o, err := objects.Get(c.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	return true, o.GetLabels(), nil
}

// restricted has the API server judge a pod of the Deployment by the Pod Security level restricted, which the namespace enforces, and
// the same pod with more rights.
func (c *installed) restricted() error {
	client, err := kubernetes.NewForConfig(c.cluster.Master())
	if err != nil {
		return err
	}
	deployment, err := client.AppsV1().Deployments("kedge").Get(c.ctx, "kedge", metav1.GetOptions{})
	if err != nil {
		return err
	}
	template := deployment.Spec.Template
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: template.Labels}, Spec: template.Spec}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := client.CoreV1().Pods("kedge").Create(c.ctx, pod, dry); err != nil {
		return fmt.Errorf("the server's pod is refused: %w", err)
	}
	pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(true)
	if _, err := client.CoreV1().Pods("kedge").Create(c.ctx, pod, dry); err == nil || !strings.Contains(err.Error(), "PodSecurity") {
		return fmt.Errorf("the namespace does not enforce the level restricted: a pod that may escalate gives %w", err)
	}
	return nil
}

// rights asks the API server what the server's account, and those who are bound to the roles for people, may do.
func (c *installed) rights() error {
	client, err := kubernetes.NewForConfig(c.cluster.Master())
	if err != nil {
		return err
	}
	for _, role := range []string{"view", "operator", "download", "admin"} {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "test-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "kedge-" + role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: role}},
		}
		if _, err := client.RbacV1().RoleBindings("kedge").Create(c.ctx, binding, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(rightsOf), "\n") {
		f := strings.Fields(line) // who verb resource/subresource.group namespace answer
		who := f[0]
		if who == "server" {
			who = "system:serviceaccount:kedge:kedge"
		}
		full, group, _ := strings.Cut(f[2], ".")
		resource, sub, _ := strings.Cut(full, "/")
		attributes := &authorizationv1.ResourceAttributes{Verb: f[1], Group: group, Resource: resource, Subresource: sub, Namespace: strings.Trim(f[3], "-")}
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: who, ResourceAttributes: attributes}}
		// The API server learns of roles and bindings by watching them, so an answer may be a moment old.
		err := wait.PollUntilContextTimeout(c.ctx, 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			got, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			return err == nil && got.Status.Allowed == (f[4] == "yes"), err
		})
		if err != nil {
			return fmt.Errorf("%s: the API server says otherwise: %w", line, err)
		}
	}
	return nil
}

// rightsOf are who, verb, resource, namespace (- is the cluster) and whether it is allowed.
const rightsOf = `
server list secrets shop yes
server list customresourcedefinitions.apiextensions.k8s.io - yes
server list persistentvolumes - yes
server list nodes - yes
server watch pods shop no
server watch secrets kedge no
server create pods/exec shop yes
server create deployments.apps shop yes
server escalate clusterroles.rbac.authorization.k8s.io - yes
server impersonate serviceaccounts shop yes
server impersonate users - no
server impersonate groups - no
server watch backups.kedge.dev kedge yes
server watch backups.kedge.dev shop no
server patch schedules/status.kedge.dev kedge yes
server update leases.coordination.k8s.io kedge yes
server create events.events.k8s.io kedge yes
server approve certificatesigningrequests.certificates.k8s.io - no
view list backups.kedge.dev kedge yes
view list backups.kedge.dev shop no
view create backups.kedge.dev kedge no
view get downloadrequests.kedge.dev kedge no
view get secrets kedge no
operator create backups.kedge.dev kedge yes
operator create restores.kedge.dev kedge yes
operator create downloadrequests.kedge.dev kedge no
operator create deletebackuprequests.kedge.dev kedge no
operator update backupstoragelocations.kedge.dev kedge no
download create downloadrequests.kedge.dev kedge yes
download list backups.kedge.dev kedge no
admin create downloadrequests.kedge.dev kedge yes
admin delete backupstoragelocations.kedge.dev kedge yes
admin get secrets kedge no
`
