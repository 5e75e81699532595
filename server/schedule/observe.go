package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/status"
)

// Healthy is the condition that says whether a schedule gives backups.
const Healthy = "Healthy"

// The reasons of the condition Healthy.
const (
	ReasonLastRunSucceeded = "LastRunSucceeded"
	ReasonLastRunFailed    = "LastRunFailed"
	ReasonLastRunCancelled = "LastRunCancelled"
	ReasonRunOverdue       = "RunOverdue"
	ReasonRunRefused       = "RunRefused"
	ReasonNoRunYet         = "NoRunYet"
	ReasonBackupsDeleted   = "BackupsDeleted"
	ReasonPaused           = "Paused"
)

// seen is what the Backup objects say about a schedule.
type seen struct {
	owner   *Owner
	byName  map[string]*v1alpha1.Backup
	active  *v1alpha1.Backup // the oldest that has not ended
	newest  *v1alpha1.Backup
	ended   *v1alpha1.Backup // the newest that has
	success *v1alpha1.Backup // the newest that can be restored from
}

// see looks at the Backups with a schedule's label, of which those count that are its own.
func see(backups []v1alpha1.Backup, owner *Owner) seen {
	s := seen{owner: owner, byName: map[string]*v1alpha1.Backup{}}
	var own []*v1alpha1.Backup
	for i := range backups {
		if b := &backups[i]; owner.owns(b) {
			own = append(own, b)
			s.byName[b.Name] = b
		}
	}
	slices.SortFunc(own, func(a, b *v1alpha1.Backup) int {
		return cmp.Or(begun(a).Compare(begun(b)), cmp.Compare(a.Name, b.Name))
	})
	for _, b := range own {
		s.newest = b
		switch phase := b.Status.Phase; {
		case !phase.Final():
			if s.active == nil && b.DeletionTimestamp.IsZero() {
				s.active = b
			}
		case phase.Usable():
			s.ended, s.success = b, b
		default:
			s.ended = b
		}
	}
	return s
}

// begun is when a backup was begun, or asked for.
func begun(b *v1alpha1.Backup) time.Time {
	if t := b.Status.StartTime; t != nil {
		return t.Time
	}
	return b.CreationTimestamp.Time
}

// completed is when a backup ended; zero where that is not known.
func completed(b *v1alpha1.Backup) time.Time {
	if b == nil || b.Status.CompletionTime == nil {
		return time.Time{}
	}
	return b.Status.CompletionTime.Time
}

// note writes what was seen into a status. A run that is noted as active and was never seen is still to be created: that is so until
// LastBackup has its name.
func (s *seen) note(schedule *v1alpha1.Schedule) {
	st := &schedule.Status
	b := cmp.Or(s.byName[st.Active], s.byName[s.owner.otherName(st.Active)])
	if b != nil {
		st.Active, st.LastBackup = b.Name, b.Name
		if b.Status.Phase.Final() || !b.DeletionTimestamp.IsZero() {
			st.Active = ""
		}
	} else if !pending(st) {
		st.Active = "" // it was deleted
	}
	if st.Active == "" && s.active != nil {
		st.Active, st.LastBackup = s.active.Name, s.active.Name
	}
	if s.newest != nil && !pending(st) && st.Active == "" {
		st.LastBackup = s.newest.Name
	}
	if s.success != nil {
		st.LastSuccessfulBackup = s.success.Name
		if t := completed(s.success); st.LastSuccess == nil || t.After(st.LastSuccess.Time) {
			st.LastSuccess = stamp(t)
		}
	} else {
		st.LastSuccessfulBackup = ""
	}
	s.noteMade(st)
}

// noteMade notes the uid of the newest run's Backup where the server that made it could not. Where there is none any more, nothing is of that run.
func (s *seen) noteMade(st *v1alpha1.ScheduleStatus) {
	if st.Made == "" || st.MadeUID != "" {
		return
	}
	if b := cmp.Or(s.byName[st.Made], s.byName[s.owner.otherName(st.Made)]); b != nil {
		st.MadeUID = string(b.UID)
	} else if !pending(st) {
		st.Made = ""
	}
}

// pending says whether the active run is noted, and its Backup not yet seen.
func pending(st *v1alpha1.ScheduleStatus) bool { return st.Active != "" && st.Active != st.LastBackup }

// health is the condition Healthy. Due is since when a run has been waiting to begin; zero where none is.
func (s *seen) health(schedule *v1alpha1.Schedule, due, now time.Time) status.Condition {
	switch {
	case schedule.Spec.Paused:
		return healthy(metav1.ConditionUnknown, ReasonPaused, "The schedule is paused: set spec.paused to false to let it run.")
	case !due.IsZero() && now.Sub(due) > onTime:
		return healthy(metav1.ConditionFalse, ReasonRunOverdue, overdue(schedule, due))
	case s.ended == nil && schedule.Status.LastBackup != "" && schedule.Status.Active == "":
		return healthy(metav1.ConditionUnknown, ReasonBackupsDeleted, "No Backup of this schedule is left; the next run makes one.")
	case s.ended == nil:
		return healthy(metav1.ConditionUnknown, ReasonNoRunYet, "No run has ended yet.")
	}
	switch b := s.ended; b.Status.Phase {
	case v1alpha1.PhaseCompleted:
		return healthy(metav1.ConditionTrue, ReasonLastRunSucceeded, fmt.Sprintf("Backup %s can be restored from.", b.Name))
	case v1alpha1.PhasePartiallyFailed:
		return healthy(metav1.ConditionTrue, ReasonLastRunSucceeded, fmt.Sprintf("Backup %s can be restored from; its report names %d objects or resources that it lacks.", b.Name, b.Status.Counts.Errors))
	case v1alpha1.PhaseCancelled:
		return healthy(metav1.ConditionFalse, ReasonLastRunCancelled, fmt.Sprintf("Backup %s was cancelled.", b.Name))
	default:
		return healthy(metav1.ConditionFalse, ReasonLastRunFailed, fmt.Sprintf("Backup %s failed: %s", b.Name, b.Status.Message))
	}
}

func overdue(s *v1alpha1.Schedule, due time.Time) string {
	why := "the schedule is not Ready"
	if s.Status.Active != "" {
		why = fmt.Sprintf("backup %s has not ended", s.Status.Active)
	}
	return fmt.Sprintf("A run was due at %s and cannot begin: %s.", due.UTC().Format(time.RFC3339), why)
}

func healthy(s metav1.ConditionStatus, reason, message string) status.Condition {
	return status.Condition{Type: Healthy, Status: s, Reason: reason, Message: message}
}
