//go:build unix

package download

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/test/testbed"
)

var versions = []string{"1.24.17", "1.36.3"}

const (
	kedge = "kedge"
	shop  = "shop"
	// objects with random labels: their rows do not compress, and are more than one part.
	objects = 900
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// world is a cluster with Kedge's kinds and a served location that has a backup of a namespace.
type world struct {
	client client.Client
	scheme *runtime.Scheme
	place  *archive.Location
	keys   *archive.Keys
	uid    string
}

func newWorld(t *testing.T, version string) *world {
	t.Helper()
	cluster := testbed.SharedCluster(t, version)
	w := &world{scheme: runtime.NewScheme(), uid: "6f1d3c1e-0000-4000-8000-000000000001"}
	texts := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + kedge + "}\n"}
	err := fs.WalkDir(deploy.CRDs, "crds", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := deploy.CRDs.ReadFile(path)
		texts = append(texts, string(text))
		return err
	})
	var b strings.Builder
	for n := range objects {
		random := make([]byte, 40*28)
		if _, err := rand.Read(random); err != nil {
			t.Fatal(err)
		}
		labels := make([]string, 0, 40)
		for i := 0; i+28 <= len(random); i += 28 {
			labels = append(labels, fmt.Sprintf("l%d: x%s", i, hex.EncodeToString(random[i:i+28])))
		}
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%04d, namespace: %s, labels: {%s}}\n", n, shop, strings.Join(labels, ", "))
	}
	if err == nil {
		err = cluster.ApplyYAML(t.Context(), append(texts, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+shop+"}\n"+b.String())...)
	}
	err = errors.Join(err, clientscheme.AddToScheme(w.scheme), v1alpha1.AddToScheme(w.scheme))
	if err != nil {
		t.Fatal(err)
	}
	cfg := cluster.Kedge(t)
	cfg.QPS = -1
	if w.client, err = client.New(cfg, client.Options{Scheme: w.scheme}); err != nil {
		t.Fatal(err)
	}
	w.locate(t, cfg)
	w.serve(t, cfg)
	return w
}

func (w *world) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := w.client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// locate makes the location, the backup in it, and the objects of both.
func (w *world) locate(t *testing.T, cfg *rest.Config) {
	t.Helper()
	folder := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.New(v1alpha1.FileLocation{Path: folder}, file.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w.place, w.keys, err = archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{identity.Recipient()}, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	kc, err := kube.New(cfg, kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	engine := &backup.Engine{Kube: kc, Open: backup.At(w.place), Now: time.Now, Rand: rand.Reader, SpoolDir: t.TempDir()}
	spec := v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{shop}}}
	record, err := engine.Run(t.Context(), backup.Request{Name: "nightly", UID: w.uid, Spec: spec})
	if err != nil || record.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("%+v, %v", record, err)
	}
	w.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "age"}, StringData: map[string]string{"identity": identity.String()}})
	w.create(t, &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "main"}, Spec: v1alpha1.BackupStorageLocationSpec{
		File: &v1alpha1.FileLocation{Path: folder}, AgeIdentitySecret: &v1alpha1.SecretKeyReference{Name: "age", Key: "identity"},
	}})
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "shown", Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: w.uid}}}
	w.create(t, b)
	b.Status.Phase, b.Status.ArchiveUID, b.Status.StorageLocation = v1alpha1.PhaseCompleted, w.uid, "main"
	if err := w.client.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serve(t *testing.T, cfg *rest.Config) {
	t.Helper()
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: w.scheme, Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{kedge: {}}},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	answers := pool.New[*Part](4, 2)
	r := &Reconciler{Client: mgr.GetClient(), Pool: answers, Now: time.Now, Sources: &Sources{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(),
		Registry: &location.Registry{Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Namespace: kedge, PrivateDir: t.TempDir(), Now: time.Now},
	}}
	if err := errors.Join(mgr.Add(manager.RunnableFunc(answers.Run)), r.SetupWithManager(mgr)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return mgr.Start(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) fetch(t *testing.T, spec v1alpha1.DownloadRequestSpec) (string, error) {
	t.Helper()
	var b bytes.Buffer
	err := Fetch(t.Context(), w.client, kedge, spec, &b)
	return b.String(), err
}

// TestDownloads fetches every target on both versions, and compares with what the location holds.
func TestDownloads(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, version)
			t.Run("Backup", w.backup)
			t.Run("Items", w.items)
			t.Run("Volumes", w.volumes)
			t.Run("Verify", w.verify)
			t.Run("Restore", w.restored)
			t.Run("Refused", w.refused)
			t.Run("Cancelled", w.cancelled)
			t.Run("Rights", func(t *testing.T) { w.rights(t, version) })
			var left v1alpha1.DownloadRequestList
			if err := w.client.List(t.Context(), &left, client.InNamespace(kedge)); err != nil || len(left.Items) > 0 {
				t.Errorf("%d requests were left, %v", len(left.Items), err)
			}
		})
	}
}

