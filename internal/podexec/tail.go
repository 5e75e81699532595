package podexec

import (
	"strings"
	"sync"
	"unicode"
)

// The bounds of what is kept of an output.
const (
	tailBytes = 1024
	tailLines = 10
)

// tail keeps the end of what is written to it. The zero value is ready. A connection that was given up may still write to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
	cut  bool
}

// Write implements io.Writer; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) > tailBytes {
		p, t.cut = p[len(p)-tailBytes:], true
	}
	if over := len(t.kept) + len(p) - tailBytes; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
	t.kept = append(t.kept, p...)
	return n, nil
}

// text gives the last lines, on one line, with nothing in it that a terminal would obey.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, cut := string(t.kept), t.cut
	text = strings.ToValidUTF8(text, "�")
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > tailLines {
		lines, cut = lines[len(lines)-tailLines:], true
	}
	for i, line := range lines {
		lines[i] = strings.TrimSpace(strings.Map(printable, line))
	}
	out := strings.Join(lines, " | ")
	if cut && out != "" {
		return "… " + out
	}
	return out
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}
