//go:build unix

package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/deploy/render"
	"kedge.dev/kedge/server"
	"kedge.dev/kedge/test/testbed"
)

// attempt is something that somebody may try in the server's namespace.
type attempt struct {
	name string
	try  func(ctx context.Context, c client.Client) error
	// may are the roles of the chart that allow it; "tenant" is one who may create Backups and Restores there, and no more.
	may string
}

func asksFor(resource, subresource, verb, in string) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: in, Verb: verb, Resource: resource, Subresource: subresource},
		}}
		if err := c.Create(ctx, review); err != nil {
			return err
		}
		if !review.Status.Allowed {
			return apierrors.NewForbidden(corev1.Resource(resource), "", fmt.Errorf("%s", review.Status.Reason))
		}
		return nil
	}
}

// attempts are made as dry runs where they would change something, so that all may be tried by all.
var attempts = []attempt{
	{"list backups", func(ctx context.Context, c client.Client) error {
		return c.List(ctx, &v1alpha1.BackupList{}, client.InNamespace(namespace))
	}, "view operator admin tenant"},
	{"create a backup", creates(&v1alpha1.Backup{}), "operator admin tenant"},
	{"create a restore", creates(&v1alpha1.Restore{Spec: v1alpha1.RestoreSpec{BackupName: "b"}}), "operator admin tenant"},
	{"create a schedule", creates(&v1alpha1.Schedule{Spec: v1alpha1.ScheduleSpec{Schedule: "@daily"}}), "operator admin"},
	{"create a location", creates(&v1alpha1.BackupStorageLocation{Spec: v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: "/x"}}}), "admin"},
	{"ask for an item", creates(&v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{
		Target: v1alpha1.DownloadBackupItem, Name: "b", Recipient: "age1" + strings.Repeat("q", 58),
		Item: &v1alpha1.ItemReference{Version: "v1", Resource: "secrets", Namespace: "kube-system", Name: "s"},
	}}), "download admin"},
	{"ask for a log", creates(&v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: "b", Recipient: "age1" + strings.Repeat("q", 58)}}), "download admin"},
	{"ask for a report", creates(&v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreReport, Name: "r", Recipient: "age1" + strings.Repeat("q", 58)}}), "download admin"},
	{"read others' answers", func(ctx context.Context, c client.Client) error {
		return c.List(ctx, &v1alpha1.DownloadRequestList{}, client.InNamespace(namespace))
	}, "download admin"},
	{"delete the data of a backup", creates(&v1alpha1.DeleteBackupRequest{Spec: v1alpha1.DeleteBackupRequestSpec{BackupName: "b", BackupUID: "u"}}), "admin"},
	{"read the location's key", func(ctx context.Context, c client.Client) error {
		return c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "main"}, &corev1.Secret{})
	}, ""},
	{"list the parts of a restore's report", func(ctx context.Context, c client.Client) error {
		return c.List(ctx, &corev1.SecretList{}, client.InNamespace(namespace))
	}, ""},
	{"read ConfigMaps", func(ctx context.Context, c client.Client) error {
		return c.List(ctx, &corev1.ConfigMapList{}, client.InNamespace(namespace))
	}, ""},
	{"change the status of backups", asksFor("backups", "status", "patch", namespace), ""},
	{"run commands in the server's pod", asksFor("pods", "exec", "create", namespace), ""},
	{"run commands in a pod elsewhere", asksFor("pods", "exec", "create", "default"), ""},
	{"read Secrets elsewhere", asksFor("secrets", "", "list", "kube-system"), ""},
	{"act as the server", asksFor("serviceaccounts", "", "impersonate", namespace), ""},
	{"take the server's token", asksFor("serviceaccounts", "token", "create", namespace), ""},
}

func creates(o client.Object) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error {
		o := o.DeepCopyObject().(client.Object)
		o.SetNamespace(namespace)
		o.SetName("tried")
		return c.Create(ctx, o, client.DryRunAll)
	}
}

