package metrics

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
)

// What a metric is about, as its label "kind".
const (
	KindBackup    = "backup"
	KindRestore   = "restore"
	KindDeletion  = "deletion"
	KindSync      = "sync"
	KindRetention = "retention"
	KindUpkeep    = "upkeep"
)

// Why data was deleted, as the label "cause".
const (
	CauseRequest   = "request"
	CauseRetention = "retention"
)

// Recorder counts what happens. All methods may be called from many goroutines, and on nil, which counts nothing.
type Recorder struct {
	leader                                                         prometheus.Gauge
	backups, backupItems, backupBytes, backupStored                *prometheus.CounterVec
	restores, restoreItems                                         *prometheus.CounterVec
	itemErrors, attemptErrors, deletions, swept                    *prometheus.CounterVec
	throttled, throttledTime, storeRequests, storeBytes            *prometheus.CounterVec
	notifications, notificationRetries                             *prometheus.CounterVec
	backupDuration, restoreDuration, storeDuration                 *prometheus.HistogramVec
	itemReasons, attemptReasons, throttleReasons, webhooks, events bounded

	registry prometheus.Registerer
	mu       sync.Mutex
	made     []prometheus.Collector
}

// New registers the metrics of one server. Close takes them back, so that a process (a test) can have one server after another.
func New(registry prometheus.Registerer, version string) (*Recorder, error) {
	r := &Recorder{registry: registry}
	r.backups, r.backupItems = counters(backupsTotal), counters(backupItems)
	r.backupBytes, r.backupStored = counters(backupBytes), counters(backupStored)
	r.restores, r.restoreItems = counters(restoresTotal), counters(restoreItems)
	r.itemErrors, r.attemptErrors = counters(itemErrors), counters(attemptErrors)
	r.deletions, r.swept = counters(deletionsTotal), counters(sweptTotal)
	r.throttled, r.throttledTime = counters(apiThrottled), counters(apiThrottledTime)
	r.storeRequests, r.storeBytes = counters(storeRequests), counters(storeBytes)
	r.notifications, r.notificationRetries = counters(notifications), counters(notificationRetries)
	r.backupDuration, r.restoreDuration, r.storeDuration = histograms(backupDuration), histograms(restoreDuration), histograms(storeDuration)
	info := gauges(serverInfo)
	info.WithLabelValues(version).Set(1)
	leader := gauges(serverLeader)
	r.leader = leader.WithLabelValues()
	err := r.Register(
		info, leader, r.backups, r.backupItems, r.backupBytes, r.backupStored, r.backupDuration, r.restores, r.restoreItems, r.restoreDuration,
		r.itemErrors, r.attemptErrors, r.deletions, r.swept, r.throttled, r.throttledTime,
		r.storeRequests, r.storeBytes, r.storeDuration, r.notifications, r.notificationRetries,
	)
	if err != nil {
		r.Close()
		return nil, err
	}
	for _, phase := range []v1alpha1.Phase{v1alpha1.PhaseCompleted, v1alpha1.PhasePartiallyFailed, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled} {
		r.restores.WithLabelValues(string(phase)) // from 0 on, so that the first increase is one
	}
	return r, nil
}

func counters(d Definition) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

func gauges(d Definition) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

func histograms(d Definition) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: d.buckets}, d.Labels)
}

// Register adds collectors to the recorder's registry until it is closed.
func (r *Recorder) Register(collectors ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range collectors {
		if err := r.registry.Register(c); err != nil {
			return fmt.Errorf("register the metrics: %w", err)
		}
		r.made = append(r.made, c)
	}
	return nil
}

// Close takes all that was registered out of the registry.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.made {
		r.registry.Unregister(c)
	}
	r.made = nil
}

// Lead says, for as long as ctx lasts, that this process is the leader: it is a manager's runnable that needs the lease.
func (r *Recorder) Lead(ctx context.Context) error {
	if r != nil {
		r.leader.Set(1)
		defer r.leader.Set(0)
	}
	<-ctx.Done()
	return nil
}

// BackupEnded counts a backup that this process brought to its final phase. Call it once, after the status was written.
func (r *Recorder) BackupEnded(b *v1alpha1.Backup) {
	if r == nil {
		return
	}
	s, location := &b.Status, b.Status.StorageLocation
	r.backups.WithLabelValues(location, string(s.Phase)).Inc()
	if !s.Phase.Usable() {
		return
	}
	r.backupItems.WithLabelValues(location).Add(float64(s.Counts.Items))
	r.backupBytes.WithLabelValues(location).Add(float64(s.Counts.Bytes))
	r.backupStored.WithLabelValues(location).Add(float64(s.StoredBytes))
	if s.StartTime != nil && s.CompletionTime != nil {
		r.backupDuration.WithLabelValues(location).Observe(s.CompletionTime.Sub(s.StartTime.Time).Seconds())
	}
}