func (w *world) reader(t *testing.T) *archive.Reader {
	t.Helper()
	entry, err := w.place.Find(t.Context(), w.uid)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := w.place.OpenBackup(t.Context(), entry, w.keys, archive.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return reader
}

func (w *world) backup(t *testing.T) {
	var log bytes.Buffer
	if err := w.reader(t).Log(t.Context(), &log); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shown", "nightly", w.uid} {
		if got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: name}); err != nil || got != log.String() {
			t.Errorf("the log by %s: %q, %v", name, got, err)
		}
	}
	got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupReport, Name: "shown"})
	var report archive.Report
	if err != nil || json.Unmarshal([]byte(got), &report) != nil {
		t.Errorf("the report: %q, %v", got, err)
	}
	want, err := w.reader(t).Item(t.Context(), plugins.Ref{Resource: "configmaps", Namespace: shop, Name: "config-0007"})
	if err != nil {
		t.Fatal(err)
	}
	item := &v1alpha1.ItemReference{Resource: "configmaps", Namespace: shop, Name: "config-0007"}
	if got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItem, Name: "shown", Item: item}); err != nil || got != string(want) {
		t.Errorf("the item: %q, %v", got, err)
	}
}

// volumes fetches where the data of volumes is: of a backup that has some, and of one that has none.
func (w *world) volumes(t *testing.T) {
	row := archive.Volume{
		Namespace: shop, Claim: "data", Volume: "pv-1", Provider: "ebs", Source: plugins.Volume{Handle: "vol-1", SizeBytes: 1 << 30}, Taken: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		SnapshotID: "snap-1", CopyID: "copy-1", CopyKind: "blocks",
	}
	opts := archive.WriteOptions{Name: "volumes", UID: "volumes-uid", SpoolDir: t.TempDir(), Kedge: "v0.0.0-test", Now: time.Now, Rand: rand.Reader}
	_, err := w.place.Write(t.Context(), opts, func(context.Context, *archive.Writer) (*archive.Summary, error) {
		now := time.Now()
		return &archive.Summary{Cluster: v1alpha1.ClusterInfo{UID: "blue"}, Phase: v1alpha1.PhaseCompleted, Started: now, Completed: now, Volumes: []archive.Volume{row}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupVolumes, Name: "volumes"})
	var read archive.Volume
	if err != nil || json.Unmarshal([]byte(got), &read) != nil || read.CopyID != row.CopyID || read.Source.Handle != row.Source.Handle || strings.Count(got, "\n") != 1 {
		t.Errorf("the volumes: %q, %v", got, err)
	}
	if got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupVolumes, Name: "shown"}); err != nil || got != "" {
		t.Errorf("the volumes of a backup without any: %q, %v", got, err)
	}
}

// items lists more rows than a part takes, and some.
func (w *world) items(t *testing.T) {
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	if err := w.reader(t).Rows(t.Context(), nil, func(_ int, row archive.Row) error { return encoder.Encode(row) }); err != nil {
		t.Fatal(err)
	}
	if want.Len() < 4*fullAt { // half of it is left when it is compressed
		t.Fatalf("%d bytes of rows fit into one part", want.Len())
	}
	got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItems, Name: "shown"})
	if err != nil || got != want.String() {
		t.Errorf("%d bytes of rows, want %d: %v", len(got), want.Len(), err)
	}
	some := &v1alpha1.Selection{IncludedResources: []string{"namespaces"}}
	got, err = w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItems, Name: "shown", Selection: some})
	if err != nil || strings.Count(got, "\n") != 1 || !strings.Contains(got, `"name":"shop"`) {
		t.Errorf("of the namespaces: %q, %v", got, err)
	}
}

func (w *world) verify(t *testing.T) {
	for _, deep := range []bool{false, true} {
		got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupVerify, Name: "shown", Deep: deep})
		var v Verification
		if err != nil || json.Unmarshal([]byte(got), &v) != nil || !v.OK || v.Deep != deep || v.UID != w.uid || deep && v.Items < objects {
			t.Errorf("deep %v: %s, %v", deep, got, err)
		}
	}
}

