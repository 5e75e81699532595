//go:build unix

// Package e2e_test drives the built binary against real API servers and real S3, and disturbs it: kills, bad networks.
package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

// binary is the kedge under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(testbed.WithKedge(m, &binary))
}

// soak says whether the long versions of the tests are asked for.
func soak() bool { return os.Getenv("KEDGE_SOAK") != "" }

// times is how often something is tried: n in a soak, few else.
func times(few, n int) int {
	if soak() {
		return n
	}
	return few
}

// world is a bucket with a location in it, reached through proxies that watch and, where asked, spoil what passes.
type world struct {
	bucket *testbed.Bucket
	dir    string
	config string   // the configuration that leads straight to the bucket
	env    []string // more for its commands
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{bucket: testbed.NewBucket(t), dir: t.TempDir()}
	w.config = filepath.Join(w.dir, "config.yaml")
	w.must(t, "location", "create", "main", "--s3-bucket", w.bucket.Name, "--endpoint", w.bucket.Endpoint,
		"--region", w.bucket.Region, "--path-style", "--generate-age-identity", filepath.Join(w.dir, "key.txt"))
	return w
}

// through writes a configuration whose location is reached at another URL.
func (w *world) through(t *testing.T, url string) string {
	t.Helper()
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	led := strings.ReplaceAll(string(text), w.bucket.Endpoint, url)
	if led == string(text) {
		t.Fatalf("the configuration does not name %s", w.bucket.Endpoint)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(led), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// command is a kedge command with a configuration.
func (w *world) command(config string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), w.bucket.Env()...)
	cmd.Env = append(append(cmd.Env, w.env...), "KEDGE_LOCAL=true", "KEDGE_CONFIG="+config, "KEDGE_STATE_DIR="+filepath.Join(w.dir, "state"))
	return cmd
}

// kedge runs a command on the straight way and returns its output and exit code.
func (w *world) kedge(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	return output(ctx, w.command(w.config, args...))
}

func output(ctx context.Context, cmd *exec.Cmd) (stdout, stderr string, code int) {
	var out, talk strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Start(); err != nil {
		return "", err.Error(), -1
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with the call
		select {
		case <-ctx.Done():
			_ = cmd.Process.Kill()
		case <-ended:
		}
	}()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		code = -1
	}
	return out.String(), talk.String(), code
}

func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := w.kedge(t.Context(), args...)
	if code != 0 {
		t.Fatalf("kedge %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// backups are the names of the backups that the location shows.
func (w *world) backups(t *testing.T) []string {
	t.Helper()
	var list v1alpha1.BackupList
	if err := json.Unmarshal([]byte(w.must(t, "backup", "get", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names
}

// kubeconfig writes one for the account that Kedge runs as.
func kubeconfig(t *testing.T, c *testbed.Cluster) string {
	t.Helper()
	path, err := c.Kubeconfig(c.Kedge(t))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// watcher sees the requests that pass proxies and knows from them in which step of its work a program is. It can hold the
// program in a step: the request that begins it is not let through.
type watcher struct {
	classify func(*http.Request) string

	mu   sync.Mutex
	step string
	hold string
	held chan struct{}
	free chan struct{}
	// holding says that a request is held: the program is in its step, whatever it does beside it.
	holding bool
}

func newWatcher(classify func(*http.Request) string) *watcher {
	return &watcher{classify: classify, step: "start"}
}

// begin forgets what was seen; hold names the step to hold the program in, or none.
func (w *watcher) begin(hold string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step, w.hold, w.holding = "start", hold, false
	w.held, w.free = make(chan struct{}), make(chan struct{})
}

// release lets held requests go.
func (w *watcher) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.free)
}

// observe is a faults.Options.Observe.
func (w *watcher) observe(r *http.Request) {
	step := w.classify(r)
	if step == "" {
		return
	}
	w.mu.Lock()
	if !w.holding {
		w.step = step
	}
	held, free := w.held, w.free
	hold := w.hold != "" && step == w.hold
	if hold {
		w.hold, w.holding = "", true
	}
	w.mu.Unlock()
	if hold {
		close(held)
		<-free
	}
}

func (w *watcher) now(string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.step
}

// watched is a way to the cluster and the bucket on which the watcher sees every request.
type watched struct{ config, kubeconfig string }

func (w *world) watch(t *testing.T, c *testbed.Cluster, watch *watcher) watched {
	t.Helper()
	s3 := faults.NewProxy(t, w.bucket.Endpoint, nil, faults.Options{Observe: watch.observe})
	api := faults.NewProxy(t, c.URL, c.CA, faults.Options{Observe: watch.observe})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.WriteKubeconfig(path, api.Config(c.Kedge(t))); err != nil {
		t.Fatal(err)
	}
	return watched{config: w.through(t, s3.URL), kubeconfig: path}
}