// RestoreEnded counts a restore that this process brought to its final phase. Call it once, after the status was written.
func (r *Recorder) RestoreEnded(restore *v1alpha1.Restore) {
	if r == nil {
		return
	}
	s := &restore.Status
	r.restores.WithLabelValues(string(s.Phase)).Inc()
	for result, n := range map[string]int{
		"created": s.Counts.Created, "updated": s.Counts.Updated, "unchanged": s.Counts.Unchanged, "skipped": s.Counts.Skipped, "failed": s.Counts.Failed,
	} {
		r.restoreItems.WithLabelValues(result).Add(float64(n))
	}
	if s.Phase.Usable() && s.StartTime != nil && s.CompletionTime != nil {
		r.restoreDuration.WithLabelValues().Observe(s.CompletionTime.Sub(s.StartTime.Time).Seconds())
	}
}

// ItemError counts n objects or resources that a backup or a restore could not take, for a reason of its report.
func (r *Recorder) ItemError(kind, reason string, n int) {
	if r != nil {
		r.itemErrors.WithLabelValues(kind, r.itemReasons.value(reason)).Add(float64(n))
	}
}

// AttemptFailed counts an attempt that failed as a whole; reason is what outcome.Of says of its error.
func (r *Recorder) AttemptFailed(kind, reason string) {
	if r != nil {
		r.attemptErrors.WithLabelValues(kind, r.attemptReasons.value(reason)).Inc()
	}
}

// Deleted counts a backup whose data is gone.
func (r *Recorder) Deleted(location, cause string) {
	if r != nil {
		r.deletions.WithLabelValues(location, cause).Inc()
	}
}

// Swept counts n objects that a crashed attempt left in a bucket, and that were removed.
func (r *Recorder) Swept(location string, n int) {
	if r != nil {
		r.swept.WithLabelValues(location).Add(float64(n))
	}
}

// Throttled counts a wait that the API server asked for; it is a kube.Options.OnThrottle.
func (r *Recorder) Throttled(reason string, wait time.Duration) {
	if r != nil {
		reason = r.throttleReasons.value(reason)
		r.throttled.WithLabelValues(reason).Inc()
		r.throttledTime.WithLabelValues(reason).Add(wait.Seconds())
	}
}

// Store counts the operations on the store of a location; it is a location.Registry's Observe.
func (r *Recorder) Store(location string) func(context.Context, decorate.Event) {
	return func(_ context.Context, e decorate.Event) {
		if r == nil {
			return
		}
		r.storeRequests.WithLabelValues(location, e.Op, storeResult(e.Err)).Inc()
		r.storeDuration.WithLabelValues(location, e.Op).Observe(e.Duration.Seconds())
		switch e.Op {
		case "get":
			r.storeBytes.WithLabelValues(location, "read").Add(float64(e.Bytes))
		case "put":
			r.storeBytes.WithLabelValues(location, "written").Add(float64(e.Bytes))
		}
	}
}

// storeResult is what became of an operation; that something is not there, or is there already, is often the expected answer.
func storeResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, plugins.ErrNotFound):
		return "not_found"
	case errors.Is(err, plugins.ErrExists):
		return "exists"
	case errors.Is(err, plugins.ErrRetained):
		return "retained"
	case errors.Is(err, plugins.ErrAccess):
		return "denied"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return "error"
}

// LocationGone drops what was counted for a location whose object is gone, so that labels do not pile up.
func (r *Recorder) LocationGone(location string) {
	if r == nil {
		return
	}
	gone := prometheus.Labels{"location": location}
	for _, c := range []*prometheus.CounterVec{
		r.backups, r.backupItems, r.backupBytes, r.backupStored, r.deletions, r.swept, r.storeRequests, r.storeBytes,
	} {
		c.DeletePartialMatch(gone)
	}
	r.backupDuration.DeletePartialMatch(gone)
	r.storeDuration.DeletePartialMatch(gone)
}

// Pool shows how much work of a kind waits and runs; counts is a pool's Counts.
func (r *Recorder) Pool(kind string, counts func() (queued, running int)) error {
	gauge := func(d Definition, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: d.Name, Help: d.Help, ConstLabels: prometheus.Labels{"kind": kind}},
			func() float64 { return float64(value()) })
	}
	return r.Register(
		gauge(poolQueued, func() int { queued, _ := counts(); return queued }),
		gauge(poolRunning, func() int { _, running := counts(); return running }),
	)
}

// Notified counts a delivery to a webhook that ended: delivered, or given up.
func (r *Recorder) Notified(webhook, event string, delivered bool) {
	if r == nil {
		return
	}
	result := "delivered"
	if !delivered {
		result = "given_up"
	}
	r.notifications.WithLabelValues(r.webhooks.value(webhook), r.events.value(event), result).Inc()
}

// NotifyRetried counts an attempt at a delivery that failed and is made again.
func (r *Recorder) NotifyRetried(webhook string) {
	if r != nil {
		r.notificationRetries.WithLabelValues(r.webhooks.value(webhook)).Inc()
	}
}

// maxValues is how many values a label may have that comes from messages of programs; any further one is Other.
const maxValues = 64

var plainValue = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$`)

// bounded admits a bounded number of values of a label. The zero value is ready.
type bounded struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (b *bounded) value(v string) string {
	if !plainValue.MatchString(v) {
		return "Other"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[v] {
		return v
	}
	if len(b.seen) >= maxValues {
		return "Other"
	}
	if b.seen == nil {
		b.seen = map[string]bool{}
	}
	b.seen[v] = true
	return v
}