// TestRolesOfPeople tries everything as a person with each role of the chart, bound in the server's namespace, as a tenant who may create Backups and
// Restores there, and as somebody without any right: what a role does not name, the API server refuses.
func TestRolesOfPeople(t *testing.T) {
	h := newHouse(t, "1.36.3")
	h.location(t, "main", testbed.NewBucket(t))
	h.roles(t)
	for _, role := range []string{"view", "operator", "download", "admin", "tenant", "nobody"} {
		t.Run(role, func(t *testing.T) {
			c := h.person(t, role)
			for _, a := range attempts {
				err := a.try(t.Context(), c)
				allowed := strings.Contains(" "+a.may+" ", " "+role+" ")
				switch {
				case allowed && err != nil:
					t.Errorf("%s: %v", a.name, err)
				case !allowed && !apierrors.IsForbidden(err):
					t.Errorf("%s: want a refusal, got %v", a.name, err)
				}
			}
		})
	}
}

// accountPolicy is the admission policy of the chart.
func accountPolicy(t *testing.T) string {
	t.Helper()
	objects, err := render.Objects(deploy.Chart, render.Options{Release: "kedge", Namespace: namespace, APIVersions: render.VersionsOf(36), Values: map[string]any{
		"image": map[string]any{"repository": "kedge"}, "admissionPolicy": map[string]any{"enabled": true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool {
		return !strings.HasPrefix(o.GetKind(), "ValidatingAdmissionPolicy")
	})
	text, err := render.YAML(objects)
	if err != nil || len(objects) != 2 {
		t.Fatalf("the chart's policy is %d objects, %v", len(objects), err)
	}
	return string(text)
}

// TestTenant has a tenant, who may create Backups and Restores in the server's namespace and use one account there, try for more than that account may:
// by a backup of other namespaces, by the restore of an administrator's backup, in his own name, without an account, and as the server or an administrator. The server
// may do everything itself. The policy is the chart's.
func TestTenant(t *testing.T) {
	bucket := testbed.NewBucket(t)
	h := newHouse(t, "1.36.3")
	if err := h.cluster.ApplyYAML(t.Context(), tenants, boss, accountPolicy(t)); err != nil {
		t.Fatal(err)
	}
	h.roles(t)
	h.location(t, "main", bucket)
	h.serve(t, func(o *server.Options) { o.RequireServiceAccount = true })
	whole := newBackup("whole")
	whole.Spec.IncludedNamespaces, whole.Spec.ServiceAccountName = []string{"ours", "theirs"}, "boss"
	h.create(t, whole)
	if b := h.backup(t, "whole"); b.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("the administrator's backup: %+v", b.Status)
	}
	lost := []client.Object{
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "theirs", Name: "foreign"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "closed"}},
	}
	for _, o := range lost {
		if err := h.client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	tenant := h.person(t, "tenant")
	backup := func(name, account string) *v1alpha1.Backup {
		b := newBackup(name)
		b.Spec.IncludedNamespaces, b.Spec.ServiceAccountName = []string{"ours", "theirs", "kube-system"}, account
		return b
	}
	restore := func(name, account string) *v1alpha1.Restore {
		return &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.RestoreSpec{BackupName: "whole", ServiceAccountName: account}}
	}
	h.policyWorks(t, tenant, backup("early", "boss"))
	for _, account := range []string{"boss", "default", "no-such", ""} {
		for _, o := range []client.Object{backup("more", account), restore("more", account)} {
			if err := tenant.Create(t.Context(), o); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "that you may use") {
				t.Errorf("%T as %q: want a refusal, got %v", o, account, err)
			}
		}
	}
	other := newBackup("other") // another installation's, whose server may ask for no account
	other.Namespace = "theirs"
	if err := h.client.Create(t.Context(), other); err != nil {
		t.Errorf("in a namespace that is not the server's: %v", err)
	}
	abroad := backup("abroad", "reader")
	abroad.Spec.Volumes = &v1alpha1.VolumeSelection{Method: v1alpha1.VolumeSnapshot, SnapshotCopies: []v1alpha1.SnapshotCopy{{Region: "eu-central-1", RoleARN: "arn:aws:iam::444455556666:role/his"}}}
	if err := tenant.Create(t.Context(), abroad); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "may create locations") {
		t.Errorf("copies of snapshots in another account: want a refusal, got %v", err)
	}
	keep := restore("keep", "reader")
	keep.Spec.Volumes = v1alpha1.VolumesKeep
	if err := tenant.Create(t.Context(), keep); err != nil {
		t.Errorf("a restore that keeps volumes: %v", err)
	}
	for _, o := range []client.Object{backup("mine", "reader"), restore("mine", "reader")} {
		if err := tenant.Create(t.Context(), o); err != nil {
			t.Fatalf("%T as his own: %v", o, err)
		}
	}
	for _, item := range h.items(t, bucket, h.backup(t, "mine")) {
		if !strings.HasPrefix(item, "configmaps ours/") {
			t.Errorf("his backup holds %s", item)
		}
	}
	var r v1alpha1.Restore
	wait(t, "the end of the tenant's restore", func(ctx context.Context) (bool, any) {
		err := h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "mine"}, &r)
		return err == nil && r.Status.Phase.Final(), fmt.Sprintf("%+v, %v", r.Status, err)
	})
	if r.Status.Phase == v1alpha1.PhaseCompleted || r.Status.Counts.Created > 0 || r.Status.Counts.Failed == 0 {
		t.Errorf("his restore: %+v", r.Status)
	}
	for _, o := range lost {
		if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s came back through the tenant: %v", o, o.GetName(), err)
		}
	}
}

