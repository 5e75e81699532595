//go:build unix

package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// What a spec cannot mean is refused when it is applied, with a message that says why.
func TestRefusedByTheAPI(t *testing.T) {
	h := newHouse(t, "1.36.3")
	key := "age1" + strings.Repeat("q", 58)
	backup := func(spec v1alpha1.BackupSpec) client.Object { return &v1alpha1.Backup{Spec: spec} }
	hook := func(change func(*v1alpha1.BackupHook)) client.Object {
		h := v1alpha1.BackupHook{
			Name: "freeze", IncludedNamespaces: []string{"shop-*"}, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Pre: []v1alpha1.HookCommand{{Command: []string{"sync"}, Container: "db", Timeout: &metav1.Duration{Duration: time.Minute}, OnError: v1alpha1.HookContinue}},
		}
		change(&h)
		return backup(v1alpha1.BackupSpec{Hooks: []v1alpha1.BackupHook{h}})
	}
	restore := func(spec v1alpha1.RestoreSpec) client.Object { return &v1alpha1.Restore{Spec: spec} }
	restoreHook := func(change func(*v1alpha1.RestoreHook)) client.Object {
		h := v1alpha1.RestoreHook{Name: "import", Post: []v1alpha1.RestoreHookCommand{{Command: []string{"import"}, ExecTimeout: &metav1.Duration{Duration: time.Minute}, WaitForReady: true}}}
		change(&h)
		return restore(v1alpha1.RestoreSpec{BackupName: "b", Hooks: []v1alpha1.RestoreHook{h}})
	}
	place := func(spec v1alpha1.BackupStorageLocationSpec) client.Object {
		return &v1alpha1.BackupStorageLocation{Spec: spec}
	}
	s3 := func(change func(*v1alpha1.S3Location)) client.Object {
		l := v1alpha1.S3Location{Bucket: "b"}
		change(&l)
		return place(v1alpha1.BackupStorageLocationSpec{S3: &l})
	}
	copied := func(copies ...v1alpha1.SnapshotCopy) client.Object {
		return backup(v1alpha1.BackupSpec{Volumes: &v1alpha1.VolumeSelection{Method: v1alpha1.VolumeSnapshot, SnapshotCopies: copies}})
	}
	const far, role = "eu-central-1", "arn:aws:iam::444455556666:role/copies"
	cases := []struct {
		name   string
		object client.Object
		want   string // empty: it is accepted
	}{
		{"backup", backup(v1alpha1.BackupSpec{TTL: metav1.Duration{Duration: time.Hour}}), ""},
		{"backup-two-selectors", backup(v1alpha1.BackupSpec{Selection: v1alpha1.Selection{
			LabelSelector: &metav1.LabelSelector{}, OrLabelSelectors: []*metav1.LabelSelector{{}},
		}}), "labelSelector and orLabelSelectors exclude each other"},
		{"backup-scopes", backup(v1alpha1.BackupSpec{Selection: v1alpha1.Selection{
			IncludedResources: []string{"pods"}, IncludedClusterScopedResources: []string{"*"},
		}}), "cannot be combined with the fields that name resources of one scope"},
		{"backup-ttl", backup(v1alpha1.BackupSpec{TTL: metav1.Duration{Duration: -time.Hour}}), "ttl is negative"},
		{"backup-hook", hook(func(*v1alpha1.BackupHook) {}), ""},
		{"backup-hook-idle", hook(func(h *v1alpha1.BackupHook) { h.Pre = nil }), "a hook without pre and post commands does nothing"},
		{"backup-hook-no-name", hook(func(h *v1alpha1.BackupHook) { h.Name = "" }), "spec.hooks[0].name"},
		{"backup-hook-no-program", hook(func(h *v1alpha1.BackupHook) { h.Pre[0].Command = []string{""} }), "the first element names the program"},
		{"backup-hook-no-command", hook(func(h *v1alpha1.BackupHook) { h.Pre[0].Command = []string{} }), "spec.hooks[0].pre[0].command"},
		{"backup-hook-hasty", hook(func(h *v1alpha1.BackupHook) { h.Pre[0].Timeout = &metav1.Duration{Duration: time.Millisecond} }), "between 1s and 24h"},
		{"backup-hook-slow", hook(func(h *v1alpha1.BackupHook) { h.Pre[0].Timeout = &metav1.Duration{Duration: 25 * time.Hour} }), "between 1s and 24h"},
		{"backup-hook-mode", hook(func(h *v1alpha1.BackupHook) { h.Pre[0].OnError = "Ignore" }), `Unsupported value: "Ignore"`},
		{"backup-hook-many", hook(func(h *v1alpha1.BackupHook) { h.Post = slices.Repeat(h.Pre, 17) }), "must have at most 16 items"},
		{"backup-copies", copied(
			v1alpha1.SnapshotCopy{Region: far, KMSKeyID: "arn:aws:kms:eu-central-1:111122223333:key/a"}, v1alpha1.SnapshotCopy{Region: far, RoleARN: role, ExternalID: "x", KMSKeyID: "alias/a"},
		), ""},
		{"backup-copy-region", copied(v1alpha1.SnapshotCopy{Region: "Frankfurt"}), "spec.volumes.snapshotCopies[0].region"},
		{"backup-copy-role", copied(v1alpha1.SnapshotCopy{Region: far, RoleARN: "copies"}), "spec.volumes.snapshotCopies[0].roleARN"},
		{"backup-copy-external-id", copied(v1alpha1.SnapshotCopy{Region: far, ExternalID: "x"}), "externalID goes with roleARN"},
		{"backup-copy-key", copied(v1alpha1.SnapshotCopy{Region: far, KMSKeyID: "arn:aws:kms:eu-west-1:111122223333:key/a"}), "a key of another region"},
		{"backup-copy-twice", copied(v1alpha1.SnapshotCopy{Region: far, RoleARN: role}, v1alpha1.SnapshotCopy{Region: far, RoleARN: role, KMSKeyID: "alias/a"}), "named twice"},
		{"backup-copy-many", copied(slices.Repeat([]v1alpha1.SnapshotCopy{{Region: far}}, 9)...), "must have at most 8 items"},
		{"restore", restore(v1alpha1.RestoreSpec{BackupName: "b"}), ""},
		{"restore-hook", restoreHook(func(*v1alpha1.RestoreHook) {}), ""},
		{"restore-hook-idle", restoreHook(func(h *v1alpha1.RestoreHook) { h.Post = []v1alpha1.RestoreHookCommand{} }), "spec.hooks[0].post"},
		{"restore-hook-no-program", restoreHook(func(h *v1alpha1.RestoreHook) { h.Post[0].Command = []string{""} }), "the first element names the program"},
		{"restore-hook-hasty", restoreHook(func(h *v1alpha1.RestoreHook) { h.Post[0].WaitTimeout = &metav1.Duration{Duration: time.Millisecond} }), "between 1s and 24h"},
		{"restore-of-nothing", restore(v1alpha1.RestoreSpec{}), "spec.backupName"},
		{"restore-policy", restore(v1alpha1.RestoreSpec{BackupName: "b", ExistingResourcePolicy: "Replace"}), `Unsupported value: "Replace"`},
		{"restore-wait", restore(v1alpha1.RestoreSpec{BackupName: "b", WaitTimeout: metav1.Duration{Duration: -1}}), "waitTimeout is negative"},
		{"location", s3(func(*v1alpha1.S3Location) {}), ""},
		{"location-nowhere", place(v1alpha1.BackupStorageLocationSpec{}), "exactly one of s3 and file must be set"},
		{"location-twice", place(v1alpha1.BackupStorageLocationSpec{S3: &v1alpha1.S3Location{Bucket: "b"}, File: &v1alpha1.FileLocation{Path: "/b"}}), "exactly one of s3 and file must be set"},
		{"location-locked-folder", place(v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: "/b"}, ObjectLock: true}), "a folder cannot retain objects"},
		{"location-relative", place(v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: "b"}}), "spec.file.path"},
		{"location-hasty", place(v1alpha1.BackupStorageLocationSpec{S3: &v1alpha1.S3Location{Bucket: "b"}, SyncPeriod: &metav1.Duration{Duration: time.Millisecond}}), "syncPeriod is shorter than a second"},
		{"location-key", place(v1alpha1.BackupStorageLocationSpec{S3: &v1alpha1.S3Location{Bucket: "b"}, PublicKey: "AGE-SECRET-KEY-1"}), "spec.publicKey"},
		{"location-no-bucket", s3(func(l *v1alpha1.S3Location) { l.Bucket = "" }), "spec.s3.bucket"},
		{"location-external-id", s3(func(l *v1alpha1.S3Location) { l.ExternalID = "x" }), "externalID goes with roleARN"},
		{"location-two-credentials", s3(func(l *v1alpha1.S3Location) {
			l.CredentialsFile, l.CredentialsSecret = "/c", &v1alpha1.SecretKeyReference{Name: "s", Key: "k"}
		}), "credentialsFile and credentialsSecret exclude each other"},
		{"location-sse", s3(func(l *v1alpha1.S3Location) { l.ServerSideEncryption = "ROT13" }), "Unsupported value"},
		{"location-sse-key", s3(func(l *v1alpha1.S3Location) { l.SSEKMSKeyID = "k" }), "sseKMSKeyID goes with serverSideEncryption aws:kms"},
		{"download", &v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: "b", Recipient: key}}, ""},
		{"download-no-item", &v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItem, Name: "b", Recipient: key}}, "item names the object of target BackupItem"},
		{"download-to-nobody", &v1alpha1.DownloadRequest{Spec: v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: "b"}}, "spec.recipient"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.object.SetName(c.name)
			c.object.SetNamespace(namespace)
			err := h.client.Create(t.Context(), c.object)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("cancel-taken-back", func(t *testing.T) {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cancelled"}, Spec: v1alpha1.BackupSpec{Cancel: true}}
		h.create(t, b)
		b.Spec.Cancel = false
		if err := h.client.Update(t.Context(), b); err == nil || !strings.Contains(err.Error(), "cancel cannot be taken back") {
			t.Errorf("error is %v", err)
		}
	})
}
