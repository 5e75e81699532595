package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
)

var update = flag.Bool("update", false, "write the generated files")

// base is the moment that tests count from.
var base = time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time {
	t := metav1.NewTime(base.Add(d))
	return &t
}

func own(context.Context) (string, error) { return "own", nil }

// reader gives objects as a cache does.
func reader(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		o.SetNamespace("kedge")
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

// samples gathers a registry and gives each series of ours with its value; a histogram's count and sum.
func samples(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			id := f.GetName() + labelsOf(m)
			switch f.GetType() {
			case dto.MetricType_HISTOGRAM:
				out[id+" count"] = float64(m.Histogram.GetSampleCount())
				out[id+" sum"] = m.Histogram.GetSampleSum()
			case dto.MetricType_COUNTER:
				out[id] = m.Counter.GetValue()
			default:
				out[id] = m.Gauge.GetValue()
			}
		}
	}
	return out
}

func labelsOf(m *dto.Metric) string {
	var parts []string
	for _, l := range m.Label {
		parts = append(parts, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(parts) == 0 {
		return ""
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func backupObject(name, schedule, location, cluster string, phase v1alpha1.Phase, start time.Duration) *v1alpha1.Backup {
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: *at(start)}}
	b.Status = v1alpha1.BackupStatus{
		Schedule: schedule, StorageLocation: location, Phase: phase, StartTime: at(start), StoredBytes: 10, Counts: v1alpha1.Counts{Items: 7, Bytes: 700},
	}
	if cluster != "" {
		b.Status.Cluster = &v1alpha1.ClusterInfo{UID: cluster}
	}
	if phase.Final() {
		b.Status.CompletionTime = at(start + time.Minute)
	}
	return b
}

func stateObjects() []client.Object {
	hourly := &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Name: "hourly"}}
	hourly.Status = v1alpha1.ScheduleStatus{
		LastRun: at(-time.Hour), NextRun: at(time.Hour), LastSuccess: at(-time.Hour + time.Minute), MissedRuns: 3, Active: "hourly-4",
		Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}, {Type: "Healthy", Status: metav1.ConditionTrue}},
	}
	paused := &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Name: "paused"}, Spec: v1alpha1.ScheduleSpec{Paused: true}}
	paused.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}, {Type: "Healthy", Status: metav1.ConditionFalse}}
	main := &v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	main.Spec.SyncPeriod = &metav1.Duration{Duration: 5 * time.Minute}
	main.Status = v1alpha1.BackupStorageLocationStatus{
		Backups: 9, LastSyncTime: at(-time.Minute), LastValidationTime: at(0),
		Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}, {Type: "Synced", Status: metav1.ConditionTrue}, {Type: "Retained", Status: metav1.ConditionFalse}, {Type: "Maintained", Status: metav1.ConditionTrue}},
	}
	restored := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "r1"}, Status: v1alpha1.RestoreStatus{Phase: v1alpha1.PhaseFailed, CompletionTime: at(-time.Hour)}}
	waiting := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "r2", CreationTimestamp: *at(-time.Minute)}}
	shown := backupObject("shown", "", "main", "other", v1alpha1.PhaseCompleted, 0) // newer than all, of another cluster
	shown.Annotations = map[string]string{v1alpha1.ArchiveUIDAnnotation: "x"}
	gone := backupObject("gone", "no-such-schedule", "main", "own", v1alpha1.PhaseCompleted, -4*time.Hour)
	return []client.Object{
		hourly, paused, main, restored, waiting, shown, gone,
		&v1alpha1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Name: "new"}},
		backupObject("hourly-1", "hourly", "main", "own", v1alpha1.PhaseCompleted, -3*time.Hour),
		backupObject("hourly-2", "hourly", "main", "own", v1alpha1.PhasePartiallyFailed, -2*time.Hour),
		backupObject("hourly-3", "hourly", "main", "", v1alpha1.PhaseFailed, -time.Hour),
		backupObject("hourly-4", "hourly", "main", "", v1alpha1.PhaseInProgress, -2*time.Minute),
		backupObject("elsewhere", "", "deleted", "own", v1alpha1.PhaseCompleted, -time.Hour),
	}
}

