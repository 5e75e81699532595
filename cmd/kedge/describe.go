package main

import (
	"fmt"
	"strings"
	"time"
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
