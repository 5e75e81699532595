//go:build unix

package schedule_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/deploy"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/test/testbed"
)

// versions are the oldest and the newest API server.
var versions = []string{"1.24.17", "1.36.3"}

// place is a namespace of a real API server that knows Kedge's kinds, with a clock that the test sets.
type place struct {
	client.WithWatch
	cluster    *testbed.Cluster
	scheme     *runtime.Scheme
	namespace  string
	now        time.Time
	events     *events.FakeRecorder
	reconciler *schedule.Reconciler
}

var definitions sync.Map // by version: whether they are there

func newPlace(t *testing.T, version string) *place {
	t.Helper()
	cluster := testbed.SharedCluster(t, version)
	once, _ := definitions.LoadOrStore(version, sync.OnceValue(func() error { return applyDefinitions(context.WithoutCancel(t.Context()), cluster) }))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(cluster.Master(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "kedge-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	p := &place{WithWatch: c, cluster: cluster, scheme: scheme, namespace: ns.Name, events: events.NewFakeRecorder(100)}
	p.now = time.Date(2026, 3, 1, 10, 15, 0, 0, time.UTC)
	p.reconciler = p.server(c)
	return p
}

func applyDefinitions(ctx context.Context, cluster *testbed.Cluster) error {
	files, err := fs.Glob(deploy.CRDs, "crds/*.yaml")
	if err != nil {
		return err
	}
	var texts []string
	for _, f := range files {
		text, err := deploy.CRDs.ReadFile(f)
		if err != nil {
			return err
		}
		texts = append(texts, string(text))
	}
	return cluster.ApplyYAML(ctx, texts...)
}

func (p *place) server(c client.Client) *schedule.Reconciler {
	return &schedule.Reconciler{Client: c, Events: p.events, ClusterUID: thisCluster, Marks: p.marks(), Now: func() time.Time { return p.now }}
}

// marks are those of a server that has just started.
func (p *place) marks() *schedule.Marks {
	return &schedule.Marks{Client: p.WithWatch, Namespace: p.namespace, Rand: rand.Reader}
}

// made says whether the schedule's newest run has a Backup that is as this one.
func (p *place) made(t *testing.T, s *v1alpha1.Schedule, b *v1alpha1.Backup) bool {
	t.Helper()
	owner, err := p.marks().Of(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	made, known := owner.Made(b)
	return made && known
}

func thisCluster(context.Context) (string, error) { return "this-cluster", nil }

// schedule creates one, changed by the functions.
func (p *place) schedule(t *testing.T, name string, changes ...func(*v1alpha1.Schedule)) {
	t.Helper()
	s := &v1alpha1.Schedule{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name}, Spec: v1alpha1.ScheduleSpec{Schedule: "@hourly"}}
	for _, change := range changes {
		change(s)
	}
	if err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// at sets the clock, lets the server look, and gives the schedule as it is then.
func (p *place) at(t *testing.T, name, clock string) *v1alpha1.Schedule {
	t.Helper()
	at, err := time.Parse(time.RFC3339, "2026-03-01T"+clock+"Z")
	if err != nil {
		t.Fatal(err)
	}
	p.now = at
	return p.look(t, name)
}

func (p *place) look(t *testing.T, name string) *v1alpha1.Schedule {
	t.Helper()
	if _, err := p.reconciler.Reconcile(t.Context(), p.request(name)); err != nil {
		t.Fatal(err)
	}
	return p.get(t, name)
}

func (p *place) request(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKey{Namespace: p.namespace, Name: name}}
}

func (p *place) get(t *testing.T, name string) *v1alpha1.Schedule {
	t.Helper()
	var s v1alpha1.Schedule
	if err := p.Get(t.Context(), p.request(name).NamespacedName, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// change updates a schedule.
func (p *place) change(t *testing.T, name string, change func(*v1alpha1.Schedule)) {
	t.Helper()
	s := p.get(t, name)
	change(s)
	if err := p.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// backups are the names of the backups of a schedule.
func (p *place) backups(t *testing.T, name string) string {
	t.Helper()
	var list v1alpha1.BackupList
	if err := p.List(t.Context(), &list, client.InNamespace(p.namespace), client.MatchingLabels{v1alpha1.ScheduleLabel: name}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return strings.Join(names, " ")
}

// end ends a backup at the clock's time.
func (p *place) end(t *testing.T, name string, phase v1alpha1.Phase) {
	t.Helper()
	b := p.backup(t, name)
	now := metav1.NewTime(p.now)
	b.Status.Phase, b.Status.StartTime, b.Status.CompletionTime, b.Status.Message = phase, &now, &now, "as the test wants it"
	if b.Status.ObservedGeneration == 0 { // as the server of Backups does
		b.Status.ObservedGeneration, b.Status.Schedule = b.Generation, b.Labels[v1alpha1.ScheduleLabel]
	}
	if err := p.Status().Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func (p *place) backup(t *testing.T, name string) *v1alpha1.Backup {
	t.Helper()
	var b v1alpha1.Backup
	if err := p.Get(t.Context(), client.ObjectKey{Namespace: p.namespace, Name: name}, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func is(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func clockOf(t *metav1.Time) string {
	if t == nil {
		return "none"
	}
	return t.UTC().Format("15:04:05")
}

func condition(s *v1alpha1.Schedule, kind string) string {
	c := meta.FindStatusCondition(s.Status.Conditions, kind)
	if c == nil {
		return "none"
	}
	return string(c.Status) + " " + c.Reason
}

func onEach(t *testing.T, test func(t *testing.T, p *place)) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) { test(t, newPlace(t, version)) })
	}
}

// TestRuns follows one schedule through a day.
func TestRuns(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		p.schedule(t, "demo", func(s *v1alpha1.Schedule) {
			s.Spec.Template.Metadata.Labels = map[string]string{"team": "blue", v1alpha1.ScheduleLabel: "not-this"}
			s.Spec.Template.Metadata.Annotations = map[string]string{"note": "nightly"}
			s.Spec.Template.Spec.TTL = metav1.Duration{Duration: time.Hour}
			s.Spec.UseOwnerReferencesInBackup = true
		})
		s := p.at(t, "demo", "10:15:00")
		is(t, "ready", condition(s, "Ready"), "True Valid")
		is(t, "healthy", condition(s, "Healthy"), "Unknown NoRunYet")
		is(t, "next", clockOf(s.Status.NextRun), "11:00:00")
		is(t, "backups", p.backups(t, "demo"), "")

		p.at(t, "demo", "11:00:01")
		s = p.look(t, "demo")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000")
		is(t, "active", s.Status.Active, "demo-20260301110000")
		is(t, "made", p.made(t, s, p.backup(t, s.Status.Active)) && !p.made(t, &v1alpha1.Schedule{ObjectMeta: s.ObjectMeta}, p.backup(t, s.Status.Active)), true)
		is(t, "last run", clockOf(s.Status.LastRun), "11:00:00")
		is(t, "next", clockOf(s.Status.NextRun), "12:00:00")
		b := p.backup(t, "demo-20260301110000")
		is(t, "labels", b.Labels, map[string]string{"team": "blue", v1alpha1.ScheduleLabel: "demo"})
		is(t, "annotation", b.Annotations["note"], "nightly")
		is(t, "ttl", b.Spec.TTL.Duration, time.Hour)
		if !metav1.IsControlledBy(b, s) {
			t.Errorf("owners: %v", b.OwnerReferences)
		}

		s = p.at(t, "demo", "12:00:00") // waits
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000")
		is(t, "healthy", condition(s, "Healthy"), "Unknown NoRunYet")
		s = p.at(t, "demo", "12:06:00")
		is(t, "healthy", condition(s, "Healthy"), "False RunOverdue")
		s = p.at(t, "demo", "13:00:00")
		is(t, "missed", s.Status.MissedRuns, 1)
		p.end(t, "demo-20260301110000", v1alpha1.PhaseCompleted)
		p.at(t, "demo", "13:20:00")
		s = p.look(t, "demo")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000 demo-20260301130000")
		is(t, "healthy", condition(s, "Healthy"), "True LastRunSucceeded")
		is(t, "last success", s.Status.LastSuccessfulBackup+" "+clockOf(s.Status.LastSuccess), "demo-20260301110000 13:00:00")
		is(t, "active", s.Status.Active+" "+s.Status.LastBackup, "demo-20260301130000 demo-20260301130000")

		p.end(t, "demo-20260301130000", v1alpha1.PhaseFailed)
		s = p.look(t, "demo")
		is(t, "healthy", condition(s, "Healthy"), "False LastRunFailed")
		is(t, "last success", s.Status.LastSuccessfulBackup, "demo-20260301110000")

		// The clock is set back: what was run is not run again, asked for or not.
		s = p.at(t, "demo", "12:59:59")
		s2 := p.at(t, "demo", "13:00:00")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000 demo-20260301130000")
		is(t, "next", clockOf(s.Status.NextRun)+" "+clockOf(s2.Status.NextRun), "14:00:00 14:00:00")

		// A server that was away for long takes the newest of the missed times.
		p.at(t, "demo", "18:30:00")
		s = p.look(t, "demo")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000 demo-20260301130000 demo-20260301180000")
		is(t, "missed", s.Status.MissedRuns, 5)
		var told []string
		for range len(p.events.Events) {
			told = append(told, <-p.events.Events)
		}
		if all := strings.Join(told, "\n"); strings.Count(all, "RunStarted") != 3 || !strings.Contains(all, "4 times passed without a run") {
			t.Errorf("events:\n%s", all)
		}

		// Deleting the Backup that is being made is no reason to wait for it, or to make it again.
		if err := p.Delete(t.Context(), p.backup(t, "demo-20260301180000")); err != nil {
			t.Fatal(err)
		}
		s = p.look(t, "demo")
		is(t, "active", s.Status.Active, "")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000 demo-20260301130000")
	})
}

// TestRunNow asks for runs.
func TestRunNow(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		ask := func(value string) {
			t.Helper()
			p.change(t, "demo", func(s *v1alpha1.Schedule) {
				s.Annotations = map[string]string{v1alpha1.RunRequestedAnnotation: value}
			})
		}
		p.schedule(t, "demo", func(s *v1alpha1.Schedule) {
			s.Spec.Paused = true
			s.Annotations = map[string]string{v1alpha1.RunRequestedAnnotation: "2020-01-01T00:00:00Z"} // came with a copy
		})
		s := p.at(t, "demo", "10:15:00")
		is(t, "backups", p.backups(t, "demo"), "")
		is(t, "next", clockOf(s.Status.NextRun), "none")
		is(t, "healthy", condition(s, "Healthy"), "Unknown Paused")
		ask("one")
		p.at(t, "demo", "10:20:00")
		p.look(t, "demo")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301102000")
		ask("two")
		s = p.look(t, "demo")
		is(t, "backups while one is active", p.backups(t, "demo"), "demo-20260301102000")
		is(t, "request", s.Status.LastRunRequest, "one")
		p.end(t, "demo-20260301102000", v1alpha1.PhaseCompleted)
		p.look(t, "demo")
		s = p.look(t, "demo")
		is(t, "backups in the same second", p.backups(t, "demo"), "demo-20260301102000 demo-20260301102001")
		is(t, "request", s.Status.LastRunRequest, "two")
		p.end(t, "demo-20260301102001", v1alpha1.PhaseCancelled)
		p.change(t, "demo", func(s *v1alpha1.Schedule) { s.Spec.Paused = false })
		s = p.at(t, "demo", "12:30:00")
		is(t, "backups after the pause", p.backups(t, "demo"), "demo-20260301102000 demo-20260301102001")
		is(t, "healthy", condition(s, "Healthy"), "False LastRunCancelled")
		is(t, "next", clockOf(s.Status.NextRun), "13:00:00")
	})
}

// TestCrash lets the server end between its note and the Backup, and lets the API server refuse the Backup.
func TestCrash(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		p.schedule(t, "demo")
		p.at(t, "demo", "10:15:00")
		broken := p.server(interceptor.NewClient(p.WithWatch, interceptor.Funcs{
			Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
				return errors.New("the quota is used up")
			},
		}))
		p.now = p.now.Add(45 * time.Minute)
		if _, err := broken.Reconcile(t.Context(), p.request("demo")); err == nil {
			t.Error("a refused Backup is no error")
		}
		s := p.get(t, "demo")
		is(t, "noted", s.Status.Active, "demo-20260301110000")
		is(t, "healthy", condition(s, "Healthy"), "False RunRefused")
		is(t, "backups", p.backups(t, "demo"), "")
		p.at(t, "demo", "11:40:00")
		s = p.look(t, "demo")
		is(t, "backups", p.backups(t, "demo"), "demo-20260301110000")
		is(t, "healthy", condition(s, "Healthy"), "Unknown NoRunYet")
		is(t, "missed", s.Status.MissedRuns, 0)
	})
}

