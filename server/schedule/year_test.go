package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the zones that these tests were written for

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/server/schedule/clock"
	"kedge.dev/kedge/server/schedule/clocktest"
)

// tick is how often the server of these worlds looks at its schedule.
const tick = 5 * time.Minute

// incident is something that happens to a world.
type incident struct {
	Kind   string // down, paused: for a while; step: the clock is set; request: a run is asked for
	At     time.Duration
	Amount time.Duration
}

// world is a stretch of time in which a server follows one schedule.
type world struct {
	plan      clocktest.Plan
	zone      *time.Location
	spec      v1alpha1.ScheduleSpec
	from      time.Time
	length    time.Duration
	lasts     func(run int) time.Duration // how long a backup takes
	incidents []incident
}

// moment is what the world is like at a time.
type moment struct {
	up, paused bool
	now        time.Time // that the server's clock shows
	request    string
}

func (w *world) at(since time.Duration) moment {
	m := moment{up: true, now: w.from.Add(since)}
	for i, in := range w.incidents {
		during := in.At <= since && since < in.At+in.Amount
		switch in.Kind {
		case "down":
			m.up = m.up && !during
		case "paused":
			m.paused = m.paused || during
		case "step":
			if in.At <= since {
				m.now = m.now.Add(in.Amount)
			}
		case "request":
			if in.At <= since {
				m.request = fmt.Sprint("request ", i)
			}
		}
	}
	return m
}

// begun is one run of a schedule.
type begun struct {
	Time      time.Time // that it is for
	At        time.Duration
	Requested bool
}

// history is what a world leads to.
type history struct {
	runs   []begun
	missed int64
}

// model follows a schedule in the plainest way: it has a list of all its times, and a queue of those that have come and wait.
type model struct {
	w       *world
	times   []time.Time
	jitter  time.Duration
	history history

	seen     bool
	paused   bool
	cursor   time.Time // times up to it are in the queue, or done with
	done     time.Time // the newest that was begun or given up
	queue    []time.Time
	request  string
	lastDone time.Time // when a backup ended
}

func (m *model) look(since time.Duration, now moment, active bool) {
	if !m.seen || m.paused != now.paused {
		m.seen, m.paused, m.queue = true, now.paused, nil
		m.cursor = now.now
		if m.done.After(m.cursor) {
			m.cursor = m.done
		}
	}
	started := false
	if !m.paused {
		m.wait(now.now)
		m.arrive(now.now)
		started = m.serve(since, now.now, active)
	}
	if now.request != m.request && (started || !active) {
		m.request = now.request
		if started {
			m.history.runs[len(m.history.runs)-1].Requested = true
			return
		}
		at := now.now
		if _, own := slices.BinarySearchFunc(m.times, at, time.Time.Compare); own {
			at = at.Add(time.Second)
		}
		m.history.runs = append(m.history.runs, begun{at, since, true})
	}
}

// wait takes times out of the queue again that a clock which was set back has not come to yet: they will come.
func (m *model) wait(now time.Time) {
	for i, t := range m.queue {
		if t.Add(m.jitter).After(now) {
			m.queue, m.cursor = m.queue[:i], t.Add(-time.Second)
			return
		}
	}
}

// arrive puts the times that have come into the queue.
func (m *model) arrive(now time.Time) {
	for _, t := range m.times {
		if t.After(now) {
			return
		}
		if t.After(m.cursor) && !t.Add(m.jitter).After(now) {
			m.queue = append(m.queue, t)
			m.cursor = t
		}
	}
}

// serve gives up all but the newest of the queue, and begins or gives up that one where it can.
func (m *model) serve(since time.Duration, now time.Time, active bool) bool {
	for len(m.queue) > 1 {
		m.drop()
	}
	if len(m.queue) == 0 {
		return false
	}
	late := now.Sub(m.queue[0].Add(m.jitter))
	if d := m.w.spec.StartingDeadline; d != nil && late > d.Duration {
		m.drop()
		return false
	}
	if active {
		return false
	}
	if m.w.spec.MissedRuns == v1alpha1.MissedRunSkip && late > 5*time.Minute && now.Sub(m.lastDone) > 5*time.Minute {
		m.drop()
		return false
	}
	m.done = m.queue[0]
	m.queue = nil
	m.history.runs = append(m.history.runs, begun{m.done, since, false})
	return true
}

func (m *model) drop() {
	m.done, m.queue = m.queue[0], m.queue[1:]
	m.history.missed++
}

// server follows a schedule by schedule.Decide.
type server struct {
	tb      rapid.TB
	w       *world
	times   *clock.Times
	status  v1alpha1.ScheduleStatus
	history history
	ended   time.Time
}

