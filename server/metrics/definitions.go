// Package metrics shows a server from outside: what its objects say of backups, schedules and locations, and what it did since it began.
package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Kind is what sort of numbers a metric has.
type Kind string

// The kinds, as Prometheus names them.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
)

// Definition is one metric. All that is registered is made from these, and docs/metrics.md is checked against them.
type Definition struct {
	Name   string
	Kind   Kind
	Labels []string
	// Help is one sentence that says what the number means, with its unit.
	Help string
	// buckets are a histogram's.
	buckets []float64
}

func (d Definition) desc() *prometheus.Desc {
	return prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
}

// runBuckets go from a second to twelve hours, requestBuckets from five milliseconds to five minutes.
var (
	runBuckets     = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200}
	requestBuckets = []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 10, 30, 120, 300}
)

// What the objects say. It is read from them at every scrape, so it is right after a restart, and every replica says the same.
var (
	stateReadable = Definition{Name: "kedge_state_readable", Kind: Gauge,
		Help: "1 where the objects could be read for this scrape; where it is 0 the metrics that are read from objects are missing."}

	scheduleReady       = Definition{Name: "kedge_schedule_ready", Kind: Gauge, Labels: []string{"schedule"}, Help: "1 where the schedule's spec can be followed (condition Ready)."}
	scheduleHealthy     = Definition{Name: "kedge_schedule_healthy", Kind: Gauge, Labels: []string{"schedule"}, Help: "0 where the newest run gave no backup that can be restored from, or a run is overdue (condition Healthy is False)."}
	schedulePaused      = Definition{Name: "kedge_schedule_paused", Kind: Gauge, Labels: []string{"schedule"}, Help: "1 where the schedule is paused."}
	scheduleActive      = Definition{Name: "kedge_schedule_active", Kind: Gauge, Labels: []string{"schedule"}, Help: "1 while a backup of the schedule is being made."}
	scheduleLastRun     = Definition{Name: "kedge_schedule_last_run_timestamp_seconds", Kind: Gauge, Labels: []string{"schedule"}, Help: "Time by the clock of the newest run that was begun or given up, in Unix seconds; 0 where there was none."}
	scheduleNextRun     = Definition{Name: "kedge_schedule_next_run_timestamp_seconds", Kind: Gauge, Labels: []string{"schedule"}, Help: "When the next run is due, in Unix seconds; missing while none is, as where the schedule is paused."}
	scheduleLastSuccess = Definition{Name: "kedge_schedule_last_success_timestamp_seconds", Kind: Gauge, Labels: []string{"schedule"}, Help: "When the newest backup of the schedule that can be restored from was completed, in Unix seconds; 0 where there was none."}
	scheduleMissed      = Definition{Name: "kedge_schedule_missed_runs_total", Kind: Counter, Labels: []string{"schedule"}, Help: "Times by the clock that passed without a run."}
	scheduleUnclean     = Definition{Name: "kedge_schedule_unclean_backups_in_a_row", Kind: Gauge, Labels: []string{"schedule"}, Help: "How many of the newest backups of the schedule, one after the other, were not Completed; cancelled ones are passed over."}
	scheduleLastPhase   = Definition{Name: "kedge_schedule_last_backup_info", Kind: Gauge, Labels: []string{"schedule", "phase"}, Help: "1, with the phase in which the newest ended backup of the schedule ended."}
	scheduleLastTook    = Definition{Name: "kedge_schedule_last_backup_duration_seconds", Kind: Gauge, Labels: []string{"schedule"}, Help: "How long the newest usable backup of the schedule took, waits and further attempts included."}
	scheduleLastItems   = Definition{Name: "kedge_schedule_last_backup_items", Kind: Gauge, Labels: []string{"schedule"}, Help: "Objects in the newest usable backup of the schedule."}
	scheduleLastErrors  = Definition{Name: "kedge_schedule_last_backup_errors", Kind: Gauge, Labels: []string{"schedule"}, Help: "Objects or resources that the newest usable backup of the schedule could not take."}
	scheduleLastBytes   = Definition{Name: "kedge_schedule_last_backup_bytes", Kind: Gauge, Labels: []string{"schedule"}, Help: "Bytes of JSON in the newest usable backup of the schedule."}
	scheduleLastStored  = Definition{Name: "kedge_schedule_last_backup_stored_bytes", Kind: Gauge, Labels: []string{"schedule"}, Help: "Bytes that the newest usable backup of the schedule takes in the bucket."}

	backupsByPhase   = Definition{Name: "kedge_backups", Kind: Gauge, Labels: []string{"location", "phase"}, Help: "Backups of this cluster, by where they stand."}
	newestRestorable = Definition{Name: "kedge_backup_newest_restorable_timestamp_seconds", Kind: Gauge, Labels: []string{"location", "schedule"}, Help: "When the newest backup of this cluster that can be restored from was begun, in Unix seconds: what happened since would be lost. The schedule is empty for backups that were made by hand or whose schedule is gone."}
	backupLastEnd    = Definition{Name: "kedge_backup_last_end_timestamp_seconds", Kind: Gauge, Labels: []string{"phase"}, Help: "When the newest backup of this cluster that ended in this phase did so, in Unix seconds."}
	backupUnfinished = Definition{Name: "kedge_backup_oldest_unfinished_timestamp_seconds", Kind: Gauge, Labels: []string{"location"}, Help: "When the oldest backup that has not ended was asked for, in Unix seconds; missing where there is none."}

	restoresByPhase   = Definition{Name: "kedge_restores", Kind: Gauge, Labels: []string{"phase"}, Help: "Restores, by where they stand."}
	restoreLastEnd    = Definition{Name: "kedge_restore_last_end_timestamp_seconds", Kind: Gauge, Labels: []string{"phase"}, Help: "When the newest restore that ended in this phase did so, in Unix seconds."}
	restoreUnfinished = Definition{Name: "kedge_restore_oldest_unfinished_timestamp_seconds", Kind: Gauge, Help: "When the oldest restore that has not ended was asked for, in Unix seconds; missing where there is none."}

	locationReady      = Definition{Name: "kedge_location_ready", Kind: Gauge, Labels: []string{"location"}, Help: "1 where the bucket answers, has Kedge's layout and the pinned key (condition Ready)."}
	locationSynced     = Definition{Name: "kedge_location_synced", Kind: Gauge, Labels: []string{"location"}, Help: "1 where the location's backups are shown as Backup objects (condition Synced)."}
	locationRetained   = Definition{Name: "kedge_location_retained", Kind: Gauge, Labels: []string{"location"}, Help: "1 where what retention asks for is done (condition Retained); missing where nothing has been asked for yet."}
	locationMaintained = Definition{Name: "kedge_location_maintained", Kind: Gauge, Labels: []string{"location"}, Help: "1 where the repository of volume copies is maintained (condition Maintained); missing where the location has no volumes."}
	locationValidated  = Definition{Name: "kedge_location_last_validation_timestamp_seconds", Kind: Gauge, Labels: []string{"location"}, Help: "When the bucket last answered, in Unix seconds; 0 where it never did."}
	locationSyncedAt   = Definition{Name: "kedge_location_last_sync_timestamp_seconds", Kind: Gauge, Labels: []string{"location"}, Help: "When the bucket was last listed to its end and shown, in Unix seconds; 0 where it never was."}
	locationSyncPeriod = Definition{Name: "kedge_location_sync_period_seconds", Kind: Gauge, Labels: []string{"location"}, Help: "How often the bucket is to be listed."}
	locationBackups    = Definition{Name: "kedge_location_backups", Kind: Gauge, Labels: []string{"location"}, Help: "Backups that the location holds, of all clusters."}
	locationStored     = Definition{Name: "kedge_location_stored_bytes", Kind: Gauge, Labels: []string{"location"}, Help: "Bytes that the shown backups of the location take in the bucket, of all clusters."}
)