// TestTwoServers lets several servers that all believe to lead follow one schedule.
func TestTwoServers(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		p.schedule(t, "demo")
		p.at(t, "demo", "10:15:00")
		p.now = time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
		for round := range 5 {
			var wait sync.WaitGroup
			for range 4 {
				wait.Go(func() {
					if _, err := p.reconciler.Reconcile(t.Context(), p.request("demo")); err != nil {
						t.Error(err)
					}
				})
			}
			wait.Wait()
			name := "demo-" + p.now.Format("20060102150405")
			p.look(t, "demo")
			if got := strings.Fields(p.backups(t, "demo")); len(got) != round+1 || got[round] != name {
				t.Fatalf("round %d: %v", round, got)
			}
			p.end(t, name, v1alpha1.PhaseCompleted)
			p.now = p.now.Add(time.Hour)
		}
		is(t, "missed", p.get(t, "demo").Status.MissedRuns, 0)
	})
}

// TestManager runs the controller by a manager, with its watches and the real clock.
func TestManager(t *testing.T) {
	p := newPlace(t, "1.24.17")
	skip := true
	mgr, err := ctrl.NewManager(p.cluster.Kedge(t), ctrl.Options{
		Scheme: p.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{p.namespace: {}}},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &schedule.Reconciler{Client: mgr.GetClient(), Events: mgr.GetEventRecorder("kedge"), ClusterUID: thisCluster, Marks: p.marks(), Now: time.Now}
	if err := r.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	until := func(what string, holds func(*v1alpha1.Schedule) bool) *v1alpha1.Schedule {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if s := p.get(t, "demo"); holds(s) {
				return s
			}
		}
		t.Fatalf("not so after a minute: %s; %+v", what, p.get(t, "demo").Status)
		return nil
	}
	p.schedule(t, "demo", func(s *v1alpha1.Schedule) { s.Spec.Schedule = "@yearly" })
	until("the schedule is followed", func(s *v1alpha1.Schedule) bool { return condition(s, "Ready") == "True Valid" })
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"`+v1alpha1.RunRequestedAnnotation+`":"now"}}}`))
	if err := p.Patch(t.Context(), p.get(t, "demo"), patch); err != nil {
		t.Fatal(err)
	}
	s := until("the run that was asked for has its Backup", func(s *v1alpha1.Schedule) bool {
		return s.Status.Active != "" && s.Status.Active == s.Status.LastBackup
	})
	p.now = time.Now()
	p.end(t, s.Status.Active, v1alpha1.PhasePartiallyFailed)
	until("its end is seen", func(s *v1alpha1.Schedule) bool {
		return s.Status.Active == "" && condition(s, "Healthy") == "True LastRunSucceeded"
	})
	is(t, "backups", p.backups(t, "demo"), s.Status.LastBackup)
}
