// Package clocktest is a plain model of schedules for tests: it reads no expression and computes nothing, but looks at clocks, minute by
// minute.
package clocktest

import "time"

// Plan is an expression with its meaning, written down by hand.
type Plan struct {
	Expression string
	Means      func(wall time.Time) bool
}

// Plans are expressions of every kind. The first comes every minute.
var Plans = []Plan{
	{"* * * * *", func(time.Time) bool { return true }},
	{"0 * * * *", func(w time.Time) bool { return w.Minute() == 0 }},
	{"*/20 1-3 * * *", func(w time.Time) bool { return w.Minute()%20 == 0 && w.Hour() >= 1 && w.Hour() <= 3 }},
	{"30 2 * * *", func(w time.Time) bool { return w.Hour() == 2 && w.Minute() == 30 }},
	{"@daily", func(w time.Time) bool { return w.Hour() == 0 && w.Minute() == 0 }},
	{"15 2 1 * *", func(w time.Time) bool { return w.Day() == 1 && w.Hour() == 2 && w.Minute() == 15 }},
	{"@monthly", func(w time.Time) bool { return w.Day() == 1 && w.Hour() == 0 && w.Minute() == 0 }},
	{"5 1 * * sun,3", func(w time.Time) bool {
		return (w.Weekday() == time.Sunday || w.Weekday() == time.Wednesday) && w.Hour() == 1 && w.Minute() == 5
	}},
	{"45 1 13 * 5", func(w time.Time) bool {
		return (w.Weekday() == time.Friday || w.Day() == 13) && w.Hour() == 1 && w.Minute() == 45
	}},
	{"0 0 29-31 2,12 *", func(w time.Time) bool {
		return w.Day() >= 29 && (w.Month() == time.February || w.Month() == time.December) && w.Hour() == 0 && w.Minute() == 0
	}},
}

// minute is a minute that clocks show, counted as if it were one of UTC.
type minute int64

func (m minute) date() time.Time { return time.Unix(int64(m)*60, 0).UTC() }

// Walk goes through time minute by minute, looks at what the clocks of a zone show, and gives the times of a plan after from and not after to:
// a minute that was never shown counts when the clocks have passed it, and one that was shown before does not count again.
func (p Plan) Walk(location *time.Location, from, to time.Time) []time.Time {
	shown := func(at time.Time) minute {
		_, offset := at.In(location).Zone()
		return minute((at.Unix() + int64(offset)) / 60)
	}
	begin := from.Add(-48 * time.Hour).Truncate(time.Minute) // what clocks showed two days ago they do not show again
	furthest := shown(begin)
	var times []time.Time
	for at := begin.Add(time.Minute); !at.After(to); at = at.Add(time.Minute) {
		now, due := shown(at), false
		for m := furthest + 1; m <= now; m++ {
			due = due || p.Means(m.date())
		}
		furthest = max(furthest, now)
		if due && at.After(from) {
			times = append(times, at)
		}
	}
	return times
}
