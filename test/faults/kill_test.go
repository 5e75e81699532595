//go:build unix

package faults

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// stepper is a program of three steps that ends by itself.
var stepper = &Killer{
	Command: func() *exec.Cmd {
		return exec.Command("/bin/sh", "-c", "echo step one; sleep 0.1; echo step two >&2; sleep 0.1; echo step three; exit 5")
	},
	Step: func(output string) string {
		lines := strings.Split(strings.TrimSpace(output), "\n")
		return strings.TrimPrefix(lines[len(lines)-1], "step ")
	},
}

func TestUndisturbedRunEndsByItself(t *testing.T) {
	o, err := stepper.Undisturbed(t.Context())
	if err != nil || o.Killed || o.Step != "three" || o.Err == nil || !strings.Contains(o.Output, "two") {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestKillAt(t *testing.T) {
	forever := &Killer{Command: func() *exec.Cmd { return exec.Command("/bin/sh", "-c", "echo step one; sleep 600 & wait") }, Step: stepper.Step}
	o, err := forever.KillAt(t.Context(), 50*time.Millisecond)
	if err != nil || !o.Killed {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = stepper.KillAt(t.Context(), time.Minute)
	if err != nil || o.Killed {
		t.Errorf("killed after its end: %+v, %v", o, err)
	}
}

func TestKillInHitsEachStep(t *testing.T) {
	h := Histogram{}
	for _, step := range []string{"one", "two"} {
		o, err := stepper.KillIn(t.Context(), step)
		if err != nil || !o.Killed || o.Step != step {
			t.Errorf("%s: %+v, %v", step, o, err)
		}
		h.Add(o)
	}
	if missing := h.Missing([]string{"one", "two", "three"}); !slices.Equal(missing, []string{"three"}) {
		t.Errorf("missing: %v\n%s", missing, h)
	}
}

func TestMomentsAreDrawnFromTheSeedOverTheWholeRun(t *testing.T) {
	a, b := Moments(1, 1000, time.Second), Moments(1, 1000, time.Second)
	if !slices.Equal(a, b) {
		t.Error("one seed, two series")
	}
	if slices.Equal(a, Moments(2, 1000, time.Second)) {
		t.Error("two seeds, one series")
	}
	for tenth := range 10 {
		n := 0
		for _, m := range a {
			if m >= time.Duration(tenth)*100*time.Millisecond && m < time.Duration(tenth+1)*100*time.Millisecond {
				n++
			}
		}
		if n < 60 || n > 140 {
			t.Errorf("%d of 1000 moments in tenth %d", n, tenth)
		}
	}
}
