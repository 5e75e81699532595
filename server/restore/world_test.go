//go:build unix

package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/test/testbed"
)

var versions = []string{"1.24.17", "1.36.3"}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// world is a cluster with Kedge's kinds, a namespace of the test's own for Kedge, and a location with one backup of one namespace of objects, which
// is gone from the cluster.
type world struct {
	cluster *testbed.Cluster
	client  client.Client
	scheme  *runtime.Scheme
	kedge   string // Kedge's namespace
	shop    string // the namespace in the backup
	folder  string
	uid     string // of the backup
}

// sizeOfShop is how many objects manifests makes, with the namespace.
const sizeOfShop = 41

// manifests are the objects of a shop. Those that are applied have a manager of server-side apply.
func manifests(namespace string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", namespace)
	for n := range 20 {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%d, namespace: %s}\ndata: {n: \"%d\"}\n", n, namespace, n)
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: secret-%d, namespace: %s}\nstringData: {n: \"%d\"}\n", n, namespace, n)
	}
	return b.String()
}

func newWorld(t testing.TB, version, name string) *world {
	t.Helper()
	w := &world{cluster: testbed.SharedCluster(t, version), kedge: "kedge-" + name, shop: "shop-" + name, folder: t.TempDir(), uid: string(uuid.NewUUID())}
	texts := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + w.kedge + "}\n"}
	err := fs.WalkDir(deploy.CRDs, "crds", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := deploy.CRDs.ReadFile(path)
		texts = append(texts, string(text))
		return err
	})
	if err == nil {
		err = w.cluster.ApplyYAML(t.Context(), append(texts, manifests(w.shop))...)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.scheme = runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(w.scheme), v1alpha1.AddToScheme(w.scheme)); err != nil {
		t.Fatal(err)
	}
	w.client = w.clientFor(t, w.cluster.Master())
	w.locate(t)
	w.forget(t)
	return w
}

func (w *world) clientFor(t testing.TB, cfg *rest.Config) client.Client {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{Scheme: w.scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// locate makes the location, and the backup in it.
func (w *world) locate(t testing.TB) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.New(v1alpha1.FileLocation{Path: w.folder}, file.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	located, _, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	kc, err := kube.New(w.cluster.Kedge(t), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	engine := &backup.Engine{Kube: kc, Open: backup.At(located), Now: time.Now, Rand: rand.Reader, SpoolDir: t.TempDir()}
	spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{w.shop}, ExcludedResources: []string{"events", "events.events.k8s.io", "serviceaccounts"},
		Expression: `object.kind in ["Namespace", "Secret"] || object.metadata.name.startsWith("config-")`}}
	record, err := engine.Run(t.Context(), backup.Request{Name: "nightly", UID: w.uid, Spec: spec})
	if err != nil || record.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("the backup is %+v, %v", record, err)
	}
	w.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.kedge, Name: "age"}, StringData: map[string]string{"identity": identity.String() + "\n"}})
	for name, readOnly := range map[string]bool{"main": false, "mirror": true} {
		w.create(t, &v1alpha1.BackupStorageLocation{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.kedge, Name: name},
			Spec: v1alpha1.BackupStorageLocationSpec{
				File: &v1alpha1.FileLocation{Path: w.folder}, ReadOnly: readOnly, Default: !readOnly,
				AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: "age", Key: "identity"},
			},
		})
	}
}

// forget removes the shop from the cluster.
func (w *world) forget(t testing.TB) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.shop}}
	if err := client.IgnoreNotFound(w.client.Delete(t.Context(), ns)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of namespace "+w.shop, func(ctx context.Context) (bool, any) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(ns), ns)
		return apierrors.IsNotFound(err), err
	})
}

func (w *world) create(t testing.TB, o client.Object) {
	t.Helper()
	if err := w.client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// restore makes a Restore of the backup.
func (w *world) restore(t testing.TB, name string, change func(*v1alpha1.Restore)) *v1alpha1.Restore {
	t.Helper()
	o := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: w.kedge, Name: name}, Spec: v1alpha1.RestoreSpec{BackupName: "nightly"}}
	o.Spec.WaitTimeout.Duration = 20 * time.Second
	if change != nil {
		change(o)
	}
	w.create(t, o)
	return o
}

