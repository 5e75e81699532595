package clock

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// The bounds of an expression.
const (
	// maxExpression is the longest expression that is read. Five fields with every value written out are shorter.
	maxExpression = 512
	// minEvery is the shortest distance of "@every": cron knows no seconds.
	minEvery = time.Minute
	// maxEvery is the longest one.
	maxEvery = 5 * 366 * 24 * time.Hour
)

// The shapes of expressions. The parser itself takes more than it should: "*-x" for "*", and ",," for nothing.
var (
	field   = `([*?]|\w+(-\w+)?)(/\d+)?`
	list    = field + `(,` + field + `)*`
	five    = regexp.MustCompile(`^` + list + `([ \t]+` + list + `){4}$`)
	every   = regexp.MustCompile(`^@every ([0-9]+(h|m|s))+$`)
	names   = regexp.MustCompile(`^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$`)
	inZone  = regexp.MustCompile(`^(CRON_)?TZ=`)
	anyStar = uint64(1) << 63 // the parser's mark of a field that is not restricted
)

// shapeHelp says what an expression looks like.
const shapeHelp = `write five fields (minute, hour, day of month, month, day of week), as in "30 2 * * 1-5", or one of ` +
	`@yearly, @monthly, @weekly, @daily, @hourly, "@every 6h"`

// Parse reads an expression of five fields, one of the names that begin with @, or "@every" with a duration in hours, minutes and seconds.
// Errors name the field spec.schedule. An expression that names no time at all, such as 30 February, is refused.
func Parse(expression string, location *time.Location) (*Times, error) {
	t, err := parse(expression)
	if err != nil {
		return nil, fmt.Errorf("spec.schedule: %w", err)
	}
	t.zone = zone{location}
	if t.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("spec.schedule: %q never comes: no year has such a day", expression)
	}
	return t, nil
}

func parse(expression string) (*Times, error) {
	switch {
	case len(expression) > maxExpression:
		return nil, fmt.Errorf("it is longer than %d bytes: make two schedules of it", maxExpression)
	case strings.TrimSpace(expression) == "":
		return nil, errors.New("it is empty: " + shapeHelp)
	case inZone.MatchString(expression):
		return nil, fmt.Errorf("%q has a time zone in it: write that into spec.timeZone", expression)
	case strings.HasPrefix(expression, "@every"):
		return parseEvery(expression)
	case !five.MatchString(expression) && !names.MatchString(expression):
		return nil, fmt.Errorf("%q is not a cron expression: %s", expression, shapeHelp)
	}
	parsed, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("%q is not a cron expression: %w: %s", expression, err, shapeHelp)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("%q is not a cron expression: %s", expression, shapeHelp)
	}
	return &Times{
		minutes: spec.Minute &^ anyStar, hours: spec.Hour &^ anyStar, days: spec.Dom &^ anyStar, months: spec.Month &^ anyStar,
		weekdays: spec.Dow &^ anyStar, eitherDay: (spec.Dom|spec.Dow)&anyStar == 0,
	}, nil
}

func parseEvery(expression string) (*Times, error) {
	if !every.MatchString(expression) {
		return nil, fmt.Errorf(`%q is not a distance: write "@every" and whole hours, minutes and seconds, as in "@every 1h30m"`, expression)
	}
	distance, err := time.ParseDuration(strings.TrimPrefix(expression, "@every "))
	if err != nil || distance > maxEvery {
		return nil, fmt.Errorf("%q is too long: at most five years", expression)
	}
	if distance < minEvery {
		return nil, fmt.Errorf("%q is too short: at least a minute", expression)
	}
	return &Times{every: int64(distance / time.Second)}, nil
}
