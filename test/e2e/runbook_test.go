//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"kedge.dev/kedge/test/testbed"
)

// runbook gives the commands of a section of docs/disaster-recovery.md, as they stand there.
func runbook(t *testing.T, section string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/disaster-recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/disaster-recovery.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(rest)
	if block == nil {
		t.Fatalf("section %q has no commands", section)
	}
	return block[1]
}

// recovery is the cluster, if there is one, in which somebody follows the runbook.
type recovery struct {
	t       *testing.T
	w       *world
	cluster *testbed.Cluster
	backup  string
	stop    func()
}

// follow runs the commands of a section in a shell that stops at the first that fails.
func (r *recovery) follow(section string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 4*time.Minute)
	defer cancel()
	values := filepath.Join(r.w.dir, "values.yaml")
	if err := os.WriteFile(values, []byte("server: {maxRestores: 2}\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-x", "-c", runbook(r.t, section))
	cmd.Env = r.env("BUCKET="+r.w.bucket.Name, "REGION="+r.w.bucket.Region, "IDENTITY="+filepath.Join(r.w.dir, "key.txt"), "IMAGE=registry.example/kedge:test", "BACKUP="+r.backup,
		"VALUES="+values, "LOCATION=main")
	text, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", section, err, text)
	}
	r.t.Logf("%s:\n%s", section, text)
}

// env is the environment of a person, and of the server: the program is in the path, the kubeconfig leads to the cluster, and AWS is reached as its SDK does.
func (r *recovery) env(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "KEDGE_") })
	env = append(append(env, r.w.bucket.Env()...), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"KUBECONFIG="+r.cluster.MasterKubeconfig(), "KEDGE_CONFIG="+filepath.Join(r.t.TempDir(), "config.yaml"), "KEDGE_STATE_DIR="+filepath.Join(r.t.TempDir(), "state"))
	return append(env, more...)
}

