//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

// spoil makes a way to the cluster and the bucket that loses, delays, cuts and refuses a share of what passes.
func (w *world) spoil(t *testing.T, c *testbed.Cluster, seed uint64, rate float64) (watched, fmt.Stringer, fmt.Stringer) {
	t.Helper()
	s3 := faults.NewProxy(t, w.bucket.Endpoint, nil, faults.Options{Seed: seed, Rate: rate})
	api := faults.NewProxy(t, c.URL, c.CA, faults.Options{Seed: seed + 1000, Rate: rate})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.WriteKubeconfig(path, api.Config(c.Kedge(t))); err != nil {
		t.Fatal(err)
	}
	return watched{config: w.through(t, s3.URL), kubeconfig: path}, s3, api
}

// TestBackupOverBadNetwork: success, or a clear failure that left nothing half.
func TestBackupOverBadNetwork(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.24.17")
	if _, err := apps.Install(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	good := 0
	runs := times(4, 60)
	for i := range runs {
		rate := []float64{0.02, 0.1, 0.3, 0.8}[i%4]
		way, s3, api := w.spoil(t, cluster, uint64(i), rate)
		name := fmt.Sprintf("spoiled-%d", i)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		_, stderr, code := output(ctx, w.command(way.config, "backup", "create", name, "--kubeconfig", way.kubeconfig))
		cancel()
		t.Logf("rate %.2f: exit code %d\n  s3:  %s\n  api: %s\n  %s", rate, code, s3, api, strings.TrimSpace(stderr))
		there := slices.Contains(w.backups(t), name)
		switch {
		case code == 0 && !there:
			t.Errorf("%s: success, but there is no backup", name)
		case code == 0:
			good++
		case code < 0:
			t.Errorf("%s hung or was killed", name)
		case code == exitPartial: // some resources could not be listed: the backup is there and names them
			if !there || !strings.Contains(stderr, "warning: ") {
				t.Errorf("%s failed in part, but does not say of what", name)
			}
		case !strings.HasPrefix(lastLine(stderr, "kedge: "), "kedge: "):
			t.Errorf("%s failed without a message", name)
		}
		if there { // also where the last reply was lost
			w.must(t, "backup", "verify", name, "--deep")
		}
	}
	if good == 0 {
		t.Errorf("not one of %d backups got through, at fault rates from 2 %% on", runs)
	}
}

// TestRestoreOverBadNetwork: what a spoiled restore leaves, resumed over a good network, is what an undisturbed one makes.
func TestRestoreOverBadNetwork(t *testing.T) {
	w, green := newWorld(t), (*testbed.Cluster)(nil)
	func() {
		blue := testbed.NewCluster(t, "1.24.17")
		if _, err := apps.Install(t.Context(), blue); err != nil {
			t.Fatal(err)
		}
		backUpApps(t, w, blue)
		blue.Stop()
	}()
	var want map[string]map[string]any
	for i := range 1 + times(2, 20) {
		green = testbed.NewCluster(t, "1.36.3", testbed.NoControllers())
		straight := kubeconfig(t, green)
		if want == nil {
			w.must(t, restoreApps("undisturbed", straight)...)
			want = dump(t, green)
			green.Stop()
			continue
		}
		rate := []float64{0.05, 0.3}[i%2]
		name := fmt.Sprintf("spoiled-%d", i)
		way, s3, api := w.spoil(t, green, uint64(i), rate)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		_, stderr, code := output(ctx, w.command(way.config, restoreApps(name, way.kubeconfig)...))
		cancel()
		t.Logf("rate %.2f: exit code %d\n  s3:  %s\n  api: %s\n  %s", rate, code, s3, api, strings.TrimSpace(stderr))
		if code < 0 {
			t.Fatalf("%s hung or was killed", name)
		}
		if code != 0 {
			w.again(t, name, straight)
		}
		if diff := cmp.Diff(want, dump(t, green)); diff != "" {
			t.Errorf("%s made another cluster (-undisturbed +spoiled):\n%s\n%s", name, diff, stderr)
		}
		green.Stop()
	}
}

// again resumes a restore, or makes it anew where it ended before it had begun to write.
func (w *world) again(t *testing.T, name, kubeconfig string) {
	t.Helper()
	stdout, stderr, code := w.kedge(t.Context(), "restore", "resume", name, "--kubeconfig", kubeconfig)
	if code == exitNotFound {
		stdout, stderr, code = w.kedge(t.Context(), restoreApps(name, kubeconfig)...)
	}
	if code != 0 {
		t.Fatalf("resuming %s ended with exit code %d\n%s%s", name, code, stdout, stderr)
	}
}

// exitPartial is the exit code for a result that lacks something and names it.
const exitPartial = 3

// exitNotFound is the exit code for what does not exist (docs/exit-codes.md).
const exitNotFound = 4

func backUpApps(t *testing.T, w *world, c *testbed.Cluster) {
	t.Helper()
	w.must(t, "backup", "create", "source", "--kubeconfig", kubeconfig(t, c), "--exclude-namespaces", testbed.AccessNamespace,
		"--exclude-resources", "pods,replicasets,endpointslices,endpoints")
}

func restoreApps(name, kubeconfig string) []string {
	return []string{"restore", "create", name, "--from-backup", "source", "--kubeconfig", kubeconfig, "--wait-timeout", "5s"}
}

// lastLine is the last line of text that starts with prefix.
func lastLine(text, prefix string) string {
	last := ""
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			last = strings.TrimSpace(line)
		}
	}
	return last
}
