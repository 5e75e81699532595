package retention

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
)

// BackupOf is what the rules look at of an entry.
func BackupOf(e *archive.Entry) Backup {
	b := Backup{Name: e.Name, UID: e.UID, Deleting: e.Deleting, Unreadable: e.Err != nil || e.Record == nil}
	if b.Unreadable {
		return b
	}
	r := e.Record
	b.Cluster, b.Schedule = r.Cluster.UID, r.Labels[v1alpha1.ScheduleLabel]
	b.Started, b.Completed, b.Phase, b.Expires = r.Started, r.Completed, r.Phase, r.Expires
	if x := e.Expiry; x != nil {
		b.Expires, b.Held = x.Expires, x.Hold
		if x.Hold {
			b.HoldReason = x.Reason
		}
	}
	return b
}

// PolicyOf is what a schedule asks for. Where its time zone is not known, everything stays.
func PolicyOf(s *v1alpha1.Schedule) Policy {
	p := Policy{}
	if s.Spec.Retention != nil {
		p.Rules = *s.Spec.Retention
	}
	zone, err := time.LoadLocation(s.Spec.TimeZone)
	if err != nil || s.Spec.TimeZone == "Local" {
		p.KeepAll = fmt.Sprintf("time zone %q of schedule %s is not known", s.Spec.TimeZone, s.Name)
		return p
	}
	p.Zone = zone
	return p
}

// Preview says what retention would do now with the backups of a location: cluster is the uid of the cluster whose backups it may touch. The
// decisions are in the order of the entries. Nothing is changed.
func Preview(entries []archive.Entry, schedules []v1alpha1.Schedule, cluster string, now time.Time) []Decision {
	in := Input{Cluster: cluster, Now: now, Policies: policiesOf(schedules), Backups: make([]Backup, len(entries))}
	for i := range entries {
		in.Backups[i] = BackupOf(&entries[i])
	}
	return Evaluate(in)
}

// policiesOf are the policies of the schedules that there are, by name.
func policiesOf(schedules []v1alpha1.Schedule) map[string]Policy {
	out := make(map[string]Policy, len(schedules))
	for i := range schedules {
		out[schedules[i].Name] = PolicyOf(&schedules[i])
	}
	return out
}

// Located is a decision about a backup of a location.
type Located struct {
	Location string `json:"location"`
	Decision `json:",inline"`
}

// PreviewObjects is Preview for those who see only the objects that a server shows: each location by itself, sorted by location, schedule and
// point in time, the newest first. Objects that stand for no archive are left out.
func PreviewObjects(backups []v1alpha1.Backup, schedules []v1alpha1.Schedule, cluster string, now time.Time) []Located {
	places := map[string][]Backup{}
	for i := range backups {
		b := &backups[i]
		if b.Status.Phase.Usable() || b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" && b.Status.Phase.Final() {
			places[b.Status.StorageLocation] = append(places[b.Status.StorageLocation], ofObject(b))
		}
	}
	var out []Located
	for _, place := range slices.Sorted(maps.Keys(places)) {
		decisions := Evaluate(Input{Cluster: cluster, Now: now, Policies: policiesOf(schedules), Backups: places[place]})
		slices.SortFunc(decisions, func(a, b Decision) int {
			return cmp.Or(strings.Compare(a.Backup.Schedule, b.Backup.Schedule), newestFirst(&a, &b))
		})
		for _, d := range decisions {
			out = append(out, Located{Location: place, Decision: d})
		}
	}
	return out
}

// ofObject is what the rules look at of an object. Of one that is held the end of the TTL is not shown; it does not matter then.
func ofObject(b *v1alpha1.Backup) Backup {
	s := &b.Status
	out := Backup{Name: b.Name, UID: ArchiveUID(b), Schedule: b.Labels[v1alpha1.ScheduleLabel], Phase: s.Phase, Held: s.Held, Unreadable: s.Cluster == nil}
	if s.Cluster != nil {
		out.Cluster = s.Cluster.UID
	}
	if s.StartTime != nil {
		out.Started = s.StartTime.Time
	}
	if s.CompletionTime != nil {
		out.Completed = s.CompletionTime.Time
	}
	switch {
	case s.Held:
		out.Expires = &out.Started
	case s.Expiration != nil:
		out.Expires = &s.Expiration.Time
	}
	return out
}
