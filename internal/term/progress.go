package term

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// How often progress is written: a redrawn line on a terminal, a new line elsewhere.
const (
	redrawEvery = 100 * time.Millisecond
	lineEvery   = 5 * time.Second
	// rateWindow is how far back the shown rate looks, so that it follows changes and does not flicker.
	rateWindow = 5 * time.Second
)

// State is how far a task is.
type State struct {
	// Done and Total count Unit; a Total below 1 is unknown.
	Done, Total int64
	// Bytes are shown beside the count, with their own rate, where positive.
	Bytes int64
	// Doing names what is happening just now.
	Doing string
}

// Progress shows one task. It draws only when Set is called, so it needs no goroutine of its own.
type Progress struct {
	ui    *UI
	label string
	unit  string

	start   time.Time
	shown   time.Time // when it was last written
	state   State
	samples []sample // the recent past, oldest first
	drawn   bool
}

type sample struct {
	at          time.Time
	done, bytes int64
}

// Progress begins to show a task whose steps are counted in unit ("objects"). End it with Done.
func (u *UI) Progress(label, unit string) *Progress {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.Now()
	p := &Progress{ui: u, label: label, unit: unit, start: now, shown: now, samples: []sample{{at: now}}}
	if !u.Quiet && u.ErrTerminal {
		p.shown = time.Time{}
		u.bar = p
	}
	return p
}

// Set says how far the task is.
func (p *Progress) Set(s State) {
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	now := p.ui.Now()
	p.state = s
	p.sample(now)
	if p.ui.Quiet {
		return
	}
	if p.ui.bar == p {
		if now.Sub(p.shown) >= redrawEvery {
			p.shown = now
			p.erase()
			p.draw()
		}
		return
	}
	if !p.ui.ErrTerminal && now.Sub(p.shown) >= lineEvery {
		p.shown = now
		fmt.Fprintln(p.ui.Err, p.text(now))
	}
}

// Done ends the task: the bar vanishes, and messages are plain again.
func (p *Progress) Done() {
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	if p.ui.bar == p {
		p.erase()
		p.ui.bar = nil
	}
}

// sample remembers the present, at most every tenth of the window, and forgets what is older than the window.
func (p *Progress) sample(now time.Time) {
	if now.Sub(p.samples[len(p.samples)-1].at) < rateWindow/10 {
		return
	}
	p.samples = append(p.samples, sample{at: now, done: p.state.Done, bytes: p.state.Bytes})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) > rateWindow {
		p.samples = p.samples[1:]
	}
}

// rates gives units and bytes per second over the window.
func (p *Progress) rates(now time.Time) (units, bytes float64) {
	old := p.samples[0]
	span := now.Sub(old.at).Seconds()
	if span <= 0 {
		return 0, 0
	}
	return float64(p.state.Done-old.done) / span, float64(p.state.Bytes-old.bytes) / span
}

// text is the task's state as one line: "backup: 4,200 of 10,020 objects (41%), 2,100/s, 31.5 MiB, 3s left: pods".
func (p *Progress) text(now time.Time) string {
	s := p.state
	units, bytes := p.rates(now)
	var b strings.Builder
	b.WriteString(p.label + ": " + Count(s.Done))
	if s.Total > 0 {
		fmt.Fprintf(&b, " of %s %s (%d%%)", Count(s.Total), p.unit, min(100, 100*s.Done/s.Total))
	} else {
		b.WriteString(" " + p.unit)
	}
	if s.Bytes > 0 {
		fmt.Fprintf(&b, ", %s", Bytes(s.Bytes))
	}
	if units >= 1 {
		fmt.Fprintf(&b, ", %s/s", Count(int64(units)))
	}
	if bytes >= 1 {
		fmt.Fprintf(&b, ", %s/s", Bytes(int64(bytes)))
	}
	if left, ok := p.left(units); ok {
		fmt.Fprintf(&b, ", %s left", wholeSeconds(left))
	}
	if s.Doing != "" {
		b.WriteString(": " + Clean(s.Doing))
	}
	return b.String()
}

// left estimates the time to the end from the rate.
func (p *Progress) left(units float64) (time.Duration, bool) {
	if p.state.Total < 1 || p.state.Done >= p.state.Total || units <= 0 {
		return 0, false
	}
	seconds := float64(p.state.Total-p.state.Done) / units
	if seconds > (1000 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// wholeSeconds is Duration without fractions: an estimate has none.
func wholeSeconds(d time.Duration) string {
	if d < time.Minute {
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + "s"
	}
	return Duration(d)
}

// draw writes the line with a bar before it. The caller holds the lock.
func (p *Progress) draw() {
	width := p.ui.width() - 1
	text := p.text(p.ui.Now())
	if runes := []rune(text); len(runes) > width {
		text = string(runes[:max(0, width-1)]) + "…"
	}
	if bar := p.bar(width - utf8.RuneCountInString(text) - 1); bar != "" {
		text = bar + " " + text
	}
	fmt.Fprint(p.ui.Err, text)
	p.drawn = true
}

// bar is a bar of at most 30 columns that fits in room, or nothing where the total is unknown or room is small.
func (p *Progress) bar(room int) string {
	size := min(room-2, 30)
	if size < 10 || p.state.Total < 1 {
		return ""
	}
	full := int(int64(size) * min(p.state.Done, p.state.Total) / p.state.Total)
	return "[" + p.ui.Style(p.ui.ColorErr, Green, strings.Repeat("█", full)) + strings.Repeat("░", size-full) + "]"
}

// erase takes the drawn line away. The caller holds the lock.
func (p *Progress) erase() {
	if p.drawn {
		fmt.Fprint(p.ui.Err, "\r\x1b[2K")
		p.drawn = false
	}
}