func TestState(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(State(t.Context(), StateOptions{Client: reader(t, stateObjects()...), Namespace: "kedge", OwnCluster: own}))
	unix := func(d time.Duration) float64 { return float64(base.Add(d).Unix()) }
	want := map[string]float64{
		`kedge_state_readable`:                                                                1,
		`kedge_schedule_ready{schedule="hourly"}`:                                             1,
		`kedge_schedule_healthy{schedule="hourly"}`:                                           1,
		`kedge_schedule_paused{schedule="hourly"}`:                                            0,
		`kedge_schedule_active{schedule="hourly"}`:                                            1,
		`kedge_schedule_last_run_timestamp_seconds{schedule="hourly"}`:                        unix(-time.Hour),
		`kedge_schedule_next_run_timestamp_seconds{schedule="hourly"}`:                        unix(time.Hour),
		`kedge_schedule_last_success_timestamp_seconds{schedule="hourly"}`:                    unix(-59 * time.Minute),
		`kedge_schedule_missed_runs_total{schedule="hourly"}`:                                 3,
		`kedge_schedule_unclean_backups_in_a_row{schedule="hourly"}`:                          2,
		`kedge_schedule_last_backup_info{phase="Failed",schedule="hourly"}`:                   1,
		`kedge_schedule_last_backup_duration_seconds{schedule="hourly"}`:                      60,
		`kedge_schedule_last_backup_items{schedule="hourly"}`:                                 7,
		`kedge_schedule_last_backup_errors{schedule="hourly"}`:                                0,
		`kedge_schedule_last_backup_bytes{schedule="hourly"}`:                                 700,
		`kedge_schedule_last_backup_stored_bytes{schedule="hourly"}`:                          10,
		`kedge_schedule_ready{schedule="paused"}`:                                             1,
		`kedge_schedule_healthy{schedule="paused"}`:                                           0,
		`kedge_schedule_paused{schedule="paused"}`:                                            1,
		`kedge_schedule_active{schedule="paused"}`:                                            0,
		`kedge_schedule_last_run_timestamp_seconds{schedule="paused"}`:                        0,
		`kedge_schedule_last_success_timestamp_seconds{schedule="paused"}`:                    0,
		`kedge_schedule_missed_runs_total{schedule="paused"}`:                                 0,
		`kedge_schedule_unclean_backups_in_a_row{schedule="paused"}`:                          0,
		`kedge_backups{location="main",phase="Completed"}`:                                    2,
		`kedge_backups{location="main",phase="PartiallyFailed"}`:                              1,
		`kedge_backups{location="main",phase="Failed"}`:                                       1,
		`kedge_backups{location="main",phase="InProgress"}`:                                   1,
		`kedge_backups{location="",phase="Completed"}`:                                        1,
		`kedge_backup_newest_restorable_timestamp_seconds{location="main",schedule="hourly"}`: unix(-2 * time.Hour),
		`kedge_backup_newest_restorable_timestamp_seconds{location="main",schedule=""}`:       unix(-4 * time.Hour),
		`kedge_backup_last_end_timestamp_seconds{phase="Completed"}`:                          unix(-59 * time.Minute),
		`kedge_backup_last_end_timestamp_seconds{phase="PartiallyFailed"}`:                    unix(-119 * time.Minute),
		`kedge_backup_last_end_timestamp_seconds{phase="Failed"}`:                             unix(-59 * time.Minute),
		`kedge_backup_oldest_unfinished_timestamp_seconds{location="main"}`:                   unix(-2 * time.Minute),
		`kedge_restores{phase="Failed"}`:                                                      1,
		`kedge_restores{phase="New"}`:                                                         1,
		`kedge_restore_last_end_timestamp_seconds{phase="Failed"}`:                            unix(-time.Hour),
		`kedge_restore_oldest_unfinished_timestamp_seconds`:                                   unix(-time.Minute),
		`kedge_location_maintained{location="main"}`:                                          1,
		`kedge_location_ready{location="main"}`:                                               1,
		`kedge_location_synced{location="main"}`:                                              1,
		`kedge_location_retained{location="main"}`:                                            0,
		`kedge_location_last_validation_timestamp_seconds{location="main"}`:                   unix(0),
		`kedge_location_last_sync_timestamp_seconds{location="main"}`:                         unix(-time.Minute),
		`kedge_location_sync_period_seconds{location="main"}`:                                 300,
		`kedge_location_backups{location="main"}`:                                             9,
		`kedge_location_stored_bytes{location="main"}`:                                        60,
		`kedge_location_ready{location="new"}`:                                                0,
		`kedge_location_synced{location="new"}`:                                               0,
		`kedge_location_last_validation_timestamp_seconds{location="new"}`:                    0,
		`kedge_location_last_sync_timestamp_seconds{location="new"}`:                          0,
		`kedge_location_sync_period_seconds{location="new"}`:                                  60,
		`kedge_location_backups{location="new"}`:                                              0,
		`kedge_location_stored_bytes{location="new"}`:                                         0,
	}
	if diff := cmp.Diff(want, samples(t, registry)); diff != "" {
		t.Errorf("the state differs (-want +got):\n%s", diff)
	}
}

