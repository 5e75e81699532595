package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// StateOptions say where the state is read from. All are needed.
type StateOptions struct {
	// Client lists the objects at every scrape; give it a cache.
	Client    client.Reader
	Namespace string
	// OwnCluster gives the uid of the cluster that the server runs in: backups of others say nothing of how fresh this one's are.
	OwnCluster func(ctx context.Context) (string, error)
}

// readTimeout bounds the reading of one scrape: a cache that is not filled yet waits.
const readTimeout = 5 * time.Second

// State is a collector over what the objects say. ctx ends what a scrape under way waits for.
func State(ctx context.Context, opts StateOptions) prometheus.Collector {
	return &state{read: func() (*snapshot, error) {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		return opts.snapshot(ctx)
	}}
}

// snapshot is the objects at one scrape.
type snapshot struct {
	cluster   string
	backups   []v1alpha1.Backup
	restores  []v1alpha1.Restore
	schedules []v1alpha1.Schedule
	locations []v1alpha1.BackupStorageLocation
}

func (o *StateOptions) snapshot(ctx context.Context) (*snapshot, error) {
	cluster, err := o.OwnCluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	var (
		backups   v1alpha1.BackupList
		restores  v1alpha1.RestoreList
		schedules v1alpha1.ScheduleList
		locations v1alpha1.BackupStorageLocationList
	)
	for _, list := range []client.ObjectList{&backups, &restores, &schedules, &locations} {
		// Nothing is changed here, so that the cache need not copy thousands of objects for each scrape.
		if err := o.Client.List(ctx, list, client.InNamespace(o.Namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("read the state: %w", err)
		}
	}
	return &snapshot{cluster: cluster, backups: backups.Items, restores: restores.Items, schedules: schedules.Items, locations: locations.Items}, nil
}

type state struct {
	read func() (*snapshot, error)
}

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range stateDefinitions() {
		ch <- d.desc()
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch}
	snap, err := s.read()
	if err != nil { // the metrics of the process are worth having all the same
		e.put(stateReadable, 0)
		return
	}
	e.put(stateReadable, 1)
	schedules := newScheduleStates(snap)
	e.backups(snap, schedules)
	e.schedules(snap, schedules)
	e.restores(snap)
	e.locations(snap)
}

// emitter makes metrics from definitions.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) put(d Definition, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if d.Kind == Counter {
		kind = prometheus.CounterValue
	}
	e.ch <- prometheus.MustNewConstMetric(d.desc(), kind, value, labels...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a time in Unix seconds; 0 where there is none.
func unix(t *metav1.Time) float64 {
	if t == nil || t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

// own says whether a backup is of the server's own cluster.
func (s *snapshot) own(b *v1alpha1.Backup) bool {
	if c := b.Status.Cluster; c != nil {
		return c.UID == s.cluster
	}
	return b.Annotations[v1alpha1.ArchiveUIDAnnotation] == ""
}

// locationOf is the name of the location that holds a backup, or is to.
func locationOf(b *v1alpha1.Backup) string {
	if b.Status.StorageLocation != "" {
		return b.Status.StorageLocation
	}
	return b.Spec.StorageLocation
}

type place struct{ location, label string }

// backups tells of this cluster's backups as a whole. Labels have only names of objects that are there.
func (e emitter) backups(snap *snapshot, schedules map[string]*scheduleState) {
	known := make(map[string]bool, len(snap.locations))
	for i := range snap.locations {
		known[snap.locations[i].Name] = true
	}
	counts, newest, unfinished, ended := map[place]int{}, map[place]float64{}, map[string]float64{}, map[v1alpha1.Phase]float64{}
	for i := range snap.backups {
		b := &snap.backups[i]
		if !snap.own(b) {
			continue
		}
		location := locationOf(b)
		if !known[location] {
			location = ""
		}
		phase := b.Status.Phase
		counts[place{location, phaseLabel(phase)}]++
		switch {
		case !phase.Final():
			oldest(unfinished, location, unix(&b.CreationTimestamp))
		default:
			latest(ended, phase, unix(b.Status.CompletionTime))
		}
		if phase.Usable() && location != "" {
			schedule := b.Status.Schedule
			if schedules[schedule] == nil {
				schedule = ""
			}
			latest(newest, place{location, schedule}, unix(b.Status.StartTime))
		}
	}
	for p, n := range counts {
		e.put(backupsByPhase, float64(n), p.location, p.label)
	}
	for p, at := range newest {
		e.put(newestRestorable, at, p.location, p.label)
	}
	for location, at := range unfinished {
		e.put(backupUnfinished, at, location)
	}
	for phase, at := range ended {
		e.put(backupLastEnd, at, string(phase))
	}
}

// phaseLabel is the phase as a label; an object that nobody has looked at yet is New.
func phaseLabel(p v1alpha1.Phase) string {
	if p == "" {
		return "New"
	}
	return string(p)
}

func latest[K comparable](m map[K]float64, key K, at float64) {
	if at > 0 && at > m[key] {
		m[key] = at
	}
}

func oldest[K comparable](m map[K]float64, key K, at float64) {
	if have, ok := m[key]; at > 0 && (!ok || at < have) {
		m[key] = at
	}
}

func (e emitter) restores(snap *snapshot) {
	counts, ended, unfinished := map[string]int{}, map[v1alpha1.Phase]float64{}, map[string]float64{}
	for i := range snap.restores {
		r := &snap.restores[i]
		counts[phaseLabel(r.Status.Phase)]++
		if r.Status.Phase.Final() {
			latest(ended, r.Status.Phase, unix(r.Status.CompletionTime))
		} else {
			oldest(unfinished, "", unix(&r.CreationTimestamp))
		}
	}
	for phase, n := range counts {
		e.put(restoresByPhase, float64(n), phase)
	}
	for phase, at := range ended {
		e.put(restoreLastEnd, at, string(phase))
	}
	for _, at := range unfinished {
		e.put(restoreUnfinished, at)
	}
}

// defaultSyncPeriod is how often a location is listed that does not say so.
const defaultSyncPeriod = time.Minute

func (e emitter) locations(snap *snapshot) {
	stored := map[string]int64{}
	for i := range snap.backups {
		stored[locationOf(&snap.backups[i])] += snap.backups[i].Status.StoredBytes
	}
	for i := range snap.locations {
		l := &snap.locations[i]
		conditions := l.Status.Conditions
		e.put(locationReady, number(meta.IsStatusConditionTrue(conditions, "Ready")), l.Name)
		e.put(locationSynced, number(meta.IsStatusConditionTrue(conditions, "Synced")), l.Name)
		if retained := meta.FindStatusCondition(conditions, "Retained"); retained != nil {
			e.put(locationRetained, number(retained.Status == metav1.ConditionTrue), l.Name)
		}
		if maintained := meta.FindStatusCondition(conditions, "Maintained"); maintained != nil {
			e.put(locationMaintained, number(maintained.Status == metav1.ConditionTrue), l.Name)
		}
		e.put(locationValidated, unix(l.Status.LastValidationTime), l.Name)
		e.put(locationSyncedAt, unix(l.Status.LastSyncTime), l.Name)
		period := defaultSyncPeriod
		if p := l.Spec.SyncPeriod; p != nil && p.Duration > 0 {
			period = p.Duration
		}
		e.put(locationSyncPeriod, period.Seconds(), l.Name)
		e.put(locationBackups, float64(l.Status.Backups), l.Name)
		e.put(locationStored, float64(stored[l.Name]), l.Name)
	}
}
