package schedule_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/server/schedule/clock"
)

var noon = time.Date(2026, 11, 25, 12, 0, 3, 0, time.UTC)

// hourly is the situation of an hourly schedule, some time before noon noted, at noon.
func hourly(t *testing.T, since, lastRun time.Duration) schedule.Situation {
	t.Helper()
	times, err := clock.Parse("@hourly", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(d time.Duration) *metav1.Time {
		at := metav1.NewTime(noon.Truncate(time.Hour).Add(d))
		return &at
	}
	return schedule.Situation{
		Spec: &v1alpha1.ScheduleSpec{Schedule: "@hourly"}, Times: times, UID: "a uid", Created: noon.Add(-time.Hour), Now: noon,
		Status: &v1alpha1.ScheduleStatus{Following: "@hourly UTC", Since: stamp(since), LastRun: stamp(lastRun)},
	}
}

func summary(d schedule.Decision) string {
	start := "none"
	if d.Start != nil {
		start = d.Start.Time.Format("15:04:05")
	}
	return fmt.Sprintf("start %s, missed %d, next %s", start, d.Missed, d.Next.Format("15:04:05"))
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name           string
		since, lastRun time.Duration
		change         func(*schedule.Situation)
		want           string
	}{
		{"on time", -9 * time.Hour, -time.Hour, nil, "start 12:00:00, missed 0, next 13:00:00"},
		{"done", -9 * time.Hour, 0, nil, "start none, missed 0, next 13:00:00"},
		{"missed", -9 * time.Hour, -4 * time.Hour, nil, "start 12:00:00, missed 3, next 13:00:00"},
		{"since is newer", -2 * time.Hour, -4 * time.Hour, nil, "start 12:00:00, missed 1, next 13:00:00"},
		{"skipped", -9 * time.Hour, -4 * time.Hour, func(s *schedule.Situation) {
			s.Spec.MissedRuns, s.Now = v1alpha1.MissedRunSkip, noon.Add(6*time.Minute)
		}, "start none, missed 4, next 13:00:00"},
		{"waited, not skipped", -9 * time.Hour, -time.Hour, func(s *schedule.Situation) {
			s.Spec.MissedRuns, s.Now, s.LastEnded = v1alpha1.MissedRunSkip, noon.Add(40*time.Minute), noon.Add(39*time.Minute)
		}, "start 12:00:00, missed 0, next 13:00:00"},
		{"after the deadline", -9 * time.Hour, -time.Hour, func(s *schedule.Situation) {
			s.Spec.StartingDeadline, s.Now = duration(10*time.Minute), noon.Add(11*time.Minute)
		}, "start none, missed 1, next 13:00:00"},
		{"held", -9 * time.Hour, -3 * time.Hour, func(s *schedule.Situation) { s.Held = true }, "start none, missed 2, next 13:00:00"},
		{"the zone was changed", -9 * time.Hour, -3 * time.Hour, func(s *schedule.Situation) { s.Status.Following = "@hourly Europe/Berlin" },
			"start none, missed 0, next 13:00:00"},
		{"set back", -9 * time.Hour, 2 * time.Hour, nil, "start none, missed 0, next 15:00:00"},
		{"noted by a wrong clock", -9 * time.Hour, 240 * time.Hour, nil, "start none, missed 0, next 13:00:00"},
		{"begun by a wrong clock", 240 * time.Hour, -time.Hour, nil, "start none, missed 0, next 13:00:00"},
		{"asked for", -9 * time.Hour, 0, func(s *schedule.Situation) { s.Request = "now" }, "start 12:00:03, missed 0, next 13:00:00"},
		{"asked for in the second of a time", -9 * time.Hour, 0, func(s *schedule.Situation) { s.Request, s.Now = "now", noon.Truncate(time.Minute) },
			"start 12:00:01, missed 0, next 13:00:00"},
		{"asked for, and due", -9 * time.Hour, -time.Hour, func(s *schedule.Situation) { s.Request = "now" }, "start 12:00:00, missed 0, next 13:00:00"},
		{"asked for before", -9 * time.Hour, 0, func(s *schedule.Situation) { s.Request, s.Status.LastRunRequest = "now", "now" },
			"start none, missed 0, next 13:00:00"},
		{"asked for, of a copy", -9 * time.Hour, 0, func(s *schedule.Situation) { s.Request = "2026-11-25T09:00:00Z" }, "start none, missed 0, next 13:00:00"},
		{"asked for, a little before it was made", -9 * time.Hour, 0, func(s *schedule.Situation) { s.Request = "2026-11-25T10:59:00Z" },
			"start 12:00:03, missed 0, next 13:00:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := hourly(t, c.since, c.lastRun)
			if c.change != nil {
				c.change(&s)
			}
			if got := summary(schedule.Decide(s)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestJitter checks that it is always the same for one schedule, less than the spec's, and not the same for all.
func TestJitter(t *testing.T) {
	spec := &v1alpha1.ScheduleSpec{Jitter: duration(10 * time.Minute)}
	distinct := map[time.Duration]bool{}
	for i := range 200 {
		uid := types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i))
		j := schedule.JitterOf(spec, uid)
		if j < 0 || j >= 10*time.Minute || j%time.Second != 0 || j != schedule.JitterOf(spec, uid) {
			t.Fatalf("%s: %s", uid, j)
		}
		distinct[j] = true
	}
	if len(distinct) < 100 {
		t.Errorf("200 schedules have only %d jitters", len(distinct))
	}
	if j := schedule.JitterOf(&v1alpha1.ScheduleSpec{}, "a uid"); j != 0 {
		t.Errorf("%s without a jitter", j)
	}
}
