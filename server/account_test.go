//go:build unix

package server_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/server"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/testbed"
)

// tenants are two namespaces, and an account in Kedge's that may list the ConfigMaps of one of them, and nothing else in the cluster.
const tenants = `
apiVersion: v1
kind: Namespace
metadata: {name: ours}
---
apiVersion: v1
kind: Namespace
metadata: {name: theirs}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: open, namespace: ours}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: closed, namespace: ours}
stringData: {a: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign, namespace: theirs}
data: {a: b}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: kedge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: ours}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: ours}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: kedge}]
`

// TestBackupAsAccount makes a backup as an account that may list little: what it may is in the backup, what it may not is in the report, with
// the account's name, although the server itself could read it all. A server that requires an account refuses backups without.
func TestBackupAsAccount(t *testing.T) {
	bucket := testbed.NewBucket(t)
	h := newHouse(t, "1.36.3")
	if err := h.cluster.ApplyYAML(t.Context(), tenants); err != nil {
		t.Fatal(err)
	}
	h.location(t, "main", bucket)
	stop := h.serve(t)
	as := func(name string) *v1alpha1.Backup {
		b := newBackup(name)
		b.Spec.IncludedNamespaces = []string{"ours", "theirs"}
		b.Spec.ServiceAccountName = "reader"
		return b
	}
	h.create(t, as("as-reader"))
	b := h.backup(t, "as-reader")
	if b.Status.Phase != v1alpha1.PhasePartiallyFailed || b.Status.Counts.Errors == 0 {
		t.Fatalf("the backup as an account is %+v", b.Status)
	}
	if diff := cmp.Diff([]string{"configmaps ours/open"}, h.items(t, bucket, b)); diff != "" {
		t.Errorf("the backup holds (-want +got):\n%s", diff)
	}
	report, err := h.read(t, bucket, b).Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]string{}
	for _, r := range report.Errors {
		refused[r.Resource+" "+r.Reason] += r.Message + "\n"
	}
	const who = "system:serviceaccount:kedge:reader"
	for _, resource := range []string{"secrets", "configmaps", "deployments.apps"} {
		if text := refused[resource+" Forbidden"]; !strings.Contains(text, who) {
			t.Errorf("of %s the report says %q", resource, text)
		}
	}
	if text := refused["configmaps Forbidden"]; !strings.Contains(text, "theirs") || strings.Contains(text, "ours:") {
		t.Errorf("of the ConfigMaps the report says %q", text)
	}
	stop()

	h.serve(t, func(o *server.Options) { o.RequireServiceAccount = true })
	h.create(t, newBackup("as-nobody"))
	b = h.backup(t, "as-nobody")
	ready := meta.FindStatusCondition(b.Status.Conditions, "Ready")
	if b.Status.Phase != v1alpha1.PhaseFailed || ready == nil || ready.Reason != "ServiceAccountRequired" || !strings.Contains(ready.Message, "spec.serviceAccountName") {
		t.Errorf("without an account the backup is %+v", b.Status)
	}
	h.create(t, as("as-reader-again"))
	if b = h.backup(t, "as-reader-again"); b.Status.Phase != v1alpha1.PhasePartiallyFailed {
		t.Errorf("with one it is %+v", b.Status)
	}
	if _, err := open(t, bucket).Find(t.Context(), "as-nobody"); err == nil {
		t.Error("a backup that was refused is in the bucket")
	}
}

// open opens the location of a bucket past the server.
func open(t *testing.T, bucket *testbed.Bucket) *archive.Location {
	t.Helper()
	spec := v1alpha1.BackupStorageLocationSpec{S3: &v1alpha1.S3Location{
		Bucket: bucket.Name, Region: bucket.Region, Endpoint: bucket.Endpoint, PathStyle: true, CredentialsFile: credentialsFile(t, bucket),
	}}
	store, err := location.OpenStore(t.Context(), &spec, location.StoreOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	place, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// read opens a backup.
func (h *house) read(t *testing.T, bucket *testbed.Bucket, b *v1alpha1.Backup) *archive.Reader {
	t.Helper()
	var secret corev1.Secret
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "main"}, &secret); err != nil {
		t.Fatal(err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(secret.Data["identity"]))
	if err != nil {
		t.Fatal(err)
	}
	place := open(t, bucket)
	keys, err := place.Unlock(t.Context(), archive.UnlockOptions{Identities: identities})
	if err != nil {
		t.Fatal(err)
	}
	entry, err := place.Find(t.Context(), b.Status.ArchiveUID)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := place.OpenBackup(t.Context(), entry, keys, archive.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return reader
}