func (s *server) situation(now moment, active bool) schedule.Situation {
	spec := s.w.spec
	spec.Paused = now.paused
	return schedule.Situation{
		Spec: &spec, Status: &s.status, Times: s.times, UID: "uid of " + "the schedule", Request: now.request, Created: s.w.from,
		Now: now.now, Held: active, LastEnded: s.ended,
	}
}

func (s *server) look(since time.Duration, now moment, active bool) {
	d := schedule.Decide(s.situation(now, active))
	if active && d.Start != nil {
		s.tb.Fatalf("%s: a run begins beside another", now.now)
	}
	if !now.paused && !d.Next.After(now.now) {
		s.tb.Fatalf("%s: the next run is said to be at %s", now.now, d.Next)
	}
	if d.Start != nil {
		s.history.runs = append(s.history.runs, begun{d.Start.Time, since, d.Start.Requested})
	}
	s.history.missed += d.Missed
	schedule.Note(&d, &s.status)
	if again := schedule.Decide(s.situation(now, active)); again.Start != nil && (d.Start != nil || !again.Start.Requested) || again.Missed != 0 {
		s.tb.Fatalf("%s: decided again, after %+v: %+v", now.now, d, again)
	}
}

// live lets a model and a server follow the same schedule through the same world, and compares what they did at each step.
func (w *world) live(tb rapid.TB) history {
	times, err := clock.Parse(w.spec.Schedule, w.zone)
	if err != nil {
		tb.Fatal(err)
	}
	m := &model{w: w, times: w.plan.Walk(w.zone, w.from.Add(-72*time.Hour), w.from.Add(w.length+72*time.Hour))}
	s := &server{tb: tb, w: w, times: times}
	m.jitter = schedule.JitterOf(&w.spec, "uid of the schedule")
	var end time.Duration // of the active backup
	active := false
	for since := time.Duration(0); since < w.length; since += tick {
		now := w.at(since)
		if !now.up {
			continue // what ends meanwhile is seen later
		}
		if active && since >= end {
			active = false
			m.lastDone, s.ended = now.now, now.now
		}
		m.trim(now.now)
		m.look(since, now, active)
		s.look(since, now, active)
		w.compare(tb, now, m, s)
		if n := len(s.history.runs); n > 0 && s.history.runs[n-1].At == since {
			active, end = true, since+w.lasts(n)
		}
	}
	return s.history
}

// trim forgets times that are long over, so that the model is not slow.
func (m *model) trim(now time.Time) {
	for len(m.times) > 0 && m.times[0].Before(now.Add(-14*24*time.Hour)) && !m.times[0].After(m.cursor) {
		m.times = m.times[1:]
	}
}

func (w *world) compare(tb rapid.TB, now moment, m *model, s *server) {
	want, got := m.history, s.history
	if len(want.runs) == len(got.runs) && want.missed == got.missed {
		if n := len(want.runs); n == 0 || want.runs[n-1].Time.Equal(got.runs[n-1].Time) && want.runs[n-1].Requested == got.runs[n-1].Requested {
			return
		}
	}
	last := func(h history) string {
		if len(h.runs) == 0 {
			return "no run"
		}
		return fmt.Sprintf("%+v", h.runs[len(h.runs)-1])
	}
	tb.Fatalf("%s %+v at %s:\nmodel: %d runs, %d missed, last %s\n  got: %d runs, %d missed, last %s", w.spec.Schedule, w.spec, now.now,
		len(want.runs), want.missed, last(want), len(got.runs), got.missed, last(got))
}

var zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// TestYear takes schedules through a year with 200 incidents.
func TestYear(t *testing.T) {
	for i, c := range []struct {
		plan     int
		zone     string
		missed   v1alpha1.MissedRunPolicy
		deadline *metav1.Duration
		jitter   *metav1.Duration
	}{
		{1, "Europe/Berlin", "", nil, nil},
		{1, "UTC", v1alpha1.MissedRunSkip, nil, duration(10 * time.Minute)},
		{2, "Australia/Lord_Howe", "", duration(20 * time.Minute), nil},
		{3, "America/New_York", v1alpha1.MissedRunCatchUp, nil, duration(time.Hour)},
		{4, "Australia/Lord_Howe", v1alpha1.MissedRunSkip, duration(time.Hour), nil},
		{5, "Europe/Berlin", "", duration(3 * time.Hour), nil},
		{6, "America/New_York", "", nil, nil},
		{7, "Europe/Berlin", v1alpha1.MissedRunSkip, nil, nil},
		{8, "Australia/Lord_Howe", "", nil, duration(24 * time.Hour)},
	} {
		plan := clocktest.Plans[c.plan]
		t.Run(fmt.Sprint(plan.Expression, " ", c.zone), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(i), 2026))
			w := newWorld(t, plan, c.zone)
			w.from, w.length = time.Date(2026, 1, 1, 0, 0, 17, 0, time.UTC), 365*24*time.Hour
			w.spec.MissedRuns, w.spec.StartingDeadline, w.spec.Jitter = c.missed, c.deadline, c.jitter
			w.lasts = func(int) time.Duration { return time.Duration(random.IntN(100)) * time.Minute }
			for range 200 {
				kind := []string{"down", "paused", "step", "request"}[random.IntN(4)]
				in := incident{Kind: kind, At: time.Duration(random.Int64N(int64(w.length))), Amount: time.Duration(random.IntN(72*60)) * time.Minute}
				if kind == "step" {
					in.Amount = time.Duration(random.IntN(4*3600)-2*3600) * time.Second
				}
				w.incidents = append(w.incidents, in)
			}
			h := w.live(t)
			requested := 0
			forTime := map[time.Time]bool{}
			for _, r := range h.runs {
				if forTime[r.Time] {
					t.Errorf("two runs for %s", r.Time)
				}
				forTime[r.Time] = true
				if r.Requested {
					requested++
				}
			}
			t.Logf("%d runs, %d of them asked for, %d times missed", len(h.runs), requested, h.missed)
			if len(h.runs) == 0 || requested == 0 {
				t.Errorf("the year shows nothing: %d runs, %d asked for", len(h.runs), requested)
			}
		})
	}
}

func newWorld(tb rapid.TB, plan clocktest.Plan, zone string) *world {
	location, err := clock.LoadZone(zone)
	if err != nil {
		tb.Fatal(err)
	}
	return &world{plan: plan, zone: location, spec: v1alpha1.ScheduleSpec{Schedule: plan.Expression, TimeZone: zone}}
}

// TestUndisturbed takes schedules through a year in which nothing happens: every time has its run.
func TestUndisturbed(t *testing.T) {
	for _, zone := range zones {
		for _, plan := range clocktest.Plans[1:] {
			t.Run(plan.Expression+" "+zone, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, plan, zone)
				w.from, w.length = time.Date(2026, 1, 1, 0, 0, 17, 0, time.UTC), 365*24*time.Hour
				w.lasts = func(int) time.Duration { return 0 }
				h := w.live(t)
				want := plan.Walk(w.zone, w.from, w.from.Add(w.length-tick))
				if len(h.runs) != len(want) || h.missed != 0 {
					t.Fatalf("%d runs and %d missed, want %d and none", len(h.runs), h.missed, len(want))
				}
				for i := range want {
					if !h.runs[i].Time.Equal(want[i]) {
						t.Fatalf("run %d is for %s, want %s", i, h.runs[i].Time, want[i])
					}
				}
			})
		}
	}
}

// TestAnyWorld draws worlds of some weeks, with shrinking.
func TestAnyWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.SampledFrom(clocktest.Plans[1:]).Draw(t, "plan"), rapid.SampledFrom(zones).Draw(t, "zone"))
		w.from = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 365*24*60).Draw(t, "from")) * time.Minute)
		w.length = time.Duration(rapid.IntRange(1, 30).Draw(t, "days")) * 24 * time.Hour
		w.spec.MissedRuns = rapid.SampledFrom([]v1alpha1.MissedRunPolicy{"", v1alpha1.MissedRunSkip, v1alpha1.MissedRunCatchUp}).Draw(t, "missed")
		if rapid.Bool().Draw(t, "with deadline") {
			w.spec.StartingDeadline = duration(time.Duration(rapid.IntRange(1, 600).Draw(t, "deadline")) * time.Minute)
		}
		if rapid.Bool().Draw(t, "with jitter") {
			w.spec.Jitter = duration(time.Duration(rapid.IntRange(1, 24*3600).Draw(t, "jitter")) * time.Second)
		}
		lasts := time.Duration(rapid.IntRange(0, 180).Draw(t, "lasts")) * time.Minute
		w.lasts = func(int) time.Duration { return lasts }
		w.incidents = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) incident {
			in := incident{
				Kind:   rapid.SampledFrom([]string{"down", "paused", "step", "request"}).Draw(t, "kind"),
				At:     time.Duration(rapid.IntRange(0, int(w.length/time.Minute)).Draw(t, "at")) * time.Minute,
				Amount: time.Duration(rapid.IntRange(1, 48*60).Draw(t, "amount")) * time.Minute,
			}
			if in.Kind == "step" {
				in.Amount = time.Duration(rapid.IntRange(-5400, 5400).Draw(t, "step")) * time.Second
			}
			return in
		}), 0, 12).Draw(t, "incidents")
		w.live(t)
	})
}
