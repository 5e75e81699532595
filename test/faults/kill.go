//go:build unix

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Killer runs a program and kills it.
type Killer struct {
	// Command makes the program's command, anew for each run. Its output is taken.
	Command func() *exec.Cmd
	// Step says from what the program has written so far (both streams) in which step of its work it is.
	Step func(output string) string
}

// Outcome is what became of one run.
type Outcome struct {
	// Killed says that the kill was in time. If not, the program had ended by itself, with Err.
	Killed bool
	Err    error
	// Step is where it was when it ended.
	Step   string
	Output string
	Took   time.Duration
}

// Moments draws n moments, uniformly over the time of an undisturbed run.
func Moments(seed uint64, n int, undisturbed time.Duration) []time.Duration {
	chance := rand.New(rand.NewPCG(seed, 1))
	moments := make([]time.Duration, n)
	for i := range moments {
		moments[i] = time.Duration(chance.Float64() * float64(undisturbed))
	}
	return moments
}

// Undisturbed runs the program to its end. An error of the program is in the outcome.
func (k *Killer) Undisturbed(ctx context.Context) (Outcome, error) {
	return k.run(ctx, func(ctx context.Context, _ *output) bool { <-ctx.Done(); return false })
}

// KillAt runs the program and sends SIGKILL to it and its children after so long.
func (k *Killer) KillAt(ctx context.Context, after time.Duration) (Outcome, error) {
	return k.run(ctx, func(ctx context.Context, _ *output) bool {
		select {
		case <-time.After(after):
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// KillIn runs the program and kills it as soon as it is in a step, for steps that chance misses because they are short.
func (k *Killer) KillIn(ctx context.Context, step string) (Outcome, error) {
	return k.run(ctx, func(ctx context.Context, out *output) bool {
		for {
			text, more := out.read()
			if k.Step(text) == step {
				return true
			}
			select {
			case <-more:
			case <-ctx.Done():
				return false
			}
		}
	})
}

// run starts the program; it is killed when until returns true, and until's context ends with the program.
func (k *Killer) run(ctx context.Context, until func(context.Context, *output) bool) (Outcome, error) {
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	cmd := k.Command()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return Outcome{}, fmt.Errorf("start the program to kill: %w", err)
	}
	ended := make(chan struct{})
	var exit error
	go func() { // ends with the program
		defer close(ended)
		exit = cmd.Wait()
	}()
	alive, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with the program
		<-ended
		stop()
	}()
	wanted := until(alive, out)
	if wanted || ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	<-ended
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	text, _ := out.read()
	return Outcome{Killed: wasKilled(exit), Err: exit, Step: k.step(text), Output: text, Took: time.Since(started)}, nil
}

func (k *Killer) step(text string) string {
	if k.Step == nil {
		return ""
	}
	return k.Step(text)
}

func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// output collects what a program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed by the next write
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.text.String(), o.more
}

// Histogram counts kills by step.
type Histogram map[string]int

// Add counts an outcome; a run that ended before its kill counts as "ended".
func (h Histogram) Add(o Outcome) {
	if o.Killed {
		h[o.Step]++
		return
	}
	h["ended"]++
}

// Missing are the steps that were never hit.
func (h Histogram) Missing(steps []string) []string {
	return slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return h[s] > 0 })
}

// String draws the histogram, a step a line.
func (h Histogram) String() string {
	var b strings.Builder
	for _, step := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "%-24s %4d %s\n", step, h[step], strings.Repeat("#", h[step]))
	}
	return b.String()
}
