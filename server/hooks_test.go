//go:build unix

package server_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/podrunner"
	"kedge.dev/kedge/test/testbed"
)

// hookAccounts may all list pods of one namespace. One may not run commands in them, one may by either protocol, and one only by the older.
const hookAccounts = `
apiVersion: v1
kind: Namespace
metadata: {name: ours}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: lister, namespace: kedge}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner, namespace: kedge}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: creator, namespace: kedge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pods, namespace: ours}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: pods, namespace: ours}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pods}
subjects:
- {kind: ServiceAccount, name: lister, namespace: kedge}
- {kind: ServiceAccount, name: runner, namespace: kedge}
- {kind: ServiceAccount, name: creator, namespace: kedge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: runner, namespace: ours}
rules: [{apiGroups: [""], resources: [pods/exec], verbs: [get, create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: runner, namespace: ours}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: runner}
subjects: [{kind: ServiceAccount, name: runner, namespace: kedge}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: creator, namespace: ours}
rules: [{apiGroups: [""], resources: [pods/exec], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: creator, namespace: ours}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: creator}
subjects: [{kind: ServiceAccount, name: creator, namespace: kedge}]
`

// TestHooksAsAccount runs hooks as the account that the backup names: what that may not, is not done, although the server itself may.
func TestHooksAsAccount(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			bucket, h := testbed.NewBucket(t), newHouse(t, version)
			if err := h.cluster.ApplyYAML(t.Context(), hookAccounts); err != nil {
				t.Fatal(err)
			}
			clients, err := kubernetes.NewForConfig(h.cluster.Master())
			if err != nil {
				t.Fatal(err)
			}
			kubelet := podrunner.StartKubelet(t, clients, "node-1")
			kubelet.Run(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "db"}})
			h.location(t, "main", bucket)
			h.serve(t)
			for _, c := range []struct {
				account string
				phase   v1alpha1.Phase
				ran     []string
			}{
				{"lister", v1alpha1.PhasePartiallyFailed, nil},
				{"runner", v1alpha1.PhaseCompleted, []string{"touch", "rm"}},
				{"creator", v1alpha1.PhaseCompleted, []string{"touch", "rm"}},
				{"", v1alpha1.PhaseCompleted, []string{"touch", "rm"}},
			} {
				before := len(kubelet.Ran())
				b := newBackup("as-" + cmp.Or(c.account, "itself"))
				b.Spec.IncludedNamespaces, b.Spec.IncludedResources, b.Spec.IncludeClusterResources = []string{"ours"}, []string{"pods"}, new(false)
				b.Spec.ServiceAccountName = c.account
				b.Spec.Hooks = []v1alpha1.BackupHook{{
					Name: "file", Pre: []v1alpha1.HookCommand{{Command: []string{"touch", "frozen"}}}, Post: []v1alpha1.HookCommand{{Command: []string{"rm", "-f", "frozen"}}},
				}}
				h.create(t, b)
				b = h.backup(t, b.Name)
				if b.Status.Phase != c.phase {
					t.Errorf("as %q the backup is %+v", c.account, b.Status)
				}
				var ran []string
				for _, command := range kubelet.Ran()[before:] {
					ran = append(ran, command.Argv[0])
				}
				if !slices.Equal(ran, c.ran) {
					t.Errorf("as %q there ran %v", c.account, ran)
				}
				if c.account == "lister" {
					h.hookRefused(t, bucket, b)
				}
			}
		})
	}
}

// hookRefused looks for the reason in the report.
func (h *house) hookRefused(t *testing.T, bucket *testbed.Bucket, b *v1alpha1.Backup) {
	t.Helper()
	report, err := h.read(t, bucket, b).Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, m := range report.Errors {
		if m.Reason == "HookFailed" {
			text += m.Message + "\n"
		}
	}
	for _, want := range []string{`hook "file" (touch) in pod ours/db`, "system:serviceaccount:kedge:lister", `grant "create" and "get" on pods/exec in namespace ours`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said: %s", want, text)
		}
	}
}
