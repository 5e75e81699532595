package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ScheduleLabel names, on a Backup and in its archive, the Schedule that made it.
const ScheduleLabel = "kedge.dev/schedule"

// RunAnnotation marks, on a Backup, that the Schedule of its label made it, by a code that only the server can make.
const RunAnnotation = "kedge.dev/run"

// RunRequestedAnnotation asks a Schedule for a backup at once, paused or not. Each new value asks once.
const RunRequestedAnnotation = "kedge.dev/run-requested-at"

// RestoredAnnotation marks a Schedule that a restore brought, and that is paused since: until it is unpaused, retention removes nothing for it.
const RestoredAnnotation = "kedge.dev/restored"

// MissedRunPolicy says what happens to runs whose time passed while no server was there, or the schedule was not allowed to run.
// +kubebuilder:validation:Enum=Skip;CatchUp
type MissedRunPolicy string

// The policies for missed runs.
const (
	// MissedRunSkip waits for the next time.
	MissedRunSkip MissedRunPolicy = "Skip"
	// MissedRunCatchUp makes one backup at once for the newest of the missed times, however many they are.
	MissedRunCatchUp MissedRunPolicy = "CatchUp"
)

// ScheduleSpec says when backups are made, what they hold, and which of them are kept.
type ScheduleSpec struct {
	// Schedule is a cron expression of five fields (minute, hour, day of month, month, day of week), or one of @yearly,
	// @annually, @monthly, @weekly, @daily, @midnight, @hourly, "@every 6h".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^(CRON_)?TZ=')`,message="name the time zone in spec.timeZone, not in the expression"
	// +kubebuilder:validation:XValidation:rule=`!self.startsWith('@every') || self.matches(r'^@every ([0-9]+[hms])+$')`,message="after @every comes a distance in whole hours, minutes and seconds, such as @every 1h30m"
	// +kubebuilder:validation:XValidation:rule=`!self.startsWith('@') || self.startsWith('@every') || self in ['@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly']`,message="no such name: there are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and @every"
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^(@|TZ=|CRON_TZ=)') || self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$')`,message="write five fields (minute, hour, day of month, month, day of week), such as 30 2 * * 1-5, or a name such as @daily"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$') || self.matches(r'(?i)^([*?]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[0-9]+)?(,([*?]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[0-9]+)?)*[ \t]')`,message="the first field is the minute: *, or numbers from 0 to 59 as a list (0,30), a range (0-10) or with a step (*/15)"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$') || self.matches(r'(?i)^([^ \t]+[ \t]+){1}([*?]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[0-9]+)?(,([*?]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[0-9]+)?)*[ \t]')`,message="the second field is the hour: *, or numbers from 0 to 23 as a list (1,13), a range (8-18) or with a step (*/6)"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$') || self.matches(r'(?i)^([^ \t]+[ \t]+){2}([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[0-9]+)?(,([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[0-9]+)?)*[ \t]')`,message="the third field is the day of the month: *, or numbers from 1 to 31 as a list (1,15), a range (1-7) or with a step (*/2)"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$') || self.matches(r'(?i)^([^ \t]+[ \t]+){3}([*?]|(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(-(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))?)(/[0-9]+)?(,([*?]|(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(-(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))?)(/[0-9]+)?)*[ \t]')`,message="the fourth field is the month: *, or numbers from 1 to 12 or names (jan) as a list (1,7), a range (jan-mar) or with a step (*/3)"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[^@ \t][^ \t]*([ \t]+[^ \t]+){4}$') || self.matches(r'(?i)^([^ \t]+[ \t]+){4}([*?]|([0-6]|sun|mon|tue|wed|thu|fri|sat)(-([0-6]|sun|mon|tue|wed|thu|fri|sat))?)(/[0-9]+)?(,([*?]|([0-6]|sun|mon|tue|wed|thu|fri|sat)(-([0-6]|sun|mon|tue|wed|thu|fri|sat))?)(/[0-9]+)?)*$')`,message="the fifth field is the day of the week: *, or numbers from 0 (Sunday) to 6 or names (mon) as a list (sat,sun) or a range (mon-fri)"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'(?i)^[^ \t]+[ \t]+[^ \t]+[ \t]+(30|31|30,31|30-31)[ \t]+(0?2|feb)[ \t]+[*?]$') && !self.matches(r'(?i)^[^ \t]+[ \t]+[^ \t]+[ \t]+31[ \t]+(0?[2469]|11|feb|apr|jun|sep|nov)[ \t]+[*?]$')`,message="it never comes: that month has no such day"
	Schedule string `json:"schedule"`
	// TimeZone is the IANA name of the zone that Schedule is in: "Europe/Berlin". Empty means UTC. A time that a daylight saving jump
	// leaves out is run at the jump; one that occurs twice is run once, the first time.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self == '' || (self != 'Local' && self.matches(r'^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$'))`,message="write the name of a zone of the IANA database, such as Europe/Berlin"
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// Paused stops runs by the clock. Times that pass meanwhile are not caught up.
	// +optional
	Paused bool `json:"paused,omitempty"`
	// MissedRuns is CatchUp where unset.
	// +optional
	MissedRuns MissedRunPolicy `json:"missedRuns,omitempty"`
	// StartingDeadline is how late a run may still begin. Unset means any time before the next one.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$')`,message="write a duration in hours, minutes and seconds, such as 30m or 1h30m"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$') || (duration(self) >= duration('10s'))`,message="at least 10s: a server may need that long to begin"
	// +optional
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`
	// Jitter delays each run by a part of it, always the same for one schedule, so that many do not begin at once.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$')`,message="write a duration in hours, minutes and seconds, such as 30m or 1h30m"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^-?([0-9]{1,5}(\.[0-9]{1,9})?(ms|s|m|h))+$') || (duration(self) >= duration('0s') && duration(self) <= duration('24h'))`,message="between 0s and 24h"
	// +optional
	Jitter *metav1.Duration `json:"jitter,omitempty"`

	// NameTemplate is the name of backups: {schedule} stands for the name of the schedule, {time} for the run's time in UTC
	// (20060102150405). Empty means "{schedule}-{time}".
	// +kubebuilder:validation:MaxLength=150
	// +kubebuilder:validation:XValidation:rule=`self == '' || self.contains('{time}')`,message="it needs {time}, or all backups would have one name"
	// +kubebuilder:validation:XValidation:rule=`self.replace('{schedule}', '').replace('{time}', '').matches(r'^[a-z0-9.-]*$')`,message="besides {schedule} and {time}, only lower-case letters, digits, - and . can be part of a name"
	// +kubebuilder:validation:XValidation:rule=`!self.matches(r'^[.-]') && !self.matches(r'[.-]$') && !self.matches(r'[.][.-]|-[.]')`,message="a name begins and ends with a letter or digit, and so does each part between dots"
	// +optional
	NameTemplate string `json:"nameTemplate,omitempty"`
	// Template is the backups that are made.
	Template BackupTemplate `json:"template,omitzero"`
	// UseOwnerReferencesInBackup makes the Schedule the owner of its Backup objects, so that these go when it is deleted. What is in
	// the bucket stays in any case, and is then found there again.
	// +optional
	UseOwnerReferencesInBackup bool `json:"useOwnerReferencesInBackup,omitempty"`

	// Retention says which of the schedule's backups are kept, beside those whose TTL has not ended.
	// +optional
	Retention *RetentionPolicy `json:"retention,omitempty"`
}

