// Package clock knows the times of cron expressions in zones with daylight saving.
//
// The rule is one for all zones. An expression names wall times. A wall time that occurs once is run then. One that a jump of the zone
// leaves out is run at the jump; many that are left out by one jump are one run. One that occurs twice is run the first time only. So the
// times of an expression are a strictly growing row, and a daily run is one run on each day of the year.
package clock

import (
	"math/bits"
	"time"
)

const (
	daySeconds = 24 * 60 * 60
	dayMinutes = 24 * 60
	// horizon is how many days are looked through for the next time: 29 February is at most eight years away.
	horizon = 9 * 366
)

// Times are the times of one expression in one zone. They are whole seconds.
type Times struct {
	minutes, hours, days, months, weekdays uint64 // a bit for each value
	eitherDay                              bool   // day of month and day of week are both restricted: one of them suffices
	zone                                   zone

	every  int64 // seconds between the times of "@every"; 0 for all others
	anchor int64 // what "@every" counts from
}

// From gives the same times, counted from another moment where they are those of "@every"; others have no beginning.
func (t *Times) From(anchor time.Time) *Times {
	u := *t
	u.anchor = anchor.Unix()
	return &u
}

// Next is the first time after a moment; zero where there is none.
func (t *Times) Next(after time.Time) time.Time {
	from := after.Unix()
	if t.every > 0 {
		return unix(t.anchor + (max(floorDiv(from-t.anchor, t.every), 0)+1)*t.every)
	}
	first := t.zone.day(from) - 1
	for d := first; d < first+horizon; d++ {
		if at, ok := t.firstOf(d, from); ok {
			return unix(at)
		}
	}
	return time.Time{}
}

// Last is the newest time that is after one moment and not after another; zero where there is none.
func (t *Times) Last(after, until time.Time) time.Time {
	from, to := after.Unix(), until.Unix()
	if t.every > 0 {
		at := t.anchor + floorDiv(to-t.anchor, t.every)*t.every
		if at <= from || at <= t.anchor {
			return time.Time{}
		}
		return unix(at)
	}
	for d := t.zone.day(to) + 1; d >= t.zone.day(from)-1; d-- {
		if at, ok := t.lastOf(d, to); ok {
			if at <= from {
				break
			}
			return unix(at)
		}
	}
	return time.Time{}
}

// Count is how many times are after one moment and not after another. It is quick for many years too.
func (t *Times) Count(after, until time.Time) int64 {
	from, to := after.Unix(), until.Unix()
	if to <= from {
		return 0
	}
	if t.every > 0 {
		return max(floorDiv(to-t.anchor, t.every), 0) - max(floorDiv(from-t.anchor, t.every), 0)
	}
	perDay := int64(bits.OnesCount64(t.minutes) * bits.OnesCount64(t.hours))
	n, end := int64(0), t.zone.day(to)+1
	for d := t.zone.day(from) - 1; d <= end; d++ {
		if !t.onDay(d) {
			continue
		}
		if offset, plain := t.zone.plain(d); plain {
			begin := d*daySeconds - offset
			if begin > from && begin+daySeconds <= to {
				n += perDay
				from = begin + daySeconds - 1
				continue
			}
		}
		t.each(d, func(at int64) bool {
			if at > from && at <= to {
				n++
				from = at
			}
			return at <= to
		})
	}
	return n
}

// onDay says whether a date, in days since 1970, is one of the expression's.
func (t *Times) onDay(d int64) bool {
	date := time.Unix(d*daySeconds, 0).UTC()
	if t.months&(1<<uint(date.Month())) == 0 {
		return false
	}
	dayOfMonth := t.days&(1<<uint(date.Day())) != 0
	dayOfWeek := t.weekdays&(1<<uint(date.Weekday())) != 0
	if t.eitherDay {
		return dayOfMonth || dayOfWeek
	}
	return dayOfMonth && dayOfWeek
}

// firstOf is the first time of a date that is after a moment.
func (t *Times) firstOf(d, after int64) (at int64, found bool) {
	if !t.onDay(d) {
		return 0, false
	}
	if offset, plain := t.zone.plain(d); plain {
		begin := d*daySeconds - offset
		m, ok := t.minuteFrom(max(floorDiv(after-begin, 60)+1, 0))
		return begin + m*60, ok
	}
	t.each(d, func(next int64) bool {
		at, found = next, next > after
		return !found
	})
	return at, found
}

// lastOf is the last time of a date that is not after a moment.
func (t *Times) lastOf(d, until int64) (at int64, found bool) {
	if !t.onDay(d) {
		return 0, false
	}
	if offset, plain := t.zone.plain(d); plain {
		begin := d*daySeconds - offset
		m, ok := t.minuteUntil(min(floorDiv(until-begin, 60), dayMinutes-1))
		return begin + m*60, ok
	}
	t.each(d, func(next int64) bool {
		if next <= until {
			at, found = next, true
		}
		return next <= until
	})
	return at, found
}

// each gives the times of a date to yield, in order, until that is false. A jump gives one moment several times.
func (t *Times) each(d int64, yield func(at int64) bool) {
	for m, ok := t.minuteFrom(0); ok; m, ok = t.minuteFrom(m + 1) {
		if !yield(t.zone.moment(d*daySeconds + m*60)) {
			return
		}
	}
}

// minuteFrom is the expression's first minute of a day from a given one on.
func (t *Times) minuteFrom(m int64) (int64, bool) {
	if m >= dayMinutes {
		return 0, false
	}
	hour, minute := m/60, m%60
	if t.hours&(1<<hour) != 0 {
		if rest := t.minutes >> minute; rest != 0 {
			return m + int64(bits.TrailingZeros64(rest)), true
		}
	}
	later := t.hours >> (hour + 1)
	if later == 0 {
		return 0, false
	}
	hour += 1 + int64(bits.TrailingZeros64(later))
	return hour*60 + int64(bits.TrailingZeros64(t.minutes)), true
}

// minuteUntil is the expression's last minute of a day up to a given one.
func (t *Times) minuteUntil(m int64) (int64, bool) {
	if m < 0 {
		return 0, false
	}
	hour, minute := m/60, m%60
	if t.hours&(1<<hour) != 0 {
		if rest := t.minutes & (1<<(minute+1) - 1); rest != 0 {
			return hour*60 + int64(bits.Len64(rest)) - 1, true
		}
	}
	earlier := t.hours & (1<<hour - 1)
	if earlier == 0 {
		return 0, false
	}
	hour = int64(bits.Len64(earlier)) - 1
	return hour*60 + int64(bits.Len64(t.minutes)) - 1, true
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// floorDiv divides and rounds down, below zero too: a machine without a clock begins in 1970.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}
