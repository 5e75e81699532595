package podexec

import (
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	long := strings.Repeat("x", 3*tailBytes)
	for _, c := range []struct {
		name   string
		writes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"one line", []string{"no space left\n"}, "no space left"},
		{"lines on one", []string{"a\r\n", "\n\tb"}, "a | b"},
		{"no commands to a terminal", []string{"\x1b[31mred\x1b[0m\a"}, "[31mred [0m"},
		{"not UTF-8", []string{"a\xffb"}, "a�b"},
		{"the last lines", []string{strings.Repeat("line\n", 50) + "last"}, "… " + strings.Repeat("line | ", tailLines-1) + "last"},
		{"one long write", []string{long + "end"}, "… " + long[:tailBytes-3] + "end"},
		{"many writes", []string{long[:800], long[:800], "end"}, "… " + long[:tailBytes-3] + "end"},
	} {
		var out tail
		for _, w := range c.writes {
			if n, err := out.Write([]byte(w)); n != len(w) || err != nil {
				t.Fatalf("%s: wrote %d, %v", c.name, n, err)
			}
		}
		if got := out.text(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