// What happened since the process began.
var (
	serverInfo   = Definition{Name: "kedge_server_info", Kind: Gauge, Labels: []string{"version"}, Help: "1, with the version of the server."}
	serverLeader = Definition{Name: "kedge_server_leader", Kind: Gauge, Help: "1 in the process that holds the lease and does the work."}

	backupsTotal   = Definition{Name: "kedge_backups_ended_total", Kind: Counter, Labels: []string{"location", "phase"}, Help: "Backups that this process saw to their end."}
	backupDuration = Definition{Name: "kedge_backup_duration_seconds", Kind: Histogram, Labels: []string{"location"}, Help: "How long usable backups took, waits and further attempts included.", buckets: runBuckets}
	backupItems    = Definition{Name: "kedge_backup_items_total", Kind: Counter, Labels: []string{"location"}, Help: "Objects written into usable backups."}
	backupBytes    = Definition{Name: "kedge_backup_bytes_total", Kind: Counter, Labels: []string{"location"}, Help: "Bytes of JSON written into usable backups."}
	backupStored   = Definition{Name: "kedge_backup_stored_bytes_total", Kind: Counter, Labels: []string{"location"}, Help: "Bytes that usable backups take in the bucket."}

	restoresTotal   = Definition{Name: "kedge_restores_ended_total", Kind: Counter, Labels: []string{"phase"}, Help: "Restores that this process saw to their end."}
	restoreDuration = Definition{Name: "kedge_restore_duration_seconds", Kind: Histogram, Help: "How long restores took that were Completed or PartiallyFailed, waits included.", buckets: runBuckets}
	restoreItems    = Definition{Name: "kedge_restore_items_total", Kind: Counter, Labels: []string{"result"}, Help: "Objects of ended restores: created, updated, unchanged, skipped or failed."}

	itemErrors    = Definition{Name: "kedge_item_errors_total", Kind: Counter, Labels: []string{"kind", "reason"}, Help: "Objects or resources that a backup or a restore could not take, by the reason in its report."}
	attemptErrors = Definition{Name: "kedge_attempt_errors_total", Kind: Counter, Labels: []string{"kind", "reason"}, Help: "Attempts at a backup, restore, deletion, sync, retention or upkeep of volumes that failed as a whole, by the reason of the condition."}

	deletionsTotal = Definition{Name: "kedge_deletions_total", Kind: Counter, Labels: []string{"location", "cause"}, Help: "Backups whose data was deleted: by request, or by retention."}
	sweptTotal     = Definition{Name: "kedge_swept_objects_total", Kind: Counter, Labels: []string{"location"}, Help: "Objects in the bucket that crashed attempts left, and that were removed."}

	apiThrottled     = Definition{Name: "kedge_api_throttled_total", Kind: Counter, Labels: []string{"reason"}, Help: "Requests that the API server told to wait, by its answer."}
	apiThrottledTime = Definition{Name: "kedge_api_throttled_seconds_total", Kind: Counter, Labels: []string{"reason"}, Help: "Time that such requests waited, added up over all that waited at once."}

	storeRequests = Definition{Name: "kedge_store_requests_total", Kind: Counter, Labels: []string{"location", "operation", "result"}, Help: "Operations on the bucket as the engines see them, further attempts included."}
	storeDuration = Definition{Name: "kedge_store_request_duration_seconds", Kind: Histogram, Labels: []string{"location", "operation"}, Help: "How long such operations took; of a get, until its reader was closed.", buckets: requestBuckets}
	storeBytes    = Definition{Name: "kedge_store_bytes_total", Kind: Counter, Labels: []string{"location", "direction"}, Help: "Bytes read from and written to the bucket."}

	poolQueued  = Definition{Name: "kedge_pool_queued", Kind: Gauge, Labels: []string{"kind"}, Help: "Backups or restores that wait for their turn in this process."}
	poolRunning = Definition{Name: "kedge_pool_running", Kind: Gauge, Labels: []string{"kind"}, Help: "Backups or restores that run in this process."}

	notifications       = Definition{Name: "kedge_notifications_total", Kind: Counter, Labels: []string{"webhook", "event", "result"}, Help: "Deliveries to a webhook that ended: delivered, or given up after the last attempt."}
	notificationRetries = Definition{Name: "kedge_notification_retries_total", Kind: Counter, Labels: []string{"webhook"}, Help: "Attempts at a delivery that failed and were made again."}
)

