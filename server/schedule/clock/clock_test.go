package clock_test

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones that these tests were written for

	"pgregory.net/rapid"

	"kedge.dev/kedge/server/schedule/clock"
	"kedge.dev/kedge/server/schedule/clocktest"
)

func zone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	location, err := clock.LoadZone(name)
	if err != nil {
		tb.Fatal(err)
	}
	return location
}

func parse(tb testing.TB, expression, zoneName string) *clock.Times {
	tb.Helper()
	times, err := clock.Parse(expression, zone(tb, zoneName))
	if err != nil {
		tb.Fatal(err)
	}
	return times
}

func moment(tb testing.TB, text string) time.Time {
	tb.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		tb.Fatal(err)
	}
	return at
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ name, expression, zone, after, want string }{
		{"minutes", "*/15 * * * *", "", "2026-03-01T10:00:00Z", "2026-03-01T10:15:00Z"},
		{"a part of a second before", "0 * * * *", "", "2026-03-01T09:59:59Z", "2026-03-01T10:00:00Z"},
		{"the time itself is over", "0 10 * * *", "", "2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"},
		{"in a zone", "0 3 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z", "2026-01-11T02:00:00Z"},
		{"names of days", "0 12 * * mon-fri", "", "2026-11-27T12:00:00Z", "2026-11-30T12:00:00Z"},
		{"names of months", "0 0 1 JAN *", "", "2026-02-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"either day", "0 0 13 * 5", "", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"},
		{"either day, the other", "0 0 13 * 5", "", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"},
		{"leap day", "0 0 29 2 *", "", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"@weekly", "@weekly", "", "2026-11-25T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"@yearly", "@annually", "Asia/Tokyo", "2026-11-25T00:00:00Z", "2026-12-31T15:00:00Z"},

		// Berlin: 2026-03-29 02:00 becomes 03:00 (01:00 UTC); 2026-10-25 03:00 becomes 02:00 (01:00 UTC).
		{"left out: at the jump", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"left out: once", "*/20 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"},
		{"left out, and at the jump's end: once", "0 2,3 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"},
		{"twice: the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"twice: not the second", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"twice: the next hour's", "0 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"},
		// Lord Howe: half an hour. 2026-10-04 02:00 becomes 02:30 (2026-10-03 15:30 UTC); 2026-04-05 02:00 becomes 01:30 (2026-04-04 15:00 UTC).
		{"half an hour left out", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"},
		{"half an hour: what is not left out", "45 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:45:00Z"},
		{"half an hour twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", "2026-04-04T14:45:00Z"},
		{"half an hour twice: once", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"},
		// Sao Paulo left midnight out until 2018; Apia a whole day, 2011-12-30.
		{"no midnight", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"},
		{"no such day", "0 12 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2011-12-30T10:00:00Z"},
		{"no such day: once", "0 0 30,31 12 *", "Pacific/Apia", "2011-12-30T10:00:00Z", "2012-12-29T10:00:00Z"},
		{"before 1970", "30 * * * *", "America/New_York", "1969-12-31T23:31:30Z", "1970-01-01T00:30:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parse(t, c.expression, c.zone).Next(moment(t, c.after))
			if want := moment(t, c.want); !got.Equal(want) {
				t.Errorf("after %s: %s, want %s", c.after, got.Format(time.RFC3339), c.want)
			}
		})
	}
}

func TestEvery(t *testing.T) {
	anchor := moment(t, "2026-03-29T00:10:07Z")
	times := parse(t, "@every 6h", "Europe/Berlin").From(anchor)
	for _, c := range []struct {
		after time.Time
		want  time.Duration // after the anchor
	}{
		{anchor.Add(-48 * time.Hour), 6 * time.Hour},
		{anchor, 6 * time.Hour},
		{anchor.Add(6*time.Hour - time.Second), 6 * time.Hour},
		{anchor.Add(6 * time.Hour), 12 * time.Hour},
		{anchor.Add(24 * time.Hour), 30 * time.Hour},
	} {
		if got := times.Next(c.after); !got.Equal(anchor.Add(c.want)) {
			t.Errorf("after %s: %s, want %s", c.after, got, anchor.Add(c.want))
		}
	}
	if n := times.Count(anchor.Add(-time.Hour), anchor.Add(25*time.Hour)); n != 4 {
		t.Errorf("counted %d, want 4", n)
	}
	if last := times.Last(anchor, anchor.Add(25*time.Hour)); !last.Equal(anchor.Add(24 * time.Hour)) {
		t.Errorf("the last one is %s", last)
	}
	if last := times.Last(anchor.Add(-time.Hour), anchor.Add(time.Hour)); !last.IsZero() {
		t.Errorf("%s is no time: the first one comes later", last)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ expression, says string }{
		{"", "five fields"},
		{"  ", "five fields"},
		{"* * * *", "five fields"},
		{"0 0 * * * *", "five fields"},
		{"60 * * * *", "60"},
		{"* 24 * * *", "24"},
		{"* * 0 * *", "minimum"},
		{"* * 32 * *", "32"},
		{"* * * 13 *", "13"},
		{"* * * * 7", "7"},
		{"5-1 * * * *", "beyond"},
		{"*/0 * * * *", "positive"},
		{"*-x * * * *", "five fields"},
		{", * * * *", "five fields"},
		{"1,,2 * * * *", "five fields"},
		{"0 0 * foo *", "foo"},
		{"0 0 30 2 *", "never comes"},
		{"0 0 31 2,4,6,9,11 ?", "never comes"},
		{"TZ=Europe/Berlin 0 0 * * *", "spec.timeZone"},
		{"CRON_TZ=Europe/Berlin 0 0 * * *", "spec.timeZone"},
		{"TZ=", "spec.timeZone"},
		{"@reboot", "five fields"},
		{"@every", "@every 1h30m"},
		{"@every 1d", "@every 1h30m"},
		{"@every 30s", "at least a minute"},
		{"@every -6h", "@every 1h30m"},
		{"@every 99999999h", "at most five years"},
		{"@every 99999999999999h", "at most five years"},
		{strings.Repeat("1,", 300) + "1 * * * *", "longer than 512"},
	} {
		_, err := clock.Parse(c.expression, time.UTC)
		if err == nil || !strings.HasPrefix(err.Error(), "spec.schedule: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want it to say %q", c.expression, err, c.says)
		}
	}
	for _, name := range []string{"Local", "Mars/Olympus", "../etc/passwd", "CET+1", "/etc/localtime"} {
		if _, err := clock.LoadZone(name); err == nil || !strings.HasPrefix(err.Error(), "spec.timeZone: ") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

var zones = []string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca", "Asia/Kathmandu"}

// TestYearOfWallTime compares a year of each plan in each zone with the walk.
func TestYearOfWallTime(t *testing.T) {
	from := moment(t, "2026-01-01T00:00:00Z")
	to := from.AddDate(1, 0, 3)
	for _, name := range zones {
		for _, p := range clocktest.Plans {
			t.Run(p.Expression+" "+name, func(t *testing.T) {
				t.Parallel()
				want := p.Walk(zone(t, name), from, to)
				times := parse(t, p.Expression, name)
				at := from
				for i, w := range want {
					next := times.Next(at)
					if !next.Equal(w) {
						t.Fatalf("time %d, after %s: %s, want %s", i, at, next, w)
					}
					at = next
				}
				if next := times.Next(at); !next.After(to) {
					t.Fatalf("after the last time %s comes %s", at, next)
				}
				if n := times.Count(from, to); n != int64(len(want)) {
					t.Errorf("counted %d, want %d", n, len(want))
				}
			})
		}
	}
}

// TestOldWallTime does the same where zones jumped over midnights and whole days.
func TestOldWallTime(t *testing.T) {
	for _, c := range []struct{ zone, from string }{
		{"Pacific/Apia", "2011-09-01T00:00:00Z"},
		{"America/Sao_Paulo", "2017-10-01T00:00:00Z"},
		{"Asia/Pyongyang", "2015-07-01T00:00:00Z"},
		{"Pacific/Kwajalein", "1993-07-01T00:00:00Z"},
	} {
		from := moment(t, c.from)
		to := from.AddDate(0, 6, 0)
		for _, p := range clocktest.Plans[1:] {
			times, at := parse(t, p.Expression, c.zone), from
			for _, w := range p.Walk(zone(t, c.zone), from, to) {
				if next := times.Next(at); !next.Equal(w) {
					t.Fatalf("%s %s: after %s comes %s, want %s", p.Expression, c.zone, at, next, w)
				}
				at = w
			}
		}
	}
}

// TestAgree checks that the three questions have one answer, for any expression and moment.
func TestAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(clocktest.Plans[1:]).Draw(t, "plan")
		location, err := clock.LoadZone(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		times, err := clock.Parse(p.Expression, location)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(0, 3e9).Draw(t, "from"), 0).UTC()
		until := from.Add(time.Duration(rapid.Int64Range(-60, 40*24*3600).Draw(t, "seconds")) * time.Second)
		var n int64
		var last time.Time
		for at := times.Next(from); !at.IsZero() && !at.After(until); at = times.Next(at) {
			n++
			last = at
		}
		if got := times.Count(from, until); got != n {
			t.Errorf("Count is %d, Next gives %d", got, n)
		}
		if got := times.Last(from, until); !got.Equal(last) {
			t.Errorf("Last is %s, Next ends with %s", got, last)
		}
	})
}

// FuzzParse feeds anything to the parser. What it takes has a next time, and one after that.
func FuzzParse(f *testing.F) {
	for _, p := range clocktest.Plans {
		f.Add(p.Expression, "Europe/Berlin")
	}
	for _, seed := range []string{"TZ=", "@every 1h", "@every 99999h", "*-? * * * *", "0 0 30 2 *", "*/9223372036854775807 * * * *", "\x00", "0\t0 1 1 ?"} {
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, expression, name string) {
		location, err := clock.LoadZone(name)
		if err != nil {
			location = time.UTC
		}
		times, err := clock.Parse(expression, location)
		if err != nil {
			return
		}
		from := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
		times = times.From(from)
		first := times.Next(from)
		second := times.Next(first)
		if !first.After(from) || !second.After(first) {
			t.Fatalf("%q: %s, then %s", expression, first, second)
		}
		if n := times.Count(from, second); n != 2 {
			t.Fatalf("%q: %d times until the second", expression, n)
		}
		if last := times.Last(from, second); !last.Equal(second) {
			t.Fatalf("%q: the last one is %s, want %s", expression, last, second)
		}
	})
}
