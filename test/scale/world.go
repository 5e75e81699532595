//go:build unix

// Package scale runs the built server beside as many schedules and backups as large installations have, with an S3 that is far away, and counts
// what it asks of the API server and of S3, how soon it shows what a bucket holds, and how much memory it takes.
package scale

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

// Version is the API server that is measured with.
const Version = "1.36.3"

const (
	namespace = "kedge" // the server's
	place     = "main"  // the location
)

// Options say how large the world is.
type Options struct {
	Schedules, Backups int
	// Latency is how long each request to S3 takes longer than it does on this machine.
	Latency time.Duration
	// SyncPeriod is how often the server lists the location; zero leaves it to the server.
	SyncPeriod time.Duration
	// Kedge is the path of the built binary.
	Kedge string
	// Dir is a folder for logs and keys.
	Dir string
}

// World is a cluster with schedules and a bucket with backups, which nobody has shown in the cluster yet.
type World struct {
	Client client.Client
	// S3 counts the server's requests.
	S3 *Counts

	opts    Options
	cluster *testbed.Cluster
	store   *testbed.S3
	bucket  *testbed.Bucket
	proxy   *faults.Proxy
	audit   string
	archive *archive.Location
	uid     string // the cluster's
}

// Start makes a world; Close ends it.
func Start(ctx context.Context, opts Options) (_ *World, err error) {
	w := &World{opts: opts, S3: &Counts{}, audit: filepath.Join(opts.Dir, "audit.log")}
	defer func() {
		if err != nil {
			w.Close()
			err = fmt.Errorf("make a world of %d schedules and %d backups: %w", opts.Schedules, opts.Backups, err)
		}
	}()
	for _, step := range []func(context.Context) error{w.startCluster, w.startStore, w.locate, w.fill, w.schedule, w.warm} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close ends the world's servers.
func (w *World) Close() {
	if w.proxy != nil {
		w.proxy.Close()
	}
	if w.store != nil {
		w.store.Stop()
	}
	if w.cluster != nil {
		w.cluster.Stop()
	}
}

// account is as whom the server runs. The API server writes down what that account asks for, and nothing else.
const account = "kedge"

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:` + testbed.AccessNamespace + ":" + account + `"]}
- {level: None}
`

func (w *World) startCluster(ctx context.Context) error {
	policy := filepath.Join(w.opts.Dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	var err error
	// Nothing else works in the cluster, so that the processors are the server's.
	w.cluster, err = testbed.StartCluster(ctx, Version, testbed.NoControllers(), testbed.APIServerFlags(
		"--audit-policy-file="+policy, "--audit-log-path="+w.audit, "--audit-log-mode=blocking"))
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	cfg := w.cluster.Master()
	cfg.QPS = -1
	if w.Client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	texts := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + "}\n"}
	files, err := deploy.CRDs.ReadDir("crds")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := deploy.CRDs.ReadFile("crds/" + file.Name())
		if err != nil {
			return err
		}
		texts = append(texts, string(text))
	}
	if err := w.cluster.ApplyYAML(ctx, texts...); err != nil {
		return err
	}
	var system corev1.Namespace
	err = w.Client.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system)
	w.uid = string(system.UID)
	return err
}

// warm waits until the API server keeps watch over every kind. It begins when one is first asked for, which in other clusters the controllers did long
// before, and refuses watches for a second.
func (w *World) warm(ctx context.Context) error {
	for _, list := range []client.ObjectList{
		&v1alpha1.BackupList{}, &v1alpha1.BackupStorageLocationList{}, &v1alpha1.DeleteBackupRequestList{}, &v1alpha1.DownloadRequestList{}, &v1alpha1.RestoreList{}, &v1alpha1.ScheduleList{},
	} {
		if err := w.Client.List(ctx, list, &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: "0"}}); err != nil {
			return fmt.Errorf("list every kind: %w", err)
		}
	}
	return nil
}

// startStore starts an S3, and the way to it that the server takes.
func (w *World) startStore(ctx context.Context) error {
	var err error
	if w.store, err = testbed.StartS3(ctx, false); err != nil {
		return err
	}
	if w.bucket, err = w.store.MakeBucket(ctx, "scale"); err != nil {
		return err
	}
	w.proxy, err = faults.Start(w.store.Endpoint, nil, faults.Options{Delay: w.opts.Latency, Observe: func(r *http.Request) { w.S3.add(operation(r)) }})
	return err
}

// operation names a request to S3 as its bill does.
func operation(r *http.Request) string {
	if r.Method == http.MethodGet && strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0 {
		return "LIST"
	}
	return r.Method
}

// locate makes the bucket a location, and tells the cluster of it.
func (w *World) locate(ctx context.Context) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	credentials := filepath.Join(w.opts.Dir, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", w.bucket.AccessKey, w.bucket.SecretKey)
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		return err
	}
	near := v1alpha1.S3Location{Bucket: w.bucket.Name, Region: w.bucket.Region, PathStyle: true, Endpoint: w.bucket.Endpoint, CredentialsFile: credentials}
	store, err := location.OpenStore(ctx, &v1alpha1.BackupStorageLocationSpec{S3: &near}, location.StoreOptions{Now: time.Now})
	if err != nil {
		return err
	}
	w.archive, _, err = archive.Init(ctx, store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	far := near
	far.Endpoint, far.CredentialsFile = w.proxy.URL, ""
	far.CredentialsSecret = &v1alpha1.SecretKeyReference{Name: place, Key: "credentials"}
	spec := v1alpha1.BackupStorageLocationSpec{
		S3: &far, AgeRecipients: []string{identity.Recipient().String()},
		AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: place, Key: "identity"},
	}
	if w.opts.SyncPeriod > 0 {
		spec.SyncPeriod = &metav1.Duration{Duration: w.opts.SyncPeriod}
	}
	return errors.Join(
		w.Client.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: place},
			StringData: map[string]string{"identity": identity.String() + "\n", "credentials": text},
		}),
		w.Client.Create(ctx, &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: place}, Spec: spec}),
	)
}

// Synced says whether the server has shown everything that the bucket holds.
func (w *World) Synced(ctx context.Context) (bool, error) {
	var l v1alpha1.BackupStorageLocation
	if err := w.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: place}, &l); err != nil {
		return false, err
	}
	c := meta.FindStatusCondition(l.Status.Conditions, location.Synced)
	return c != nil && c.Status == metav1.ConditionTrue, nil
}

// Check counts the Backup objects; the error says what is wrong with them.
func (w *World) Check(ctx context.Context) error {
	var list v1alpha1.BackupList
	if err := w.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return err
	}
	usable := 0
	for i := range list.Items {
		if s := &list.Items[i].Status; s.Phase == v1alpha1.PhaseCompleted && s.StorageLocation == place {
			usable++
		}
	}
	if len(list.Items) != w.opts.Backups || usable != w.opts.Backups {
		return fmt.Errorf("%d Backup objects are there, %d of them Completed; want %d", len(list.Items), usable, w.opts.Backups)
	}
	return nil
}
