package schedule

import (
	"cmp"
	"hash/fnv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/schedule/clock"
)

const (
	// onTime is how late a run may begin and still not have been missed. Longer than a new leader needs.
	onTime = 5 * time.Minute
	// wrongClock is how far in the future something that has happened may be. What is further was written by a clock that was wrong, and is
	// not waited for.
	wrongClock = 24 * time.Hour
	// oldRequest is how much older than its schedule a request may be, for clocks that differ. An older one came with a copy.
	oldRequest = time.Hour
	// followingPaused is the value of status.following of a paused schedule.
	followingPaused = "paused"
)

// Situation is all that a decision depends on.
type Situation struct {
	Spec   *v1alpha1.ScheduleSpec
	Status *v1alpha1.ScheduleStatus
	Times  *clock.Times
	UID    types.UID // chooses the jitter
	// Request is the value of the annotation that asks for a run; Created is when the schedule was made.
	Request string
	Created time.Time
	Now     time.Time
	// Held says that no run can begin now: one is active, or the template cannot be followed.
	Held bool
	// LastEnded is when the newest of the schedule's backups ended; zero where there is none.
	LastEnded time.Time
}

// Run is a run that is to begin.
type Run struct {
	// Time is the time by the clock that the run is for; for one that was only asked for, the present.
	Time time.Time
	// ByClock and Requested say why; both where a request is met by a run that was due anyway.
	ByClock, Requested bool
}

// Decision is what is to be noted and done.
type Decision struct {
	Following string
	Since     time.Time
	LastRun   time.Time // zero where there was none
	Request   string    // that was followed last
	// Start is the run to begin; nil for none.
	Start *Run
	// Missed times were given up by this decision; MissedLast is the newest of them.
	Missed     int64
	MissedLast time.Time
	// Due is since when a run has been waiting to begin; zero where none is.
	Due time.Time
	// Next is when the next run is due; zero while paused.
	Next time.Time
}

// Decide says what a schedule does now. It is a pure function: asked twice, it says the same; asked again after its decision was noted, it
// begins nothing a second time.
//
// A time is due when its jitter has passed. Times are looked at in the order of the clock and only forward: none that is not after Since and
// after LastRun counts, so a clock that is set back begins no run twice. Of several due times only the newest can still be run.
func Decide(s Situation) Decision {
	d := s.remembered()
	times := s.Times.From(d.Since)
	if d.Following != followingPaused {
		s.byClock(&d, times)
	}
	s.byRequest(&d, times)
	return d
}

// remembered is what the status says, where that is about this spec and can be true.
func (s *Situation) remembered() Decision {
	d := Decision{Following: following(s.Spec), Request: s.Status.LastRunRequest, Since: s.Now.Truncate(time.Second)}
	limit := s.Now.Add(wrongClock)
	if t := s.Status.LastRun; t != nil {
		if t.After(limit) {
			return d
		}
		d.LastRun = t.Time
	}
	if t := s.Status.Since; t != nil && !t.After(limit) && s.Status.Following == d.Following {
		d.Since = t.Time
	}
	return d
}

// following is what a spec has a schedule follow.
func following(spec *v1alpha1.ScheduleSpec) string {
	if spec.Paused {
		return followingPaused
	}
	return spec.Schedule + " " + cmp.Or(spec.TimeZone, "UTC")
}

func (s *Situation) byClock(d *Decision, times *clock.Times) {
	jitter := jitterOf(s.Spec, s.UID)
	base := latest(d.Since, d.LastRun)
	passed := s.Now.Add(-jitter)
	d.Next = times.Next(latest(base, passed)).Add(jitter)
	newest := times.Last(base, passed)
	if newest.IsZero() {
		return
	}
	older := times.Count(base, newest) - 1
	due := newest.Add(jitter)
	switch {
	case s.tooLate(due):
		d.giveUp(older+1, newest)
	case s.Held:
		d.Due = due
		if older > 0 {
			d.giveUp(older, times.Last(base, newest.Add(-time.Second)))
		}
	default:
		d.giveUp(older, times.Last(base, newest.Add(-time.Second)))
		d.LastRun = newest
		d.Start = &Run{Time: newest, ByClock: true}
	}
}

// tooLate says whether a run that was due at a time is not begun any more.
func (s *Situation) tooLate(due time.Time) bool {
	if deadline := s.Spec.StartingDeadline; deadline != nil && s.Now.Sub(due) > deadline.Duration {
		return true
	}
	if s.Spec.MissedRuns != v1alpha1.MissedRunSkip || s.Held {
		return false
	}
	return s.Now.Sub(latest(due, s.LastEnded)) > onTime // waiting for the run before is not missing
}

func (d *Decision) giveUp(n int64, newest time.Time) {
	if n > 0 {
		d.Missed, d.MissedLast, d.LastRun = n, newest, newest
	}
}

// byRequest follows a new value of the annotation: with the run that begins anyway, or with one of its own.
func (s *Situation) byRequest(d *Decision, times *clock.Times) {
	if s.Request == d.Request || s.Request == "" {
		return
	}
	if at, err := time.Parse(time.RFC3339, s.Request); err == nil && at.Before(s.Created.Add(-oldRequest)) {
		d.Request = s.Request
		return
	}
	if s.Held {
		return
	}
	d.Request = s.Request
	if d.Start != nil {
		d.Start.Requested = true
		return
	}
	at := s.Now.UTC().Truncate(time.Second)
	if times.Next(at.Add(-time.Second)).Equal(at) {
		at = at.Add(time.Second) // the name of the run by the clock stays free
	}
	d.Start = &Run{Time: at, Requested: true}
}

// jitterOf is how much later than its times a schedule runs, in whole seconds.
func jitterOf(spec *v1alpha1.ScheduleSpec, uid types.UID) time.Duration {
	if spec.Jitter == nil || spec.Jitter.Duration < time.Second {
		return 0
	}
	return time.Duration(hashOf(uid)%uint64(spec.Jitter.Duration/time.Second)) * time.Second
}

// hashOf is a number that is always the same for one object, and spread evenly over many.
func hashOf(uid types.UID) uint64 {
	h := fnv.New64a()
	h.Write([]byte(uid))
	return h.Sum64()
}

// why says in words why a run begins.
func (d *Decision) why() string {
	switch {
	case d.Start == nil:
		return "it was noted before"
	case d.Start.Requested:
		return "it was asked for"
	}
	return "due at " + d.Start.Time.UTC().Format(time.RFC3339)
}

// note writes a decision into a status.
func (d *Decision) note(s *v1alpha1.ScheduleStatus) {
	s.Following, s.LastRunRequest = d.Following, d.Request
	s.Since, s.LastRun, s.NextRun = stamp(d.Since), stamp(d.LastRun), stamp(d.Next)
	s.MissedRuns += d.Missed
}

// stamp is a time of the API; nil for none.
func stamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t.Truncate(time.Second).Local())
	return &m
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
