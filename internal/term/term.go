// Package term writes to people: messages, tables, progress and colour on a terminal, and plain lines everywhere else.
package term

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	xterm "golang.org/x/term"
)

// UI is one session with a person. Data goes to Out, talk to Err, so that a pipe sees data only.
// Its methods may be called from many goroutines.
type UI struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Quiet drops notes and progress; warnings stay.
	Quiet bool
	// Interactive says that a person can answer questions: input and Err are terminals.
	Interactive bool
	// ErrTerminal says that Err is a terminal on which a line can be redrawn.
	ErrTerminal bool
	// ColorOut and ColorErr say where escape sequences for colour are wanted.
	ColorOut, ColorErr bool
	// Width gives the columns of the terminal behind Err; nil or a result below 1 means 80.
	Width func() int
	// Now is the clock of progress.
	Now func() time.Time

	mu  sync.Mutex
	bar *Progress // the bar that is drawn at the moment
}

// Options are what a person can ask of New.
type Options struct {
	// NoColor turns colour off even on a terminal.
	NoColor bool
	// Dumb says that the terminal cannot redraw a line (TERM=dumb).
	Dumb bool
	// Quiet drops notes and progress.
	Quiet bool
	// Now is the clock.
	Now func() time.Time
}

// New makes a UI on three files, asking each whether it is a terminal.
func New(in, out, errOut *os.File, opts Options) *UI {
	isTerminal := func(f *os.File) bool { return f != nil && xterm.IsTerminal(int(f.Fd())) }
	errTerm := isTerminal(errOut) && !opts.Dumb
	return &UI{
		In: in, Out: out, Err: errOut,
		Quiet:       opts.Quiet,
		Interactive: isTerminal(in) && isTerminal(errOut),
		ErrTerminal: errTerm,
		ColorOut:    isTerminal(out) && !opts.NoColor && !opts.Dumb,
		ColorErr:    errTerm && !opts.NoColor,
		Width: func() int {
			width, _, err := xterm.GetSize(int(errOut.Fd()))
			if err != nil {
				return 0
			}
			return width
		},
		Now: opts.Now,
	}
}

// Note tells the person something that is not data. It says nothing when the UI is quiet.
func (u *UI) Note(format string, args ...any) {
	if u.Quiet {
		return
	}
	u.line("", fmt.Sprintf(format, args...))
}

// Warn tells the person something that matters even when the UI is quiet.
func (u *UI) Warn(format string, args ...any) {
	u.line(u.Style(u.ColorErr, Yellow, "warning: "), fmt.Sprintf(format, args...))
}

// line writes one message, around a progress bar where one is drawn.
func (u *UI) line(prefix, msg string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bar != nil {
		u.bar.erase()
	}
	fmt.Fprintln(u.Err, prefix+CleanText(msg))
	if u.bar != nil {
		u.bar.draw()
	}
}

// ErrNoAnswer means that a question was asked where nobody could answer it, or that it was answered with something else.
var ErrNoAnswer = errors.New("not confirmed")

// Confirm asks a question whose only affirmative answer is the word want, typed out. Where nobody can answer it returns
// ErrNoAnswer without asking.
func (u *UI) Confirm(question, want string) error {
	if !u.Interactive {
		return ErrNoAnswer
	}
	fmt.Fprintf(u.Err, "%s\nType %s to go on: ", CleanText(question), u.Style(u.ColorErr, Bold, want))
	line, err := bufio.NewReader(io.LimitReader(u.In, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != want {
		return ErrNoAnswer
	}
	return nil
}

// width is the number of columns to draw in.
func (u *UI) width() int {
	if u.Width == nil {
		return 80
	}
	if w := u.Width(); w > 0 {
		return w
	}
	return 80
}

// Fail tells the person why the program ends: what failed, on one line, and what can be done, on another, where hint is not empty.
func (u *UI) Fail(message, hint string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bar != nil {
		u.bar.erase()
		u.bar = nil
	}
	fmt.Fprintln(u.Err, u.Style(u.ColorErr, Red, Clean(message)))
	if hint != "" {
		fmt.Fprintln(u.Err, u.Style(u.ColorErr, Bold, "hint:")+" "+Clean(hint))
	}
}
