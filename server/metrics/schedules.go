package metrics

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"kedge.dev/kedge/api/v1alpha1"
)

// scheduleState is what a schedule's own backups say of it.
type scheduleState struct {
	ended   []*v1alpha1.Backup // newest first
	usable  *v1alpha1.Backup   // the newest
	unclean int
}

// newScheduleStates gives one for each schedule that is there.
func newScheduleStates(snap *snapshot) map[string]*scheduleState {
	all := make(map[string]*scheduleState, len(snap.schedules))
	for i := range snap.schedules {
		all[snap.schedules[i].Name] = &scheduleState{}
	}
	for i := range snap.backups {
		b := &snap.backups[i]
		s := all[b.Status.Schedule]
		if s != nil && snap.own(b) && b.Status.Phase.Final() && b.Status.CompletionTime != nil {
			s.ended = append(s.ended, b)
		}
	}
	for _, s := range all {
		slices.SortFunc(s.ended, func(a, b *v1alpha1.Backup) int {
			return cmp.Or(b.Status.CompletionTime.Compare(a.Status.CompletionTime.Time), cmp.Compare(a.Name, b.Name))
		})
		s.count()
	}
	return all
}

func (s *scheduleState) count() {
	clean := false
	for _, b := range s.ended {
		phase := b.Status.Phase
		if s.usable == nil && phase.Usable() {
			s.usable = b
		}
		clean = clean || phase == v1alpha1.PhaseCompleted
		if !clean && phase != v1alpha1.PhaseCancelled {
			s.unclean++
		}
	}
}

func (e emitter) schedules(snap *snapshot, states map[string]*scheduleState) {
	for i := range snap.schedules {
		s := &snap.schedules[i]
		e.put(scheduleReady, number(meta.IsStatusConditionTrue(s.Status.Conditions, "Ready")), s.Name)
		e.put(scheduleHealthy, number(!meta.IsStatusConditionFalse(s.Status.Conditions, "Healthy")), s.Name)
		e.put(schedulePaused, number(s.Spec.Paused), s.Name)
		e.put(scheduleActive, number(s.Status.Active != ""), s.Name)
		e.put(scheduleLastRun, unix(s.Status.LastRun), s.Name)
		if s.Status.NextRun != nil {
			e.put(scheduleNextRun, unix(s.Status.NextRun), s.Name)
		}
		e.put(scheduleLastSuccess, unix(s.Status.LastSuccess), s.Name)
		e.put(scheduleMissed, float64(s.Status.MissedRuns), s.Name)
		e.lastBackup(s.Name, states[s.Name])
	}
}

func (e emitter) lastBackup(name string, s *scheduleState) {
	e.put(scheduleUnclean, float64(s.unclean), name)
	if len(s.ended) > 0 {
		e.put(scheduleLastPhase, 1, name, string(s.ended[0].Status.Phase))
	}
	if s.usable == nil {
		return
	}
	status := &s.usable.Status
	if status.StartTime != nil {
		e.put(scheduleLastTook, status.CompletionTime.Sub(status.StartTime.Time).Seconds(), name)
	}
	e.put(scheduleLastItems, float64(status.Counts.Items), name)
	e.put(scheduleLastErrors, float64(status.Counts.Errors), name)
	e.put(scheduleLastBytes, float64(status.Counts.Bytes), name)
	e.put(scheduleLastStored, float64(status.StoredBytes), name)
}
