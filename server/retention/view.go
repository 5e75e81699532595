package retention

import (
	"fmt"
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

// reasonRestored keeps everything of a schedule that a restore brought, until somebody has looked: the rules are those of another day, or of another
// schedule of that name.
const reasonRestored = "its schedule was restored and not unpaused since"

// PolicyOf is what a schedule asks for. Where its time zone is not known, or it arrived by a restore and is still paused, everything stays.
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
	if s.Spec.Paused && s.Annotations[v1alpha1.RestoredAnnotation] != "" {
		p.KeepAll = reasonRestored
	}
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
