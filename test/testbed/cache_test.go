//go:build unix

package testbed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{"1.36.3": "1.36.3", "v1.24.17": "1.24.17", "1.36": "", "latest": "", "1.36.3-rc.0": "", "../1.2.3": "", "": ""} {
		got, _, err := parseVersion(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseVersion(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestKubernetesGoModReplacesStagingModulesOnly(t *testing.T) {
	upstream := `module k8s.io/kubernetes

go 1.19

require k8s.io/api v0.0.0

replace (
	golang.org/x/sync => golang.org/x/sync v0.1.0
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/apimachinery => ./staging/src/k8s.io/apimachinery
)

replace k8s.io/kubectl => ./staging/src/k8s.io/kubectl
`
	want := `module kedge.dev/kedge/test/testbed/kubernetes

go 1.19

require k8s.io/kubernetes v1.24.17

replace (
	k8s.io/api => k8s.io/api v0.24.17
	k8s.io/apimachinery => k8s.io/apimachinery v0.24.17
	k8s.io/kubectl => k8s.io/kubectl v0.24.17
)
`
	if got := kubernetesGoMod(upstream, "1.24.17"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestEnsureBuildsOnceForManyCallers(t *testing.T) {
	t.Setenv(CacheEnv, t.TempDir())
	var builds atomic.Int32
	r := recipe{name: "thing-v1", version: "1", build: func(_ context.Context, _, out string, _ *progress) error {
		builds.Add(1)
		return os.WriteFile(filepath.Join(out, "thing"), []byte("made"), 0o600)
	}}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			dir, err := ensure(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			if data, err := os.ReadFile(filepath.Join(dir, "thing")); err != nil || string(data) != "made" {
				t.Errorf("read what was built: %q, %v", data, err)
			}
		})
	}
	wait.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
}

func TestEnsureLeavesNothingOfAFailedBuild(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(CacheEnv, cache)
	boom := errors.New("boom")
	fail := true
	r := recipe{name: "thing-v1", version: "1", build: func(_ context.Context, _, out string, _ *progress) error {
		if err := os.WriteFile(filepath.Join(out, "thing"), nil, 0o600); err != nil {
			return err
		}
		if fail {
			return boom
		}
		return nil
	}}
	if _, err := ensure(t.Context(), r); !errors.Is(err, boom) || !strings.Contains(err.Error(), "thing-v1") {
		t.Fatalf("ensure = %v", err)
	}
	left, err := os.ReadDir(filepath.Join(cache, "bin"))
	if err != nil || len(left) != 0 {
		t.Fatalf("left in the cache: %v, %v", left, err)
	}
	fail = false
	if _, err := ensure(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func TestReadyMadeProgramsAreUsedForTheVersionTheyReport(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'Kubernetes v1.31.0'\n"
	if err := os.WriteFile(filepath.Join(dir, "kube-apiserver"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	if got := readyMade(t.Context(), "kube-apiserver", "Kubernetes v1.31.0\n"); got != filepath.Join(dir, "kube-apiserver") {
		t.Errorf("program of the version asked for: %q", got)
	}
	if got := readyMade(t.Context(), "kube-apiserver", "Kubernetes v1.31.1\n"); got != "" {
		t.Errorf("program of another version: %q", got)
	}
	if got := readyMade(t.Context(), "kube-controller-manager", "Kubernetes v1.31.0\n"); got != "" {
		t.Errorf("program that is not there: %q", got)
	}
}