// restored has the report and the log of a restore in Secrets, and of one without an object in the location only.
func (w *world) restored(t *testing.T) {
	o := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "back"}, Spec: v1alpha1.RestoreSpec{BackupName: "nightly"}}
	w.create(t, o)
	store := &journal.Store{Client: w.client, Lister: w.client, Owner: o, Writer: "test"}
	log := &journal.Log{}
	if _, err := io.WriteString(log, "{\"msg\":\"hello\"}\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreReport, Name: "back"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not come to its end") {
		t.Errorf("a report that is not there: %v", err)
	}
	err := errors.Join(log.Keep(t.Context(), store), journal.PutReport(t.Context(), store, &restore.Report{Name: "back", UID: string(o.UID)}),
		restore.ToLocation(w.place).PutReport(t.Context(), &restore.Report{Name: "gone", UID: "gone-uid"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreLog, Name: "back"}); err != nil || got != "{\"msg\":\"hello\"}\n" {
		t.Errorf("the log: %q, %v", got, err)
	}
	for _, name := range []string{"back", "gone"} {
		got, err := w.fetch(t, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreReport, Name: name})
		var report restore.Report
		if err != nil || json.Unmarshal([]byte(got), &report) != nil || report.Name != name {
			t.Errorf("the report of %s: %q, %v", name, got, err)
		}
	}
}

func (w *world) refused(t *testing.T) {
	ask := func(target v1alpha1.DownloadTarget, name string) v1alpha1.DownloadRequestSpec {
		return v1alpha1.DownloadRequestSpec{Target: target, Name: name}
	}
	lacks := ask(v1alpha1.DownloadBackupItem, "shown")
	lacks.Item = &v1alpha1.ItemReference{Resource: "secrets", Namespace: shop, Name: "never"}
	wrong := ask(v1alpha1.DownloadBackupItems, "shown")
	wrong.Selection = &v1alpha1.Selection{Expression: "object."}
	for name, c := range map[string]struct {
		spec v1alpha1.DownloadRequestSpec
		want string
	}{
		"no backup":     {ask(v1alpha1.DownloadBackupLog, "never"), "find backup never"},
		"no restore":    {ask(v1alpha1.DownloadRestoreLog, "never"), "find restore never"},
		"no report":     {ask(v1alpha1.DownloadRestoreReport, "never"), "find restore never"},
		"no item":       {lacks, "no such object"},
		"bad selection": {wrong, "spec.expression"},
	} {
		if got, err := w.fetch(t, c.spec); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) || got != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// What the API server of a newer version refuses itself, the server does.
	if got, err := w.fetch(t, ask(v1alpha1.DownloadBackupItem, "shown")); err == nil || !strings.Contains(err.Error(), "item") || got != "" {
		t.Errorf("no item named: %q, %v", got, err)
	}
	request := &v1alpha1.DownloadRequest{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "by-hand"}, Spec: ask(v1alpha1.DownloadBackupLog, "shown")}
	request.Spec.Recipient = "age1" + strings.Repeat("q", 58)
	w.create(t, request)
	status, err := follow(t.Context(), w.client, request)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "spec.recipient") {
		t.Errorf("%+v, %v", status, err)
	}
	if err := w.client.Delete(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}

// cancelled gives up while the answer is written: the requests are removed all the same.
func (w *world) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Fetch(ctx, w.client, kedge, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItems, Name: "shown"}, writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fetch ended with %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// rights asks as an account without any: it gets nothing. And what a reader of requests sees is not the answer.
func (w *world) rights(t *testing.T, version string) {
	cfg, err := testbed.SharedCluster(t, version).ServiceAccountConfigWithRules(t.Context(), "nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := client.New(cfg, client.Options{Scheme: w.scheme, Mapper: w.client.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err = Fetch(t.Context(), nobody, kedge, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: "shown"}, &b)
	if err == nil || b.Len() > 0 || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("an account without rights got %q, %v", b.String(), err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	request := &v1alpha1.DownloadRequest{ObjectMeta: metav1.ObjectMeta{Namespace: kedge, Name: "seen"}, Spec: v1alpha1.DownloadRequestSpec{
		Target: v1alpha1.DownloadBackupItem, Name: "shown", Recipient: id.Recipient().String(), Item: &v1alpha1.ItemReference{Resource: "namespaces", Name: shop},
	}}
	w.create(t, request)
	status, err := follow(t.Context(), w.client, request)
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openPart(status.Data, other, io.Discard); err == nil || bytes.Contains(status.Data, []byte(shop)) {
		t.Errorf("who is not the recipient reads the answer: %v", err)
	}
	if n, err := openPart(status.Data, id, io.Discard); err != nil || n == 0 {
		t.Errorf("the recipient reads %d bytes, %v", n, err)
	}
	if err := w.client.Delete(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}
