package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/test/testbed"
)

// badWorld is what the commands of the bad-input table meet: a cluster, a bucket, good and hostile locations, files.
type badWorld struct {
	dir     string
	env     []string
	values  map[string]string
	secrets []string
	bucket  *testbed.Bucket
	cluster *kube.Client
}

func newBadWorld(t *testing.T) *badWorld {
	t.Helper()
	w := &badWorld{dir: t.TempDir(), bucket: testbed.NewBucket(t)}
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "TMPDIR=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true",
		"KEDGE_CONFIG=" + w.path("config.yaml"), "KEDGE_STATE_DIR=" + w.path("state"), "KUBECONFIG=" + w.path("kubeconfig"),
	}
	w.values = map[string]string{"WORK": w.dir, "S3": w.bucket.Endpoint, "BUCKET": w.bucket.Name, "LONG": strings.Repeat("x", 300), "HUGE": strings.Repeat("a,", 10001) + "a"}
	w.writeFiles(t)
	w.startCluster(t)
	w.startServers(t)
	w.makeLocations(t)
	w.forgeLocations(t)
	return w
}

func (w *badWorld) path(name string) string { return filepath.Join(w.dir, name) }

func (w *badWorld) write(t *testing.T, name, content string) {
	t.Helper()
	writeFile(t, w.path(name), []byte(content))
}

// run runs a command that must succeed.
func (w *badWorld) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kedge", args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kedge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// writeFiles copies the files that are written by hand and makes those that are too large or too odd for that.
func (w *badWorld) writeFiles(t *testing.T) {
	t.Helper()
	if err := os.CopyFS(w.dir, os.DirFS(filepath.Join("testdata", "badinput", "files"))); err != nil {
		t.Fatal(err)
	}
	w.write(t, "huge.yaml", strings.Repeat("# a long comment\n", 300000))
	w.write(t, "binary.yaml", "\x00\x01\x02\xff\xfe kedge")
	w.write(t, "deep.yaml", "apiVersion: kedge.dev/v1alpha1\nkind: Backup\nspec: "+strings.Repeat("[", 20000))
	w.write(t, "bomb.yaml", yamlBomb())
	w.write(t, "empty.yaml", "")
	w.write(t, "credentials", fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n[wrong]\naws_access_key_id = %s\naws_secret_access_key = not-the-secret-key\n[unknown]\naws_access_key_id = AKIAUNKNOWN\naws_secret_access_key = whatever\n",
		w.bucket.AccessKey, w.bucket.SecretKey, w.bucket.AccessKey))
	w.secrets = append(w.secrets, w.bucket.SecretKey)
	if err := os.MkdirAll(w.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"sign.pem": {"genpkey", "-algorithm", "ed25519"}, "other.pem": {"genpkey", "-algorithm", "ed25519"},
		"rsa.pem": {"genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"},
	} {
		if out, err := exec.CommandContext(t.Context(), "openssl", append(args, "-out", w.path(name))...).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
		public := strings.TrimSuffix(name, ".pem") + ".pub"
		if out, err := exec.CommandContext(t.Context(), "openssl", "pkey", "-in", w.path(name), "-pubout", "-out", w.path(public)).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
	}
}

// yamlBomb is the "billion laughs" in YAML.
func yamlBomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: kedge.dev/v1alpha1\nkind: Backup\na: &a [x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c <= 'i'; c++ {
		fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	return b.String()
}

// startCluster takes a cluster of its own, without controllers, so that it is quiet, and writes kubeconfigs, good and bad.
func (w *badWorld) startCluster(t *testing.T) {
	t.Helper()
	cluster := testbed.NewCluster(t, "1.36.3", testbed.NoControllers())
	err := cluster.ApplyYAML(t.Context(), `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop}
data: {password: dmVyeS1zZWNyZXQ=}
`)
	if err != nil {
		t.Fatal(err)
	}
	w.secrets = append(w.secrets, "dmVyeS1zZWNyZXQ=", "very-secret")
	good := cluster.Kedge(t)
	few, err := cluster.ServiceAccountConfigWithRules(t.Context(), "few", []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}}})
	if err != nil {
		t.Fatal(err)
	}
	stranger := rest.CopyConfig(good)
	stranger.BearerToken = "not-a-token-of-this-cluster"
	dead := rest.CopyConfig(good)
	dead.Host = "https://127.0.0.1:1"
	distrust := rest.CopyConfig(good)
	distrust.CAData, distrust.CAFile = nil, ""
	for name, cfg := range map[string]*rest.Config{"kubeconfig": good, "few.kubeconfig": few, "stranger.kubeconfig": stranger, "dead.kubeconfig": dead, "distrust.kubeconfig": distrust} {
		if err := cluster.WriteKubeconfig(w.path(name), cfg); err != nil {
			t.Fatal(err)
		}
	}
	w.secrets = append(w.secrets, good.BearerToken, "not-a-token-of-this-cluster")
	if w.cluster, err = kube.New(cluster.Master(), kube.Options{Now: time.Now}); err != nil {
		t.Fatal(err)
	}
}