// +kubebuilder:validation:XValidation:rule=`!has(self.spec) || !has(self.spec.cancel) || !self.spec.cancel`,message="spec.cancel would stop every backup at once: leave it out, or set spec.paused"

// BackupTemplate is a backup to be made.
type BackupTemplate struct {
	// Metadata is given to each Backup.
	// +optional
	Metadata BackupTemplateMetadata `json:"metadata,omitzero"`
	// Spec is that of each Backup.
	// +optional
	Spec BackupSpec `json:"spec,omitzero"`
}

// BackupTemplateMetadata is what a schedule's backups are marked with.
type BackupTemplateMetadata struct {
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// RetentionPolicy keeps backups by count and by calendar. A backup is kept that at least one rule keeps, that is held, whose TTL has not
// ended, or that is the newest one which can be restored from. A schedule whose rules are all unset removes only what its TTL has ended for.
type RetentionPolicy struct {
	// KeepLast keeps the newest ones.
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepLast int `json:"keepLast,omitempty"`
	// KeepHourly keeps the newest of each of the last so many hours that have one; the others likewise by day, ISO week, month and
	// year, all in the schedule's time zone.
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepHourly int `json:"keepHourly,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepDaily int `json:"keepDaily,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepWeekly int `json:"keepWeekly,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepMonthly int `json:"keepMonthly,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	KeepYearly int `json:"keepYearly,omitempty"`
}

// ScheduleStatus says what a schedule has done and will do. Its conditions are Ready (the spec can be followed) and Healthy (the newest run
// has given a backup that can be restored from, and no run is overdue).
type ScheduleStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Since is from when on times count: when the server first saw the schedule, or its last change of schedule, zone or pause.
	Since *metav1.Time `json:"since,omitempty"`
	// Following is what Since is about: the expression and the zone, or "paused".
	Following string `json:"following,omitempty"`
	// LastRun is the time by the clock of the newest run that was begun or given up.
	LastRun *metav1.Time `json:"lastRun,omitempty"`
	// NextRun is when the next one is due, with its jitter; unset while paused.
	NextRun *metav1.Time `json:"nextRun,omitempty"`
	// LastBackup is the name of the newest Backup.
	LastBackup string `json:"lastBackup,omitempty"`
	// Active is the name of the Backup that is being made.
	Active string `json:"active,omitempty"`
	// Made is the name of the Backup of the run that was begun last, as it was noted before that was created.
	Made string `json:"made,omitempty"`
	// MadeUID is the uid of that Backup, once it is there. Another object under its name is not of the schedule.
	MadeUID string `json:"madeUID,omitempty"`
	// LastSuccessfulBackup is the newest Backup that can be restored from, and LastSuccess when it was completed.
	LastSuccessfulBackup string       `json:"lastSuccessfulBackup,omitempty"`
	LastSuccess          *metav1.Time `json:"lastSuccess,omitempty"`
	// MissedRuns counts the times that passed without a run.
	MissedRuns int64 `json:"missedRuns,omitempty"`
	// LastRunRequest is the value of the annotation kedge.dev/run-requested-at that was last followed.
	LastRunRequest string `json:"lastRunRequest,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ks,categories=kedge
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.spec.schedule`
// +kubebuilder:printcolumn:name="Paused",type=boolean,JSONPath=`.spec.paused`
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="Healthy")].status`
// +kubebuilder:printcolumn:name="Last success",type=date,JSONPath=`.status.lastSuccess`
// +kubebuilder:printcolumn:name="Next",type=string,format=date-time,JSONPath=`.status.nextRun`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// Schedule makes backups by the clock and keeps the right ones.
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.size() <= 63`,message="metadata.name is at most 63 bytes long: a label of the backups holds it"
type Schedule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ScheduleSpec   `json:"spec"`
	Status ScheduleStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// ScheduleList is a list of schedules.
type ScheduleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Schedule `json:"items"`
}
