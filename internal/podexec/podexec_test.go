//go:build unix

package podexec_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/internal/podexec"
	"kedge.dev/kedge/test/podrunner"
	"kedge.dev/kedge/test/testbed"
)

// TestExec runs commands through API servers of both ages, and lets them fail in every way that callers tell apart.
func TestExec(t *testing.T) {
	for _, version := range []string{"1.24.17", "1.36.3"} {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.NewCluster(t, version)
			clients, err := kubernetes.NewForConfig(cluster.Master())
			if err != nil {
				t.Fatal(err)
			}
			kubelet := podrunner.StartKubelet(t, clients, "node-1")
			kubelet.Run(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "db"}, {Name: "sidecar"}}}})
			client, err := podexec.New(cluster.Kedge(t))
			if err != nil {
				t.Fatal(err)
			}
			request := func(argv ...string) podexec.Request {
				return podexec.Request{Namespace: "default", Pod: "db", Container: "sidecar", Command: argv, Timeout: 20 * time.Second}
			}
			succeed(t, client, kubelet, request)
			fail(t, client, cluster, request)
			hold(t, cluster.Kedge(t), request)
		})
	}
}

func succeed(t *testing.T, client *podexec.Client, kubelet *podrunner.Kubelet, request func(...string) podexec.Request) {
	t.Helper()
	if err := client.Exec(t.Context(), request("/bin/sh", "-c", `echo "$1" > here`, "x", "a b&c=d \"ü\"")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(kubelet.Folder("default", "db"), "here"))
	if err != nil || string(text) != "a b&c=d \"ü\"\n" {
		t.Errorf("the command wrote %q, %v", text, err)
	}
	if ran := kubelet.Ran(); len(ran) != 1 || ran[0].Container != "sidecar" {
		t.Errorf("there ran %+v", ran)
	}
	// Output without end neither blocks the command nor fills memory.
	if err := client.Exec(t.Context(), request("/bin/sh", "-c", "yes | head -c 3000000; yes | head -c 3000000 >&2")); err != nil {
		t.Error(err)
	}
}

func fail(t *testing.T, client *podexec.Client, cluster *testbed.Cluster, request func(...string) podexec.Request) {
	t.Helper()
	err := client.Exec(t.Context(), request("/bin/sh", "-c", "echo out; echo first >&2; echo last >&2; exit 42"))
	exit, ok := errors.AsType[*podexec.ExitError](err)
	if !ok || exit.Code != 42 || exit.Output != "first | last" {
		t.Errorf("an exit code: %v", err)
	}
	if exit, ok := errors.AsType[*podexec.ExitError](client.Exec(t.Context(), request("/bin/sh", "-c", "echo out; exit 1"))); !ok || exit.Output != "out" {
		t.Errorf("output to stdout alone: %+v", exit)
	}
	slow := request("sleep", "3")
	slow.Timeout = time.Second
	began := time.Now()
	if err := client.Exec(t.Context(), slow); !errors.Is(err, podexec.ErrTimeout) || time.Since(began) > 3*time.Second {
		t.Errorf("too slow: %v after %s", err, time.Since(began))
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errStopped)
	defer cancel()
	if err := client.Exec(ctx, request("sleep", "3")); !errors.Is(err, errStopped) {
		t.Errorf("cancelled: %v", err)
	}
	for name, change := range map[string]func(*podexec.Request){
		"no such pod": func(r *podexec.Request) { r.Pod = "web" }, "no such container": func(r *podexec.Request) { r.Container = "web" },
	} {
		r := request("true")
		change(&r)
		if err := client.Exec(t.Context(), r); !errors.Is(err, podexec.ErrGone) || !strings.Contains(err.Error(), "web") {
			t.Errorf("%s: %v", name, err)
		}
	}
	nobody, err := cluster.ServiceAccountConfigWithRules(t.Context(), "nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := podexec.New(nobody)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Exec(t.Context(), request("true")); !errors.Is(err, podexec.ErrForbidden) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("who may not: %v", err)
	}
}

var errStopped = errors.New("stopped")

// hold keeps commands back with a gate: one that was never sent has not timed out, and a gate that is shut lets none through.
func hold(t *testing.T, cfg *rest.Config, request func(...string) podexec.Request) {
	t.Helper()
	pass := gate.New(time.Minute, gate.Clocks(time.Now))
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return pass.Transport(next) })
	client, err := podexec.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := request("true")
	r.Timeout = time.Second
	if err := client.Exec(t.Context(), r); err == nil || errors.Is(err, podexec.ErrTimeout) || !strings.Contains(err.Error(), "could not be asked for") {
		t.Errorf("before the lease: %v", err)
	}
	pass.Renewed(pass.Read())
	r.Timeout = 20 * time.Second
	if err := client.Exec(t.Context(), r); err != nil {
		t.Errorf("with the lease: %v", err)
	}
	pass.Shut("over")
	if err := client.Exec(t.Context(), r); !errors.Is(err, gate.ErrShut) {
		t.Errorf("after the lease: %v", err)
	}
}