// kedge runs one command of somebody who looks on.
func (r *recovery) kedge(args ...string) string {
	r.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = r.env()
	stdout, stderr, code := output(r.t.Context(), cmd)
	if code != 0 {
		r.t.Fatalf("kedge %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// serve plays the Deployment, for which there is no node: a server runs as soon as its definitions and its namespace are there, and is started
// anew when it ends, until stop.
func (r *recovery) serve() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	env := r.env()
	log, err := os.Create(filepath.Join(r.t.TempDir(), "server.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { // ends with stop
		defer close(done)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, binary, "server", "--metrics-address", "0", "--health-address", "0", "--lease-duration", "3s")
			cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
			cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 20*time.Second
			_ = cmd.Run() // how it ends is in its log
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	r.stop = func() {
		cancel()
		<-done
		if text, err := os.ReadFile(log.Name()); err == nil && r.t.Failed() {
			r.t.Logf("the server's log:\n%s", text[max(0, len(text)-8<<10):])
		}
		_ = log.Close()
	}
}

// TestRunbook follows docs/disaster-recovery.md through one disaster after the other: a namespace, Kedge's definitions and namespace, the whole cluster, and
// that without a server. Each time all objects of the application are back.
func TestRunbook(t *testing.T) {
	w := &world{bucket: testbed.NewBucket(t), dir: t.TempDir()}
	r := &recovery{t: t, w: w, cluster: testbed.NewCluster(t, "1.36.3")}
	if err := r.cluster.ApplyYAML(t.Context(), shopOfRunbook); err != nil {
		t.Fatal(err)
	}
	r.kedge("install", "--image", "registry.example/kedge:test")
	r.serve()
	r.kedge("location", "create", "main", "--s3-bucket", w.bucket.Name, "--region", w.bucket.Region, "--generate-age-identity", filepath.Join(w.dir, "key.txt"), "--give-identity-to-server")
	r.kedge("schedule", "create", "daily", "--schedule", "0 1 * * *", "--keep-daily", "7")
	r.kedge("schedule", "run", "daily", "--wait")
	r.backup = strings.TrimSpace(r.kedge("backup", "get", "-o", "name"))
	if r.backup == "" || strings.Contains(r.backup, "\n") {
		t.Fatalf("the backups are %q", r.backup)
	}

	r.lose("shop")
	r.follow("A namespace was deleted")
	r.whole()

	r.loseKedge()
	r.follow("Kedge's definitions or its namespace were deleted")
	r.whole()
	r.stop()

	r.cluster.Stop()
	r.cluster = testbed.NewCluster(t, "1.36.3", testbed.Name("new"))
	r.serve()
	r.follow("The cluster is gone")
	r.whole()
	if names := strings.Fields(r.kedge("backup", "get", "-o", "name")); len(names) != 2 || !slices.Contains(names, r.backup) {
		t.Errorf("after a run in the new cluster the backups are %v", names)
	}
	r.stop()

	r.cluster.Stop()
	r.cluster = testbed.NewCluster(t, "1.36.3", testbed.Name("newer"))
	r.follow("The cluster is gone, and there is no server to be had")
	r.whole()
}

// lose deletes a namespace and waits until it is gone.
func (r *recovery) lose(name string) {
	r.t.Helper()
	clients, err := kubernetes.NewForConfig(r.cluster.Master())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := clients.CoreV1().Namespaces().Delete(r.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
	until(r.t, "namespace "+name+" is gone", func() bool {
		_, err := clients.CoreV1().Namespaces().Get(r.t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// loseKedge deletes Kedge's namespace and its definitions.
func (r *recovery) loseKedge() {
	r.t.Helper()
	r.lose("kedge")
	c, err := dynamic.NewForConfig(r.cluster.Master())
	if err != nil {
		r.t.Fatal(err)
	}
	definitions := c.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	all, err := definitions.List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	lost := 0
	for i := range all.Items {
		if name := all.Items[i].GetName(); strings.HasSuffix(name, ".kedge.dev") {
			if err := definitions.Delete(r.t.Context(), name, metav1.DeleteOptions{}); err != nil {
				r.t.Fatal(err)
			}
			lost++
		}
	}
	if lost < 6 {
		r.t.Fatalf("%d definitions were there to lose", lost)
	}
}

const (
	configsOfRunbook = 20
	appsOfRunbook    = 3
)

// shopOfRunbook is an application whose objects are easily counted.
var shopOfRunbook = func() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
	for n := range configsOfRunbook {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%d, namespace: shop}\ndata: {number: \"%d\"}\n", n, n)
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: secret-%d, namespace: shop}\nstringData: {number: \"%d\"}\n", n, n)
	}
	for n := range appsOfRunbook {
		fmt.Fprintf(&b, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web-%d, namespace: shop}\nspec: {replicas: 1, selector: {matchLabels: {web: \"%d\"}}, "+
			"template: {metadata: {labels: {web: \"%d\"}}, spec: {containers: [{name: web, image: registry.example/web}]}}}\n", n, n, n)
	}
	return b.String()
}()

// whole wants every object of the application back, with its content.
func (r *recovery) whole() {
	r.t.Helper()
	clients, err := kubernetes.NewForConfig(r.cluster.Master())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx := r.t.Context()
	for n := range configsOfRunbook {
		c, err := clients.CoreV1().ConfigMaps("shop").Get(ctx, fmt.Sprint("config-", n), metav1.GetOptions{})
		if err != nil || c.Data["number"] != fmt.Sprint(n) {
			r.t.Errorf("config-%d: %v, %v", n, c.Data, err)
		}
		s, err := clients.CoreV1().Secrets("shop").Get(ctx, fmt.Sprint("secret-", n), metav1.GetOptions{})
		if err != nil || string(s.Data["number"]) != fmt.Sprint(n) {
			r.t.Errorf("secret-%d: %v", n, err)
		}
	}
	for n := range appsOfRunbook {
		if _, err := clients.AppsV1().Deployments("shop").Get(ctx, fmt.Sprint("web-", n), metav1.GetOptions{}); err != nil {
			r.t.Errorf("web-%d: %v", n, err)
		}
	}
}
