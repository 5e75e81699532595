//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/faults"
	"kedge.dev/kedge/test/testbed"
)

const seed = 20261123

// backupSteps are the steps that a backup's requests tell apart, in their order.
var backupSteps = []string{"discover", "list", "write", "commit"}

func backupStep(r *http.Request) string {
	api := strings.HasPrefix(r.URL.Path, "/api")
	switch {
	case api && r.URL.Query().Has("limit"):
		return "list"
	case api:
		return "discover"
	case r.Method != http.MethodPut && r.Method != http.MethodPost:
		return ""
	case path.Base(r.URL.Path) == "backup.json":
		return "commit"
	case strings.Contains(r.URL.Path, "/backups/"):
		return "write"
	}
	return ""
}

// TestKilledBackups kills backups at random moments of their time and in each of their steps. No half backup ever looks whole: a
// backup is not there, or it is good; and the next attempt succeeds.
func TestKilledBackups(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.24.17")
	if _, err := apps.Install(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	watch := newWatcher(backupStep)
	way := w.watch(t, cluster, watch)
	name := ""
	killer := &faults.Killer{
		Command: func() *exec.Cmd {
			return w.command(way.config, "backup", "create", name, "--kubeconfig", way.kubeconfig)
		},
		Step: watch.now,
	}
	seen := killAll(t, killPlan{
		killer: killer, watch: watch, steps: backupSteps, moments: times(10, 50),
		before: func(i int) { name = fmt.Sprintf("killed-%d", i+1) },
		after: func(o faults.Outcome) {
			if slices.Contains(w.backups(t), name) {
				w.must(t, "backup", "verify", name, "--deep") // the kill came after the commit
				return
			}
			if !o.Killed {
				t.Fatalf("the backup ended without a result: %v\n%s", o.Err, o.Output)
			}
			w.must(t, "backup", "create", name, "--kubeconfig", way.kubeconfig)
			w.must(t, "backup", "verify", name, "--deep")
		},
	})
	t.Logf("kills of backups by step (seed %d):\n%s", seed, seen)
}

// restoreSteps are some of the steps that a restore's requests tell apart: those that each restore of the sample applications has.
var restoreSteps = []string{"read", "crds", "namespaces", "accounts", "volumes", "services", "custom", "workloads", "webhooks", "report"}

func restoreStep(r *http.Request) string {
	if !strings.HasPrefix(r.URL.Path, "/api") {
		switch {
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/restores/"):
			return "report"
		case r.Method == http.MethodGet:
			return "read"
		}
		return ""
	}
	if r.Method != http.MethodPost {
		return ""
	}
	switch resource := path.Base(r.URL.Path); resource {
	case "customresourcedefinitions":
		return "crds"
	case "namespaces":
		return "namespaces"
	case "serviceaccounts":
		return "accounts"
	case "persistentvolumes", "persistentvolumeclaims":
		return "volumes"
	case "services":
		return "services"
	case "caches", "cachepolicies":
		return "custom"
	case "deployments", "statefulsets", "cronjobs":
		return "workloads"
	case "validatingwebhookconfigurations", "mutatingwebhookconfigurations":
		return "webhooks"
	default:
		return "others"
	}
}

// TestKilledRestores kills restores at random moments and in each of their steps. Each, resumed, ends with the cluster that an
// undisturbed one ends with.
func TestKilledRestores(t *testing.T) {
	blue := testbed.NewCluster(t, "1.24.17")
	if _, err := apps.Install(t.Context(), blue); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	backUpApps(t, w, blue)
	blue.Stop()

	watch := newWatcher(restoreStep)
	var green *testbed.Cluster
	var way watched
	defer func() {
		if green != nil {
			green.Stop()
		}
	}()
	fresh := func() {
		if green != nil {
			green.Stop()
		}
		var err error
		if green, err = testbed.StartCluster(t.Context(), "1.36.3", testbed.NoControllers()); err != nil {
			t.Fatal(err)
		}
		way = w.watch(t, green, watch)
	}
	name := ""
	killer := &faults.Killer{
		Command: func() *exec.Cmd {
			return w.command(way.config, restoreApps(name, way.kubeconfig)...)
		},
		Step: watch.now,
	}
	var want map[string]map[string]any
	seen := killAll(t, killPlan{
		killer: killer, watch: watch, steps: restoreSteps, moments: times(3, 50),
		before: func(i int) {
			name = fmt.Sprintf("killed-%d", i+1)
			fresh()
		},
		undisturbed: func() { want = dump(t, green) },
		after: func(o faults.Outcome) {
			w.again(t, name, way.kubeconfig)
			if diff := cmp.Diff(want, dump(t, green)); diff != "" {
				t.Fatalf("killed in step %q; the resumed restore made another cluster (-undisturbed +resumed):\n%s", o.Step, diff)
			}
		},
	})
	t.Logf("kills of restores by step (seed %d):\n%s", seed, seen)
}

// killPlan is one program that is killed again and again.
type killPlan struct {
	killer  *faults.Killer
	watch   *watcher
	steps   []string
	moments int
	// before prepares the i-th run; -1 is the undisturbed one.
	before func(i int)
	// undisturbed looks at what the undisturbed run did; may be nil.
	undisturbed func()
	// after looks at what a kill left.
	after func(faults.Outcome)
}

// killAll measures an undisturbed run, kills at random moments of its time, and then in each step that chance missed.
func killAll(t *testing.T, p killPlan) faults.Histogram {
	t.Helper()
	p.before(-1)
	p.watch.begin("")
	calm, err := p.killer.Undisturbed(t.Context())
	if err != nil || calm.Err != nil {
		t.Fatalf("the undisturbed run failed: %v %v\n%s", err, calm.Err, calm.Output)
	}
	if p.undisturbed != nil {
		p.undisturbed()
	}
	seen := faults.Histogram{}
	runs := 0
	kill := func(hold string, after time.Duration) {
		p.before(runs)
		runs++
		p.watch.begin(hold)
		o, err := p.killer.KillAt(t.Context(), after)
		p.watch.release()
		if err != nil {
			t.Fatal(err)
		}
		seen.Add(o)
		p.after(o)
		t.Logf("run %d: after %s in step %q, killed: %v; right in the end", runs, o.Took.Round(time.Millisecond), o.Step, o.Killed)
	}
	for _, after := range faults.Moments(seed, p.moments, calm.Took) {
		kill("", after)
	}
	missing := seen.Missing(p.steps)
	if !soak() && len(missing) > 2 { // each of them is hit in a soak; here a few, another few each time the steps change
		missing = []string{missing[0], missing[len(missing)-1]}
	}
	for _, step := range missing {
		kill(step, calm.Took+2*time.Second) // it is held in the step until then
	}
	if soak() {
		if missing := seen.Missing(p.steps); len(missing) > 0 {
			t.Errorf("steps never hit: %v\n%s", missing, seen)
		}
	}
	return seen
}