// TestStateUnreadable: where the objects cannot be read, a scrape says so and does not fail.
func TestStateUnreadable(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(State(t.Context(), StateOptions{Client: reader(t), Namespace: "kedge", OwnCluster: func(context.Context) (string, error) {
		return "", errors.New("no answer")
	}}))
	if diff := cmp.Diff(map[string]float64{"kedge_state_readable": 0}, samples(t, registry)); diff != "" {
		t.Errorf("the state differs (-want +got):\n%s", diff)
	}
}

// exercise makes every method count something.
func exercise(t *testing.T, r *Recorder) {
	t.Helper()
	r.BackupEnded(backupObject("b", "", "main", "own", v1alpha1.PhaseCompleted, 0))
	r.BackupEnded(backupObject("b", "", "main", "own", v1alpha1.PhaseFailed, 0))
	r.RestoreEnded(&v1alpha1.Restore{Status: v1alpha1.RestoreStatus{
		Phase: v1alpha1.PhasePartiallyFailed, StartTime: at(0), CompletionTime: at(time.Minute), Counts: v1alpha1.RestoreCounts{Created: 4, Updated: 3, Unchanged: 2, Skipped: 1, Failed: 5},
	}})
	r.ItemError(KindBackup, "ListFailed", 2)
	r.ItemError(KindBackup, "reasons are no \"sentences\", they would be labels", 1)
	r.AttemptFailed(KindRestore, "NoKey")
	r.Deleted("main", CauseRetention)
	r.Swept("main", 3)
	r.Throttled("429 TooManyRequests", 1500*time.Millisecond)
	observe := r.Store("main")
	observe(t.Context(), decorate.Event{Op: "put", Bytes: 5, Duration: time.Second})
	observe(t.Context(), decorate.Event{Op: "get", Bytes: 6, Duration: time.Second, Err: fmt.Errorf("get x: %w", plugins.ErrNotFound)})
	observe(t.Context(), decorate.Event{Op: "list", Bytes: 7, Duration: time.Second, Err: errors.New("reset")})
	r.Notified("ops", "Failure", false)
	r.NotifyRetried("ops")
	if err := r.Pool(KindBackup, func() (int, int) { return 2, 1 }); err != nil {
		t.Fatal(err)
	}
}

func TestRecorder(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	r, err := New(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, r)
	want := map[string]float64{
		`kedge_server_info{version="v1"}`: 1, `kedge_server_leader`: 0,
		`kedge_backups_ended_total{location="main",phase="Completed"}`: 1, `kedge_backups_ended_total{location="main",phase="Failed"}`: 1,
		`kedge_backup_duration_seconds{location="main"} count`: 1, `kedge_backup_duration_seconds{location="main"} sum`: 60,
		`kedge_backup_items_total{location="main"}`: 7, `kedge_backup_bytes_total{location="main"}`: 700, `kedge_backup_stored_bytes_total{location="main"}`: 10,
		`kedge_restores_ended_total{phase="Completed"}`: 0, `kedge_restores_ended_total{phase="PartiallyFailed"}`: 1,
		`kedge_restores_ended_total{phase="Failed"}`: 0, `kedge_restores_ended_total{phase="Cancelled"}`: 0,
		`kedge_restore_duration_seconds count`: 1, `kedge_restore_duration_seconds sum`: 60,
		`kedge_restore_items_total{result="created"}`: 4, `kedge_restore_items_total{result="updated"}`: 3, `kedge_restore_items_total{result="unchanged"}`: 2,
		`kedge_restore_items_total{result="skipped"}`: 1, `kedge_restore_items_total{result="failed"}`: 5,
		`kedge_item_errors_total{kind="backup",reason="ListFailed"}`: 2, `kedge_item_errors_total{kind="backup",reason="Other"}`: 1,
		`kedge_attempt_errors_total{kind="restore",reason="NoKey"}`: 1,
		`kedge_deletions_total{cause="retention",location="main"}`:  1, `kedge_swept_objects_total{location="main"}`: 3,
		`kedge_api_throttled_total{reason="429 TooManyRequests"}`: 1, `kedge_api_throttled_seconds_total{reason="429 TooManyRequests"}`: 1.5,
		`kedge_store_requests_total{location="main",operation="put",result="ok"}`:        1,
		`kedge_store_requests_total{location="main",operation="get",result="not_found"}`: 1,
		`kedge_store_requests_total{location="main",operation="list",result="error"}`:    1,
		`kedge_store_request_duration_seconds{location="main",operation="put"} count`:    1,
		`kedge_store_request_duration_seconds{location="main",operation="put"} sum`:      1,
		`kedge_store_request_duration_seconds{location="main",operation="get"} count`:    1,
		`kedge_store_request_duration_seconds{location="main",operation="get"} sum`:      1,
		`kedge_store_request_duration_seconds{location="main",operation="list"} count`:   1,
		`kedge_store_request_duration_seconds{location="main",operation="list"} sum`:     1,
		`kedge_store_bytes_total{direction="written",location="main"}`:                   5,
		`kedge_store_bytes_total{direction="read",location="main"}`:                      6,
		`kedge_pool_queued{kind="backup"}`:                                               2,
		`kedge_pool_running{kind="backup"}`:                                              1,
		`kedge_notifications_total{event="Failure",result="given_up",webhook="ops"}`:     1,
		`kedge_notification_retries_total{webhook="ops"}`:                                1,
	}
	if diff := cmp.Diff(want, samples(t, registry)); diff != "" {
		t.Errorf("the counts differ (-want +got):\n%s", diff)
	}

	r.LocationGone("main")
	for id := range samples(t, registry) {
		if strings.Contains(id, `location="main"`) {
			t.Errorf("%s is there after its location is gone", id)
		}
	}
	r.Close()
	if left := samples(t, registry); len(left) > 0 {
		t.Errorf("after Close the registry still has %v", left)
	}
	if again, err := New(registry, "v1"); err != nil {
		t.Errorf("after Close another recorder cannot be made: %v", err)
	} else {
		again.Close()
	}
}

