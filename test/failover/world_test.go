//go:build unix

// Package failover_test runs two servers of the built binary for one cluster and one bucket, and takes the leader away at random moments of
// its work: killed, cut off from the network, or stopped for longer than its lease and woken again. Whatever was under way must end once,
// as it ends undisturbed, and leave nothing behind.
package failover_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/testbed"
)

// binary is the kedge under test.
var binary string

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(testbed.WithKedge(m, &binary))
}

const (
	namespace = "kedge" // the servers'
	kept      = "shop"  // a namespace that is backed up again and again
	lost      = "lost"  // one that is deleted and restored again and again
	place     = "main"  // the location
	source    = "source"
)

// world is a cluster and a bucket, and what tests know of them.
type world struct {
	cluster *testbed.Cluster
	bucket  *testbed.Bucket
	client  client.WithWatch
	archive *archive.Location
	keys    *archive.Keys
	history *history
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cluster: testbed.NewCluster(t, "1.36.3"), bucket: testbed.NewBucket(t, testbed.Versioned())}
	scheme := runtime.NewScheme()
	err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err == nil {
		w.client, err = client.NewWithWatch(w.cluster.Master(), client.Options{Scheme: scheme})
	}
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n"}
	files, err := deploy.CRDs.ReadDir("crds")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := deploy.CRDs.ReadFile("crds/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if err := w.cluster.ApplyYAML(t.Context(), append(texts, manifests(kept), manifests(lost))...); err != nil {
		t.Fatal(err)
	}
	w.locate(t)
	w.history = newHistory(t, w.client)
	return w
}

// manifests are the objects of a namespace. No controller changes them, but for the status of the Deployments.
func manifests(name string) string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, "---\n"+format+"\n", args...) }
	add("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}", name)
	for n := range 100 {
		add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%d, namespace: %s}\ndata: {number: \"%d\"}", n, name, n)
		add("apiVersion: v1\nkind: Secret\nmetadata: {name: secret-%d, namespace: %s}\nstringData: {number: \"%d\"}", n, name, n)
	}
	for n := range 10 {
		add("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: account-%d, namespace: %s}", n, name)
		add("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: role-%d, namespace: %s}\nrules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]", n, name)
		add("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: role-%d, namespace: %s}\n"+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: role-%d}\nsubjects: [{kind: ServiceAccount, name: account-%d, namespace: %s}]", n, name, n, n, name)
		add("apiVersion: v1\nkind: Service\nmetadata: {name: service-%d, namespace: %s}\nspec: {clusterIP: None, selector: {web: \"%d\"}, ports: [{port: 80}]}", n, name, n)
		add("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web-%d, namespace: %s}\nspec: {replicas: 0, selector: {matchLabels: {web: \"%d\"}}, "+
			"template: {metadata: {labels: {web: \"%d\"}}, spec: {containers: [{name: web, image: registry.example.com/web}]}}}", n, name, n, n)
	}
	return b.String()
}

// locate makes the bucket a location, and opens it past the servers. The servers learn the endpoint, which is another for each, from their environment.
func (w *world) locate(t *testing.T) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", w.bucket.AccessKey, w.bucket.SecretKey)
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s3 := v1alpha1.S3Location{Bucket: w.bucket.Name, Region: w.bucket.Region, PathStyle: true}
	w.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: place},
		StringData: map[string]string{"identity": identity.String() + "\n", "credentials": text},
	})
	served := s3
	served.CredentialsSecret = &v1alpha1.SecretKeyReference{Name: place, Key: "credentials"}
	w.create(t, &v1alpha1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: place},
		Spec: v1alpha1.BackupStorageLocationSpec{
			S3: &served, AgeRecipients: []string{identity.Recipient().String()},
			AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: place, Key: "identity"}, SyncPeriod: &metav1.Duration{Duration: time.Second},
		},
	})
	straight := s3
	straight.Endpoint, straight.CredentialsFile = w.bucket.Endpoint, credentials
	store, err := location.OpenStore(t.Context(), &v1alpha1.BackupStorageLocationSpec{S3: &straight}, location.StoreOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	opened, keys, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	w.archive, w.keys = opened, keys
}

func (w *world) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := w.client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// patience bounds the wait for what must come. Nothing depends on how long it takes.
const patience = 3 * time.Minute

// until polls until done says so; what it last saw is in the failure.
func until(t *testing.T, what string, done func(ctx context.Context) (bool, any)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last any
	for {
		ok, seen := done(ctx)
		if ok {
			return
		}
		if ctx.Err() == nil { // else it tells of the end of patience only
			last = seen
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: did not come about; last seen: %v", what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kubeconfig writes one that leads to the API server by an address.
func (w *world) kubeconfig(t *testing.T, address string) string {
	t.Helper()
	cfg := rest.CopyConfig(w.cluster.Kedge(t))
	cfg.Host = "https://" + address
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := w.cluster.WriteKubeconfig(path, cfg); err != nil {
		t.Fatal(err)
	}
	return path
}