// boss is an administrator's account, and what the tenant may use.
const boss = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: boss, namespace: kedge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: boss}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: boss, namespace: kedge}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: uses-reader, namespace: kedge}
rules: [{apiGroups: [""], resources: [serviceaccounts], resourceNames: [reader], verbs: [use]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: uses-reader, namespace: kedge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: uses-reader}
subjects: [{kind: ServiceAccount, name: person-tenant, namespace: ` + testbed.AccessNamespace + `}]
`

// policyWorks waits until the API server follows the policy, which takes it a moment.
func (h *house) policyWorks(t *testing.T, tenant client.Client, refused client.Object) {
	t.Helper()
	wait(t, "the admission policy", func(ctx context.Context) (bool, any) {
		err := tenant.Create(ctx, refused.DeepCopyObject().(client.Object), client.DryRunAll)
		return apierrors.IsForbidden(err), err
	})
}

// items are the objects of a backup, but for the ConfigMap that a controller makes in each namespace.
func (h *house) items(t *testing.T, bucket *testbed.Bucket, b *v1alpha1.Backup) []string {
	t.Helper()
	var items []string
	err := h.read(t, bucket, b).Rows(t.Context(), nil, func(_ int, row archive.Row) error {
		if row.Name != "kube-root-ca.crt" {
			items = append(items, row.String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// roles makes the chart's roles for people, and the tenant's.
func (h *house) roles(t *testing.T) {
	t.Helper()
	objects, err := render.Objects(deploy.Chart, render.Options{Release: "kedge", Namespace: namespace, Values: map[string]any{"image": map[string]any{"repository": "kedge"}}})
	if err != nil {
		t.Fatal(err)
	}
	var roles []*unstructured.Unstructured
	for _, o := range objects {
		if name := o.GetName(); o.GetKind() == "ClusterRole" && (name == "kedge-view" || name == "kedge-operator" || name == "kedge-download" || name == "kedge-admin") {
			roles = append(roles, o)
		}
	}
	if len(roles) != 4 {
		t.Fatalf("the chart has %d roles for people, want 4", len(roles))
	}
	outcomes, err := h.cluster.Apply(t.Context(), roles, testbed.ApplyOptions{})
	for _, o := range outcomes {
		if o.Err != nil {
			t.Errorf("%s: %v", o.Object.GetName(), o.Err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	h.create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "kedge-tenant"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"backups", "restores"}, Verbs: []string{"get", "list", "watch", "create"}},
	}})
}

// person gives the client of somebody with a role; nobody has none.
func (h *house) person(t *testing.T, role string) client.Client {
	t.Helper()
	name := "person-" + role
	cfg, err := h.cluster.ServiceAccountConfigWithRules(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if role != "nobody" {
		h.create(t, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "kedge-" + role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: testbed.AccessNamespace, Name: name}},
		})
	}
	c, err := client.New(cfg, client.Options{Scheme: h.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