// Catalogue gives every metric of a server, sorted by name.
func Catalogue() []Definition {
	all := slices.Concat(stateDefinitions(), []Definition{
		serverInfo, serverLeader, backupsTotal, backupDuration, backupItems, backupBytes, backupStored, restoresTotal, restoreDuration, restoreItems,
		itemErrors, attemptErrors, deletionsTotal, sweptTotal, apiThrottled, apiThrottledTime, storeRequests, storeDuration, storeBytes,
		poolQueued, poolRunning, notifications, notificationRetries,
	})
	slices.SortFunc(all, func(a, b Definition) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

func stateDefinitions() []Definition {
	return []Definition{
		stateReadable, scheduleReady, scheduleHealthy, schedulePaused, scheduleActive, scheduleLastRun, scheduleNextRun, scheduleLastSuccess, scheduleMissed,
		scheduleUnclean, scheduleLastPhase, scheduleLastTook, scheduleLastItems, scheduleLastErrors, scheduleLastBytes, scheduleLastStored,
		backupsByPhase, newestRestorable, backupLastEnd, backupUnfinished, restoresByPhase, restoreLastEnd, restoreUnfinished,
		locationReady, locationSynced, locationRetained, locationMaintained, locationValidated, locationSyncedAt, locationSyncPeriod, locationBackups, locationStored,
	}
}
