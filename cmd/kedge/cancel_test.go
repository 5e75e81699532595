package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/test/testbed"
)

// gate is a proxy before an API server that holds back the requests which closed accepts until they are given up.
type gate struct {
	url     string
	ca      []byte
	arrived chan struct{} // closed when the first request is held back
}

func newGate(t *testing.T, cluster *testbed.Cluster, closed func(*http.Request) bool) *gate {
	t.Helper()
	target, err := url.Parse(cluster.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cluster.CA)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {} // the client is gone
	g := &gate{arrived: make(chan struct{})}
	var once sync.Once
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closed(r) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client has gone
			once.Do(func() { close(g.arrived) })
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that the client gave up
	server.StartTLS()
	t.Cleanup(server.Close)
	g.url = server.URL
	g.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return g
}

// interrupted runs kedge, interrupts it once the gate holds a request back, and gives its exit code and what it said.
func interrupted(t *testing.T, g *gate, env []string, args ...string) (int, string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "kedge", args...)
	cmd.Env, cmd.Stderr = env, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-g.arrived:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("kedge %s asks for nothing that is held back", strings.Join(args, " "))
	case err := <-ended:
		t.Fatalf("kedge %s ends (%v) before anything is held back:\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("kedge %s does not end", strings.Join(args, " "))
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// cancelWorld is a home with a location, and kubeconfigs straight to a cluster and through a gate.
func cancelWorld(t *testing.T, cluster *testbed.Cluster, g *gate) (env []string, direct, gated string) {
	t.Helper()
	dir := t.TempDir()
	env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "KEDGE_CONFIG=" + filepath.Join(dir, "config.yaml"), "KEDGE_STATE_DIR=" + filepath.Join(dir, "state"), "TMPDIR=" + dir}
	cfg := cluster.Kedge(t)
	through := rest.CopyConfig(cfg)
	through.Host, through.TLSClientConfig = g.url, rest.TLSClientConfig{CAData: g.ca}
	direct, gated = filepath.Join(dir, "direct"), filepath.Join(dir, "gated")
	for file, c := range map[string]*rest.Config{direct: cfg, gated: through} {
		if err := cluster.WriteKubeconfig(file, c); err != nil {
			t.Fatal(err)
		}
	}
	mustKedge(t, env, "location", "create", "here", "--path", filepath.Join(dir, "backups"), "--generate-age-identity", filepath.Join(dir, "identity.txt"))
	return env, direct, gated
}

func mustKedge(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kedge", args...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = env, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kedge %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

const cancelObjects = `apiVersion: v1
kind: Namespace
metadata: {name: cancelled}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: first, namespace: cancelled}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: last, namespace: cancelled}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}
`

// TestInterruptedBackup: Ctrl-C in the middle of a backup ends it with code 130, and no backup is there.
func TestInterruptedBackup(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	g := newGate(t, cluster, func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/configmaps") && r.URL.Query().Get("limit") != "1"
	})
	env, direct, gated := cancelWorld(t, cluster, g)
	code, said := interrupted(t, g, env, "backup", "create", "half", "--kubeconfig", gated)
	if code != exitCancelled || !strings.Contains(said, "kedge: cancelled") {
		t.Errorf("exit code %d, said:\n%s", code, said)
	}
	if names := mustKedge(t, env, "backup", "get", "-o", "name"); names != "" {
		t.Errorf("there is a backup: %s", names)
	}
	mustKedge(t, env, "backup", "create", "half", "--kubeconfig", direct)
}

// TestInterruptedRestore: Ctrl-C in the middle of a restore ends it with code 130, and "restore resume" finishes it.
func TestInterruptedRestore(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	if err := cluster.ApplyYAML(t.Context(), cancelObjects); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, cluster, func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/deployments")
	})
	env, direct, gated := cancelWorld(t, cluster, g)
	mustKedge(t, env, "backup", "create", "whole", "--include-namespaces", "cancelled", "--kubeconfig", direct)
	code, said := interrupted(t, g, env, "restore", "create", "half", "--from-backup", "whole", "--namespace-mappings", "cancelled:resumed", "--kubeconfig", gated)
	if code != exitCancelled || !strings.Contains(said, "kedge restore resume half") {
		t.Errorf("exit code %d, said:\n%s", code, said)
	}
	if out := mustKedge(t, env, "restore", "get", "half", "-o", "yaml"); !strings.Contains(out, "phase: Cancelled") {
		t.Errorf("the restore is not cancelled:\n%s", out)
	}
	out := mustKedge(t, env, "restore", "resume", "half", "--kubeconfig", direct)
	if !strings.HasPrefix(out, "Restore half: Completed, ") {
		t.Errorf("resumed: %s", out)
	}
	if out := mustKedge(t, env, "backup", "create", "after", "--include-namespaces", "resumed", "--kubeconfig", direct); !strings.Contains(out, "Completed") {
		t.Errorf("backup of what was restored: %s", out)
	}
	for _, object := range []string{"configmaps resumed/first", "deployments.apps resumed/last"} {
		if out := mustKedge(t, env, "backup", "items", "after", "-o", "name", "-q"); !strings.Contains(out, object+"\n") {
			t.Errorf("%s is missing in:\n%s", object, out)
		}
	}
}
