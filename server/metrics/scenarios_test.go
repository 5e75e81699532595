package metrics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
)

// world is a healthy server's, until a scenario spoils it.
type world struct {
	schedule   *v1alpha1.Schedule
	location   *v1alpha1.BackupStorageLocation
	backup     *v1alpha1.Backup
	restore    *v1alpha1.Restore
	more       []client.Object
	unreadable bool
	waiting    bool // for the lease
	// busy is what happens in an hour; it is counted twice, once before the first scrape.
	busy func(r *Recorder)
}

func healthyWorld() *world {
	condition := func(kind string) metav1.Condition { return metav1.Condition{Type: kind, Status: metav1.ConditionTrue} }
	w := &world{
		schedule: &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Name: "hourly"}},
		location: &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: "main"}},
		backup:   backupObject("hourly-1", "hourly", "main", "own", v1alpha1.PhaseCompleted, -30*time.Minute),
		restore:  &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "r"}},
		busy:     func(*Recorder) {},
	}
	w.schedule.Status = v1alpha1.ScheduleStatus{
		LastRun: at(-30 * time.Minute), NextRun: at(30 * time.Minute), LastSuccess: at(-29 * time.Minute), Conditions: []metav1.Condition{condition("Ready"), condition("Healthy")},
	}
	w.location.Status = v1alpha1.BackupStorageLocationStatus{
		Backups: 1, LastSyncTime: at(-30 * time.Second), LastValidationTime: at(-30 * time.Second), Conditions: []metav1.Condition{condition("Ready"), condition("Synced"), condition("Retained"), condition("Maintained")},
	}
	w.restore.Status = v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseCompleted, StartTime: at(-20 * time.Minute), CompletionTime: at(-10 * time.Minute)}
	return w
}

func times(n int, do func()) {
	for range n {
		do()
	}
}

// scenarios induce one fault each; the key is the alert that it is for, and others are those that the same fault sets off.
var scenarios = map[string]struct {
	spoil  func(w *world)
	others []string
}{
	"Healthy":              {spoil: func(*world) {}},
	"KedgeNoLeader":        {spoil: func(w *world) { w.waiting = true }},
	"KedgeStateUnreadable": {spoil: func(w *world) { w.unreadable = true }},
	"KedgeAPIThrottled": {spoil: func(w *world) {
		w.busy = func(r *Recorder) { times(3600, func() { r.Throttled("429 TooManyRequests", 2*time.Second) }) }
	}},
	"KedgeNotificationsFailing": {spoil: func(w *world) {
		w.busy = func(r *Recorder) { times(20, func() { r.NotifyRetried("ops") }) }
	}},
	"KedgeScheduleStopped":   {spoil: func(w *world) { w.schedule.Status.NextRun = at(-20 * time.Minute) }},
	"KedgeScheduleUnhealthy": {spoil: func(w *world) { w.schedule.Status.Conditions[1].Status = metav1.ConditionFalse }},
	"KedgeScheduleInvalid":   {spoil: func(w *world) { w.schedule.Status.Conditions[0].Status = metav1.ConditionFalse }},
	"KedgeSchedulePaused":    {spoil: func(w *world) { w.schedule.Spec.Paused, w.schedule.Status.NextRun = true, nil }},
	"KedgeBackupTooOld": {spoil: func(w *world) {
		w.backup.Status.StartTime, w.schedule.Status.LastSuccess = at(-4*time.Hour), at(-4*time.Hour+time.Minute)
	}},
	"KedgeNoRestorableBackup": {spoil: func(w *world) { w.backup.Status.Cluster.UID = "other" }}, // ours is gone, another's is there
	"KedgeBackupsIncomplete": {spoil: func(w *world) {
		w.backup.Status.Phase = v1alpha1.PhasePartiallyFailed
		for _, name := range []string{"hourly-0", "hourly-9"} {
			w.more = append(w.more, backupObject(name, "hourly", "main", "own", v1alpha1.PhasePartiallyFailed, -2*time.Hour))
		}
	}},
	"KedgeBackupFailed": {spoil: func(w *world) {
		w.more = append(w.more, backupObject("by-hand", "", "main", "", v1alpha1.PhaseFailed, -10*time.Minute))
	}},
	"KedgeBackupRunsLong": {spoil: func(w *world) {
		w.more = append(w.more, backupObject("by-hand", "", "main", "", v1alpha1.PhaseInProgress, -7*time.Hour))
	}},
	"KedgeRestoreFailed": {spoil: func(w *world) { w.restore.Status.Phase = v1alpha1.PhasePartiallyFailed }},
	"KedgeRestoreRunsLong": {spoil: func(w *world) {
		w.restore.CreationTimestamp, w.restore.Status = *at(-7 * time.Hour), v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseInProgress}
	}},
	"KedgeLocationUnavailable": {spoil: func(w *world) { w.location.Status.Conditions[0].Status = metav1.ConditionFalse }},
	"KedgeSyncStuck":           {spoil: func(w *world) { w.location.Status.LastSyncTime = at(-20 * time.Minute) }},
	"KedgeRetentionStuck":      {spoil: func(w *world) { w.location.Status.Conditions[2].Status = metav1.ConditionUnknown }},
	"KedgeMaintenanceStuck":    {spoil: func(w *world) { w.location.Status.Conditions[3].Status = metav1.ConditionFalse }}, // as with reason CopiesUnknown
	"KedgeStoreErrors": {spoil: func(w *world) {
		w.busy = func(r *Recorder) {
			observe := r.Store("main")
			times(90, func() { observe(context.Background(), decorate.Event{Op: "list"}) })
			times(10, func() {
				observe(context.Background(), decorate.Event{Op: "put", Err: fmt.Errorf("put x: %w", plugins.ErrAccess)})
			})
		}
	}},
}

// TestScenarios writes down what a server exposes under the fault that each alert is for: test/alerts evaluates the rules on it. A scenario is two
// scrapes, an hour apart for what is counted. -update writes the files.
func TestScenarios(t *testing.T) {
	const dir = "../../test/alerts/testdata"
	var files []string
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			w := healthyWorld()
			s.spoil(w)
			fires := s.others
			if name != "Healthy" {
				fires = append([]string{name}, fires...)
			}
			got := fmt.Sprintf("# fires: %s\n# at: %d\n# series, value, and value an hour later\n%s", strings.Join(fires, " "), base.Unix(), w.expose(t))
			path := filepath.Join(dir, name+".txt")
			if *update {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not what a server exposes: run go test ./server/metrics -run TestScenarios -update", path)
			}
		})
		files = append(files, name+".txt")
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range have {
		if !slices.Contains(files, f.Name()) {
			t.Errorf("%s is of no scenario", f.Name())
		}
	}
}

// expose gives every series with two values.
func (w *world) expose(t *testing.T) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	r, err := New(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if !w.waiting {
		r.leader.Set(1)
	}
	objects := append([]client.Object{w.schedule, w.location, w.backup, w.restore}, w.more...)
	cluster := own
	if w.unreadable {
		cluster = func(context.Context) (string, error) { return "", errors.New("no answer") }
	}
	if err := r.Register(State(t.Context(), StateOptions{Client: reader(t, objects...), Namespace: "kedge", OwnCluster: cluster})); err != nil {
		t.Fatal(err)
	}
	w.busy(r)
	first := samples(t, registry)
	w.busy(r)
	last := samples(t, registry)
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(last)) {
		if !strings.Contains(id, " ") || strings.HasSuffix(id, "}") { // a histogram's parts are in no rule
			fmt.Fprintf(&b, "%s\t%v\t%v\n", id, first[id], last[id])
		}
	}
	return b.String()
}
