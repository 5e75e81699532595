//go:build unix

package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/server"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/testbed"
)

// versions are those whose API servers the kinds and controllers must get on with.
var versions = []string{"1.24.17", "1.36.3"}

const namespace = "kedge"

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// house is a cluster in which servers can run.
type house struct {
	cluster *testbed.Cluster
	client  client.Client
}

func newHouse(t *testing.T, version string) *house {
	t.Helper()
	h := &house{cluster: testbed.NewCluster(t, version)}
	files, err := deploy.CRDs.ReadDir("crds")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		crd, err := deploy.CRDs.ReadFile("crds/" + file.Name())
		if err == nil {
			err = h.cluster.ApplyYAML(t.Context(), string(crd))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	if h.client, err = client.New(h.cluster.Master(), client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	h.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	return h
}

// serve runs a server until the returned function, or the end of the test, stops it.
func (h *house) serve(t *testing.T, change ...func(*server.Options)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	cfg := h.cluster.Kedge(t)
	opts := server.Options{
		Namespace: namespace, ClusterName: "house", Version: "test", MetricsAddress: "0", HealthAddress: "0",
		SpoolDir: t.TempDir(), Log: logr.Discard(), Now: time.Now,
	}
	for _, fn := range change {
		fn(&opts)
	}
	group.Go(func() error { return server.Run(ctx, cfg, opts) })
	stop = func() {
		cancel()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the server ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func (h *house) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := h.client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// location makes one of a bucket, which the server is to make a location, with the key that opens it.
func (h *house) location(t *testing.T, name string, bucket *testbed.Bucket) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	credentials := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", bucket.AccessKey, bucket.SecretKey)
	h.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		StringData: map[string]string{"identity": identity.String() + "\n", "credentials": credentials},
	})
	h.create(t, &v1alpha1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.BackupStorageLocationSpec{
			S3: &v1alpha1.S3Location{
				Bucket: bucket.Name, Region: bucket.Region, Endpoint: bucket.Endpoint, PathStyle: true,
				CredentialsSecret: &v1alpha1.SecretKeyReference{Name: name, Key: "credentials"},
			},
			AgeRecipients:     []string{identity.Recipient().String()},
			AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: name, Key: "identity"},
			SyncPeriod:        &metav1.Duration{Duration: time.Second},
		},
	})
}

// wait polls until done says so. What it last saw is in the failure.
func wait(t *testing.T, what string, done func(ctx context.Context) (bool, any)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		ok, seen := done(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come about; last seen: %+v", what, seen)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// backup waits until a Backup is in a final phase.
func (h *house) backup(t *testing.T, name string) *v1alpha1.Backup {
	t.Helper()
	var b v1alpha1.Backup
	wait(t, "the end of backup "+name, func(ctx context.Context) (bool, any) {
		err := h.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &b)
		return err == nil && b.Status.Phase.Final(), fmt.Sprintf("%+v, error %v", b.Status, err)
	})
	return &b
}

func newBackup(name string) *v1alpha1.Backup {
	return &v1alpha1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"team": "blue"}},
		Spec:       v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{"default", "kube-system"}}},
	}
}

// The whole way of a backup by an object: an empty bucket becomes a location, the object becomes an archive, and the archive outlives
// the object, the definitions, and the cluster.
func TestBackups(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			bucket := testbed.NewBucket(t)
			h := newHouse(t, version)
			h.location(t, "main", bucket)
			h.serve(t)
			h.create(t, newBackup("first"))
			b := h.backup(t, "first")
			if b.Status.Phase != v1alpha1.PhaseCompleted || b.Status.Counts.Items == 0 || b.Status.ArchiveUID != string(b.UID) || b.Status.StorageLocation != "main" {
				t.Fatalf("status is %+v", b.Status)
			}
			if ready := meta.FindStatusCondition(b.Status.Conditions, "Ready"); ready == nil || ready.Status != metav1.ConditionTrue || ready.Reason != "Completed" {
				t.Errorf("condition Ready is %+v", ready)
			}
			t.Run("DeletedObject", func(t *testing.T) { h.deletedObject(t, b) })
			t.Run("Refused", func(t *testing.T) { h.refused(t) })
			t.Run("Elsewhere", func(t *testing.T) { elsewhere(t, bucket, b) })
		})
	}
}