// runner makes what carries restores out, through configurations that a test may spoil.
func (w *world) runner(t testing.TB, cfg *rest.Config) *Runner {
	t.Helper()
	c := w.clientFor(t, cfg)
	return &Runner{
		Config: cfg, Client: c, Secrets: c, ClusterName: "world", Version: "test", Namespace: w.kedge, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		NewID: func() string { return string(uuid.NewUUID()) },
	}
}

// serve runs the controller until the returned function, or the end of the test, stops it: as the loss of a lease does.
func (w *world) serve(t testing.TB, cfg *rest.Config, change func(*Reconciler)) (stop func()) {
	t.Helper()
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: w.scheme, Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{w.kedge: {}}},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	runner := w.runner(t, cfg)
	runner.Client, runner.Secrets = mgr.GetClient(), mgr.GetAPIReader()
	restores := pool.New[*restore.Report](4, 4)
	r := &Reconciler{
		Client: mgr.GetClient(), Pool: restores, Runner: runner, Events: mgr.GetEventRecorder("kedge"), Now: time.Now,
		Registry: &location.Registry{Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Namespace: w.kedge, PrivateDir: t.TempDir(), Now: time.Now},
	}
	if change != nil {
		change(r)
	}
	if err := errors.Join(mgr.Add(manager.RunnableFunc(restores.Run)), r.SetupWithManager(mgr)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return mgr.Start(ctx) })
	stop = func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// wait polls until done says so. What it last saw is in the failure.
func wait(t testing.TB, what string, done func(ctx context.Context) (bool, any)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		ok, seen := done(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come about; last seen: %+v", what, seen)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ended waits until a Restore is in a final phase.
func (w *world) ended(t testing.TB, name string) *v1alpha1.Restore {
	t.Helper()
	var o v1alpha1.Restore
	wait(t, "the end of restore "+name, func(ctx context.Context) (bool, any) {
		err := w.client.Get(ctx, client.ObjectKey{Namespace: w.kedge, Name: name}, &o)
		return err == nil && o.Status.Phase.Final(), fmt.Sprintf("%+v, error %v", o.Status, err)
	})
	return &o
}

func ready(t testing.TB, o *v1alpha1.Restore) *metav1.Condition {
	t.Helper()
	c := meta.FindStatusCondition(o.Status.Conditions, "Ready")
	if c == nil {
		t.Fatalf("restore %s has no condition: %+v", o.Name, o.Status)
	}
	return c
}

// state describes what is in the shop, without what differs from run to run: names, data, and the managers of fields.
func (w *world) state(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	var configs corev1.ConfigMapList
	var secrets corev1.SecretList
	err := errors.Join(w.client.List(t.Context(), &configs, client.InNamespace(w.shop)), w.client.List(t.Context(), &secrets, client.InNamespace(w.shop)))
	if err != nil {
		t.Fatal(err)
	}
	managers := func(o client.Object) (all []string) {
		for _, m := range o.GetManagedFields() {
			all = append(all, m.Manager+" "+string(m.Operation))
		}
		return all
	}
	for i := range configs.Items {
		if o := &configs.Items[i]; o.Name != "kube-root-ca.crt" {
			out["configmap "+o.Name] = fmt.Sprint(o.Data, managers(o))
		}
	}
	for i := range secrets.Items {
		if o := &secrets.Items[i]; o.Type != corev1.SecretTypeServiceAccountToken {
			out["secret "+o.Name] = fmt.Sprint(o.Data, managers(o))
		}
	}
	return out
}

// parts counts the Secrets that are kept of a restore, by their part.
func (w *world) parts(t testing.TB, o *v1alpha1.Restore) map[string]int {
	t.Helper()
	var list corev1.SecretList
	if err := w.client.List(t.Context(), &list, client.InNamespace(w.kedge), client.MatchingLabels{"kedge.dev/restore-uid": string(o.UID)}); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for i := range list.Items {
		out[list.Items[i].Labels["kedge.dev/restore-part"]]++
	}
	return out
}
