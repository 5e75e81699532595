package restore

import "fmt"

// Step is a set of objects that need nothing of each other: they are written at once, in any order, as soon as the steps
// that it needs are done. A step without objects waits for the readiness of something.
type Step struct {
	// Index is its place in Plan.Steps; every step needs only steps of smaller index.
	Index int
	// Needs are the indexes of the steps that come before it. Those that follow from others are left out.
	Needs []int

	position position
	items    []int32
}

// Name is "config" or, for objects that had to move behind their owners or definitions, "config+1".
func (s *Step) Name() string {
	if s.position.level == 0 {
		return stages[s.position.stage].name
	}
	return fmt.Sprintf("%s+%d", stages[s.position.stage].name, s.position.level)
}

// Title says what the step does, for people.
func (s *Step) Title() string {
	switch {
	case s.position.level == 0:
		return stages[s.position.stage].title
	case stages[s.position.stage].wait:
		return stages[s.position.stage].title + ", again"
	}
	return stages[s.position.stage].title + " that follow their owners"
}

// Wait says whether the step waits and writes nothing.
func (s *Step) Wait() bool { return stages[s.position.stage].wait }

// Len is the number of objects that the step writes.
func (s *Step) Len() int { return len(s.items) }