// deletedObject deletes the object of a backup: no data goes, and the server finds the archive again.
func (h *house) deletedObject(t *testing.T, b *v1alpha1.Backup) {
	if err := h.client.Delete(t.Context(), b.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	var again v1alpha1.Backup
	wait(t, "the object of an archive", func(ctx context.Context) (bool, any) {
		err := h.client.Get(ctx, client.ObjectKeyFromObject(b), &again)
		return err == nil && again.UID != b.UID && again.Status.Phase == v1alpha1.PhaseCompleted, err
	})
	if again.Annotations[v1alpha1.ArchiveUIDAnnotation] != string(b.UID) || again.Labels["team"] != "blue" {
		t.Errorf("the found backup has annotations %v, labels %v", again.Annotations, again.Labels)
	}
	want, have := b.Status, again.Status
	want.Conditions, have.Conditions, want.Attempts, have.Attempts, want.ObservedGeneration, have.ObservedGeneration = nil, nil, 0, 0, 0, 0
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("the found backup's status (-made +found):\n%s", diff)
	}
}

// refused has objects that cannot become backups; each says why, and none is tried again.
func (h *house) refused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1alpha1.Backup)
		reason string
	}{
		"bad-selection": {func(b *v1alpha1.Backup) { b.Spec.Expression = "object." }, "InvalidSpec"},
		"bad-volumes": {func(b *v1alpha1.Backup) {
			b.Spec.Volumes = &v1alpha1.VolumeSelection{Policies: []v1alpha1.VolumePolicy{{Namespaces: []string{"["}, Method: v1alpha1.VolumeSkip}}}
		}, "InvalidSpec"},
		"cancelled": {func(b *v1alpha1.Backup) { b.Spec.Cancel = true }, "Cancelled"},
	} {
		b := newBackup(name)
		c.change(b)
		h.create(t, b)
		b = h.backup(t, name)
		ready := meta.FindStatusCondition(b.Status.Conditions, "Ready")
		if ready == nil || ready.Reason != c.reason || ready.Status != metav1.ConditionFalse || ready.Message == "" {
			t.Errorf("%s: phase %s, condition %+v, want reason %s", name, b.Status.Phase, ready, c.reason)
		}
	}
}

// elsewhere mounts the bucket in an empty cluster: the backup is back, and its archive is whole.
func elsewhere(t *testing.T, bucket *testbed.Bucket, b *v1alpha1.Backup) {
	other := newHouse(t, "1.36.3")
	spec := v1alpha1.BackupStorageLocationSpec{
		ReadOnly: true,
		S3:       &v1alpha1.S3Location{Bucket: bucket.Name, Region: bucket.Region, Endpoint: bucket.Endpoint, PathStyle: true, CredentialsFile: credentialsFile(t, bucket)},
	}
	other.create(t, &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "old"}, Spec: spec})
	other.serve(t)
	found := other.backup(t, b.Name)
	if found.Status.Phase != v1alpha1.PhaseCompleted || found.Status.ArchiveUID != string(b.UID) || found.Status.StorageLocation != "old" {
		t.Errorf("in the empty cluster the backup is %+v", found.Status)
	}
	store, err := location.OpenStore(t.Context(), &spec, location.StoreOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	place, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := place.Find(t.Context(), string(b.UID)); err != nil || entry.Record == nil || entry.Record.Counts.Items != b.Status.Counts.Items {
		t.Errorf("the archive is %+v, %v", entry, err)
	}
	own := newBackup("into-the-old")
	other.create(t, own)
	own = other.backup(t, own.Name)
	if ready := meta.FindStatusCondition(own.Status.Conditions, "Ready"); own.Status.Phase != v1alpha1.PhaseFailed || ready == nil || ready.Reason != "LocationReadOnly" {
		t.Errorf("a backup into a read-only location: %+v", own.Status)
	}
}

// credentialsFile writes one for a bucket.
func credentialsFile(t *testing.T, bucket *testbed.Bucket) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", bucket.AccessKey, bucket.SecretKey)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Deleting the namespace of Kedge loses no backup and hangs nowhere: nothing holds a finalizer.
func TestNamespaceDeleted(t *testing.T) {
	bucket := testbed.NewBucket(t)
	h := newHouse(t, "1.36.3")
	h.location(t, "main", bucket)
	stop := h.serve(t)
	h.create(t, newBackup("first"))
	b := h.backup(t, "first")
	stop()
	if err := h.client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the namespace", func(ctx context.Context) (bool, any) {
		err := h.client.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{})
		return apierrors.IsNotFound(err), err
	})
	h.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	h.location(t, "main", bucket)
	h.serve(t)
	if again := h.backup(t, "first"); again.Status.ArchiveUID != b.Status.ArchiveUID {
		t.Errorf("the backup found is %s, want %s", again.Status.ArchiveUID, b.Status.ArchiveUID)
	}
}
