package clock

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// margin is more than any zone has ever been away from UTC, in seconds.
const margin = 26 * 60 * 60

// zone turns wall times into moments. A wall time is counted in seconds as if it were one of UTC.
type zone struct{ location *time.Location }

// LoadZone finds a zone of the IANA database. Empty means UTC. What the process takes for its own ("Local") is no zone of a schedule.
func LoadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" {
		return nil, errors.New(`spec.timeZone: "Local" is not the name of a zone: use one of the IANA database, such as Europe/Berlin`)
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("spec.timeZone: %q is not known: use a name of the IANA database, such as Europe/Berlin: %w", name, err)
	}
	return location, nil
}

// period is a time in which a zone keeps its offset from UTC: from start until before end.
type period struct{ start, end, offset int64 }

// at is the period of a moment.
func (z zone) at(moment int64) period {
	t := time.Unix(moment, 0).In(z.location)
	start, end := t.ZoneBounds()
	_, offset := t.Zone()
	p := period{math.MinInt64, math.MaxInt64, int64(offset)}
	if !start.IsZero() {
		p.start = start.Unix()
	}
	if !end.IsZero() {
		p.end = end.Unix()
	}
	return p
}

// moment is when a wall time is run: the first time that clocks show it, or, where they never do, the jump that leaves it out.
func (z zone) moment(wall int64) int64 {
	p := z.at(wall - margin)
	for wall-p.offset >= p.end {
		p = z.at(p.end)
	}
	return max(wall-p.offset, p.start)
}

// day is the date that clocks show at a moment, in days since 1970.
func (z zone) day(moment int64) int64 {
	_, offset := time.Unix(moment, 0).In(z.location).Zone()
	return floorDiv(moment+int64(offset), daySeconds)
}

// plain says whether a date is far from any jump, and gives the offset that all its wall times then have.
func (z zone) plain(d int64) (offset int64, ok bool) {
	wall := d * daySeconds
	p := z.at(wall)
	return p.offset, p.start <= wall-margin && wall+daySeconds+margin <= p.end
}