// TestNilRecorder: whoever is handed no recorder calls it all the same.
func TestNilRecorder(t *testing.T) {
	var r *Recorder
	exercise(t, r)
	r.LocationGone("main")
	r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Lead(ctx); err != nil {
		t.Error(err)
	}
}

func TestLead(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	r, err := New(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Lead(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); samples(t, registry)["kedge_server_leader"] != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the leader does not say so")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := samples(t, registry)["kedge_server_leader"]; got != 0 {
		t.Errorf("after the lease is lost kedge_server_leader is %v", got)
	}
}

// TestTwoServersOfOneProcess: names that are taken are an error that says so, and nothing of the failed recorder stays.
func TestTwoServersOfOneProcess(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	first, err := New(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(registry, "v1"); err == nil {
		t.Error("a second recorder took the names of the first")
	}
	first.Close()
	if left := samples(t, registry); len(left) > 0 {
		t.Errorf("the registry still has %v", left)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	var b bounded
	for i := range maxValues {
		if got := b.value(fmt.Sprintf("Reason%d", i)); got == "Other" {
			t.Fatalf("value %d is already too many", i)
		}
	}
	for v, want := range map[string]string{"Reason0": "Reason0", "OneMore": "Other", "": "Other", "a\nb": "Other", strings.Repeat("x", 64): "Other"} {
		if got := b.value(v); got != want {
			t.Errorf("value(%q) = %q, want %q", v, got, want)
		}
	}
}

// TestCatalogue: what is registered is what the catalogue says, in name, type, labels and help; and names follow Prometheus' rules.
func TestCatalogue(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	r, err := New(registry, "v1")
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, r)
	if err := r.Register(State(t.Context(), StateOptions{Client: reader(t, stateObjects()...), Namespace: "kedge", OwnCluster: own})); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exposed := map[string]*dto.MetricFamily{}
	for _, f := range families {
		exposed[f.GetName()] = f
	}
	for _, d := range Catalogue() {
		f := exposed[d.Name]
		if f == nil {
			t.Errorf("%s is in the catalogue and not exposed", d.Name)
			continue
		}
		delete(exposed, d.Name)
		if got := strings.ToLower(f.GetType().String()); got != string(d.Kind) || f.GetHelp() != d.Help {
			t.Errorf("%s is exposed as a %s, help %q", d.Name, got, f.GetHelp())
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		if want := slices.Sorted(slices.Values(d.Labels)); !slices.Equal(labels, want) {
			t.Errorf("%s has the labels %v, want %v", d.Name, labels, want)
		}
		if strings.HasSuffix(d.Name, "_total") != (d.Kind == Counter) {
			t.Errorf("%s is a %s: counters, and only they, end in _total", d.Name, d.Kind)
		}
	}
	for name := range exposed {
		t.Errorf("%s is exposed and not in the catalogue", name)
	}
}

// TestDocumented: the tables of docs/metrics.md are the catalogue. -update writes them.
func TestDocumented(t *testing.T) {
	const path, begin, end = "../../docs/metrics.md", "<!-- metrics: written by go test ./server/metrics -run TestDocumented -update -->\n", "<!-- end of metrics -->"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks around the metrics", path)
	}
	want := before + begin + table() + end + after
	if want == string(page) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the catalogue says: run go test ./server/metrics -run TestDocumented -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is the catalogue for people.
func table() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, d := range Catalogue() {
		labels := make([]string, len(d.Labels))
		for i, l := range d.Labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Kind, strings.Join(labels, ", "), d.Help)
	}
	return b.String()
}