// startServers starts an HTTP server that is neither S3 nor Kubernetes.
func (w *badWorld) startServers(t *testing.T) {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<html><body>It works!</body></html>")
	}))
	t.Cleanup(web.Close)
	w.values["WEB"] = web.URL
	w.write(t, "web.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: web, cluster: {server: %q}}]
contexts: [{name: web, context: {cluster: web}}]
current-context: web
`, web.URL))
}

// makeLocations makes a good location in a folder with one backup, and one in the bucket.
func (w *badWorld) makeLocations(t *testing.T) {
	t.Helper()
	w.run(t, "location", "create", "good", "--path", "good", "--generate-age-identity", "identity.txt")
	w.run(t, "backup", "create", "nightly", "--include-namespaces", "shop")
	identity, err := readIdentities(w.path("identity.txt"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "recipients.txt", identity[0].(*age.X25519Identity).Recipient().String()+"\n")
	w.run(t, "location", "create", "signed", "--path", "signed", "--age-recipient", "recipients.txt", "--trusted-key-file", "sign.pub")
	w.run(t, "backup", "create", "nightly", "--include-namespaces", "shop", "--sign-key-file", "sign.pem", "--storage-location", "signed")
	w.run(t, "location", "create", "bucket", "--s3-bucket", w.bucket.Name, "--endpoint", w.bucket.Endpoint, "--path-style", "--region", w.bucket.Region,
		"--credentials-file", "credentials", "--age-recipient", "recipients.txt", "--age-identity-file", "identity.txt")
	w.run(t, "location", "create", "stranger", "--path", "stranger", "--generate-age-identity", "other.txt")
	w.run(t, "location", "add", "frozen", "--path", "good", "--read-only")
	for _, name := range []string{"identity.txt", "other.txt"} {
		data, err := os.ReadFile(w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		w.secrets = append(w.secrets, strings.TrimSpace(string(data[bytes.Index(data, []byte("AGE-SECRET-KEY-")):])))
	}
}

// locationKey opens the private key of a location in a folder.
func (w *badWorld) locationKey(t *testing.T, folder string) *age.X25519Identity {
	t.Helper()
	identities, err := readIdentities(w.path("identity.txt"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.New(v1alpha1.FileLocation{Path: w.path(folder)}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	location, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := location.Unlock(t.Context(), archive.UnlockOptions{Identities: identities})
	if err != nil {
		t.Fatal(err)
	}
	return keys.Identity()
}

// bucketDigest lists the bucket.
func (w *badWorld) bucketDigest(t *testing.T) string {
	t.Helper()
	out, err := w.bucket.Client().ListObjectsV2(t.Context(), &awss3.ListObjectsV2Input{Bucket: aws.String(w.bucket.Name)})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, o := range out.Contents {
		fmt.Fprintf(&b, "s3 %s %s\n", aws.ToString(o.ETag), aws.ToString(o.Key))
	}
	return b.String()
}

// clusterDigest lists every object of the cluster with its resource version, but for what the API server itself renews.
func (w *badWorld) clusterDigest(t *testing.T) string {
	t.Helper()
	discovery, err := w.cluster.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range discovery.Resources {
		if !r.Preferred || !r.Can("list", "create") || slices.Contains([]string{"events", "leases"}, r.Resource) {
			continue
		}
		lines = append(lines, w.listLines(t.Context(), t, r)...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (w *badWorld) listLines(ctx context.Context, t *testing.T, r kube.Resource) []string {
	t.Helper()
	var lines []string
	_, err := w.cluster.List(ctx, kube.ListRequest{Path: r.Path("", "")}, func(raw []byte) error {
		head, err := rawjson.ReadHead(raw)
		lines = append(lines, fmt.Sprintf("%s %s/%s %s", r.GroupResource(), head.Namespace, head.Name, head.ResourceVersion))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// forgeLocations makes one location per way of being damaged or hostile, and registers each with the key of the good one.
func (w *badWorld) forgeLocations(t *testing.T) {
	t.Helper()
	var b strings.Builder
	config, err := os.ReadFile(w.path("config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(config)
	for _, from := range []string{"good", "signed"} {
		changes := forgeries
		if from == "signed" {
			changes = signedForgeries
		}
		key := w.locationKey(t, from)
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			forge(t, w.path(from), w.path(name), key, changes[name])
			fmt.Fprintf(&b, "- apiVersion: kedge.dev/v1alpha1\n  kind: BackupStorageLocation\n  metadata: {name: %s}\n  spec: {publicKey: %s, file: {path: %s}}\n",
				name, key.Recipient(), w.path(name))
		}
	}
	w.write(t, "config.yaml", b.String())
}

// forgeries are the hostile locations. Each is a copy of the good one with its only backup changed.
var forgeries = map[string]func(*forger){
	// what accidents do
	"flipped":   func(f *forger) { f.damage(archive.FileItems, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
	"cut":       func(f *forger) { f.damage(archive.FileItems, func(b []byte) []byte { return b[:len(b)-100] }) },
	"longer":    func(f *forger) { f.damage(archive.FileItems, func(b []byte) []byte { return append(b, "more"...) }) },
	"missing":   func(f *forger) { f.remove(archive.FileIndex) },
	"emptied":   func(f *forger) { f.damage(archive.FileReport, func([]byte) []byte { return nil }) },
	"torn":      func(f *forger) { f.text(f.record, "{\"formatVersion\":1,") },
	"keyless":   func(f *forger) { f.removeAll("keys") },
	"nolayout":  func(f *forger) { f.removeAll("kedge.json") },
	"oddlayout": func(f *forger) { f.text(f.root("kedge.json"), "<html>It works!</html>") },
	"oddkey":    func(f *forger) { f.text(f.root("keys/1.age"), "not an age file\n") },
	"hugekey":   func(f *forger) { f.text(f.root("keys/1.age"), strings.Repeat("x", 1<<20)) },
	"deleted": func(f *forger) {
		uid := f.document()["uid"].(string)
		if err := os.MkdirAll(f.root("tombstones"), 0o700); err != nil {
			f.t.Fatal(err)
		}
		writeSealed(f.t, f.root("tombstones/"+uid+".json"), map[string]any{"layout": 1, "name": "nightly", "uid": uid, "at": "2026-01-01T00:00:00Z"})
	},
	// what enemies do who can write the bucket, but not sign
	"newer": func(f *forger) { f.change(map[string]any{"formatVersion": 99}) },
	"newlayout": func(f *forger) {
		writeSealed(f.t, f.root("kedge.json"), map[string]any{"layout": 9, "id": "x", "publicKey": f.key.Recipient().String()})
	},
	"wrongtypes": func(f *forger) { f.change(map[string]any{"counts": "many", "files": 7}) },
	"renamed":    func(f *forger) { f.change(map[string]any{"name": "weekly"}) },
	"traversal": func(f *forger) {
		f.change(map[string]any{"files": []any{map[string]any{"name": "../../../kedge.json", "size": 1, "sha256": strings.Repeat("0", 64)}}})
	},
	"attempt":    func(f *forger) { f.change(map[string]any{"attempt": "../../../../etc"}) },
	"negative":   func(f *forger) { f.change(map[string]any{"counts": map[string]any{"items": -1, "bytes": -1}}) },
	"hugerecord": func(f *forger) { f.text(f.record, strings.Repeat(" ", 17<<20)) },
	"deeprecord": func(f *forger) { f.text(f.record, strings.Repeat("{\"a\":", 100000)) },
	"otherkey": func(f *forger) {
		f.change(map[string]any{"publicKey": "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"})
	},
	"swappedkeys": func(f *forger) { f.replaceKey() },
	// what enemies do who have the key
	"reportbomb":  func(f *forger) { f.put(archive.FileReport, bomb(f.t, 300<<20)) },
	"logbomb":     func(f *forger) { f.put(archive.FileLog, bomb(f.t, 5<<30)) },
	"tablebomb":   func(f *forger) { f.put(archive.FileTable, bomb(f.t, 100<<20)) },
	"tabletypes":  func(f *forger) { f.put(archive.FileTable, squeeze(f.t, []byte(`{"apis":1,"frames":"none"}`))) },
	"reporttypes": func(f *forger) { f.put(archive.FileReport, squeeze(f.t, []byte(`[1,2,3]`))) },
	"itembomb": func(f *forger) {
		f.frame("configmaps", func(_ []byte, row *archive.Frame) []byte { row.RawSize = 4096; return bomb(f.t, 1<<30) })
	},
	"claimbomb": func(f *forger) {
		f.frame("configmaps", func(_ []byte, row *archive.Frame) []byte { row.RawSize = 1 << 40; return bomb(f.t, 1<<30) })
	},
	"tarpath": func(f *forger) {
		f.frame("configmaps", func(tar []byte, _ *archive.Frame) []byte {
			return replaceName(tar, "resources/configmaps/v1/shop/settings.json", "resources/configmaps/v1/../../../etc/passwd"[:len("resources/configmaps/v1/shop/settings.json")])
		})
	},
	"tarroot": func(f *forger) {
		f.frame("configmaps", func(tar []byte, _ *archive.Frame) []byte {
			return replaceName(tar, "resources/configmaps/v1/shop/settings.json", "/etc/cron.d/v1/shop/settings/settings.json")
		})
	},
	"tarlink": func(f *forger) {
		f.frame("configmaps", func(tar []byte, _ *archive.Frame) []byte {
			tar[156] = '2'
			return replaceName(tar, "\x00nothing", "\x00nothing")
		})
	},
	"hugename": func(f *forger) {
		f.frame("configmaps", func(_ []byte, row *archive.Frame) []byte {
			row.First, row.Last = "shop/"+strings.Repeat("x", 5000), "shop/"+strings.Repeat("x", 5000)
			return make([]byte, 4096)
		})
	},
	"nojson": func(f *forger) {
		f.frame("configmaps", func(tar []byte, _ *archive.Frame) []byte {
			return bytes.ReplaceAll(tar, []byte(`{"apiVersion"`), []byte(`["apiVersion"`))
		})
	},
	"othername": func(f *forger) {
		f.frame("configmaps", func(tar []byte, _ *archive.Frame) []byte {
			return bytes.ReplaceAll(tar, []byte(`"name":"settings"`), []byte(`"name":"kube-dns"`))
		})
	},
}

// signedForgeries are hostile copies of a location whose backup is signed.
var signedForgeries = map[string]func(*forger){
	"unsigned":   func(f *forger) { f.remove(archive.FileSignature) },
	"oddsigning": func(f *forger) { f.text(filepath.Join(f.attempt, archive.FileSignature), "{}") },
	"resealed":   func(f *forger) { f.change(map[string]any{"revision": "1"}) },
}

// damage changes the stored bytes of a file and nothing else.
func (f *forger) damage(name string, change func([]byte) []byte) {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.attempt, name))
	if err != nil {
		f.t.Fatal(err)
	}
	writeFile(f.t, filepath.Join(f.attempt, name), change(data))
}

func (f *forger) remove(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.attempt, name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forger) removeAll(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.root(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forger) text(file, content string) { writeFile(f.t, file, []byte(content)) }

// root is a path of the location's folder: the attempt is at backups/<name>/<uid>/<attempt>.
func (f *forger) root(name string) string {
	return filepath.Join(f.attempt, "..", "..", "..", "..", filepath.FromSlash(name))
}

// replaceKey gives the location another key pair, as who can write the bucket could.
func (f *forger) replaceKey() {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		f.t.Fatal(err)
	}
	writeSealed(f.t, f.root("kedge.json"), map[string]any{"layout": 1, "id": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "created": "2026-01-01T00:00:00Z", "publicKey": identity.Recipient().String()})
}
