package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"kedge.dev/kedge/internal/term"
)

// description prints one thing, field by field, for people.
type description struct {
	a      *app
	indent string
}

func (a *app) describe() *description { return &description{a: a} }

// field prints a name and its value; empty values are left out.
func (d *description) field(name, value string) {
	if value != "" {
		d.a.printf("%s%-24s %s\n", d.indent, name+":", value)
	}
}

// flag prints a name where it is true.
func (d *description) flag(name string, on bool) {
	if on {
		d.field(name, "yes")
	}
}

// moment prints a time in UTC.
func (d *description) moment(name string, t time.Time) {
	if !t.IsZero() {
		d.field(name, t.UTC().Format(time.RFC3339))
	}
}

// section begins a part with a heading.
func (d *description) section(name string) { d.a.printf("\n%s:\n", name) }

// line prints a line of its own within a section.
func (d *description) line(format string, args ...any) {
	d.a.printf("  %s\n", fmt.Sprintf(format, args...))
}

// printIndented prints text of several lines as part of a section.
func (a *app) printIndented(text string) {
	for line := range strings.Lines(text) {
		a.printf("  %s\n", strings.TrimRight(line, "\n"))
	}
}

// warnings gives a function that warns of the first remarks of a run; all of them are in its report. It may be called from many
// goroutines.
func (a *app) warnings() func(text string) {
	var seen atomic.Int64
	return func(text string) {
		switch n := seen.Add(1); {
		case n <= maxRemarks:
			a.ui.Warn("%s", term.Clean(text))
		case n == maxRemarks+1:
			a.ui.Warn("further remarks are in the report only")
		}
	}
}
