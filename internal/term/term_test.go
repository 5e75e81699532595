package term

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 5 << 40: "5.0 TiB", -2048: "-2.0 KiB",
		1<<63 - 1: "8192.0 PiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 10020: "10,020", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		420 * time.Millisecond: "0.42s", 12 * time.Second: "12s", 184 * time.Second: "3m04s", 312 * time.Minute: "5h12m", 300 * time.Hour: "12d", -time.Minute: "-1m00s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"shop/cart":           "shop/cart",
		"a\x1b[31mred":        "a?[31mred",
		"two\nlines":          "two?lines",
		"bell\a":              "bell?",
		"grün":                "grün",
		"\u202egnp.exe":       "?gnp.exe",
		"bad\xff":             "bad\ufffd",
		"c1 control \u009b2J": "c1 control ?2J",
	} {
		if got := Clean(text); got != want {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want)
		}
	}
	if got, want := CleanText("two\nlines\tand\x1b[2J"), "two\nlines\tand?[2J"; got != want {
		t.Errorf("CleanText = %q, want %q", got, want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31mred\n\xff\u202e")
	f.Fuzz(func(t *testing.T, text string) {
		got := Clean(text)
		if strings.ContainsAny(got, "\x00\x07\x08\n\r\x1b\x7f\u009b\u202e") {
			t.Errorf("Clean(%q) = %q lets a control character through", text, got)
		}
		if Clean(got) != got {
			t.Errorf("Clean is not idempotent on %q", text)
		}
	})
}

func TestTable(t *testing.T) {
	table := Table{Columns: []Column{{Name: "NAME"}, {Name: "ITEMS", Right: true}, {Name: "UID", Wide: true}, {Name: "PHASE"}}}
	table.Add("nightly-1", "7", "u-1", "Completed")
	table.Add("x\x1b[2J", "10,020", "u-2", "Failed")
	var out bytes.Buffer
	if err := table.Write(&out, &UI{}, false); err != nil {
		t.Fatal(err)
	}
	want := "NAME         ITEMS   PHASE\nnightly-1        7   Completed\nx?[2J       10,020   Failed\n"
	if out.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", out.String(), want)
	}
	out.Reset()
	if err := table.Write(&out, &UI{}, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "u-2") {
		t.Errorf("wide table lacks the wide column:\n%s", out.String())
	}
}

// clock is a clock that a test moves by hand.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestProgressPlainLines(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	var out bytes.Buffer
	ui := &UI{Err: &out, Now: c.Now}
	p := ui.Progress("backup", "objects")
	for i := range 12 {
		c.now = c.now.Add(time.Second)
		p.Set(State{Done: int64(i+1) * 1000, Total: 20000, Bytes: int64(i+1) << 20, Doing: "pods"})
	}
	p.Done()
	want := "backup: 5,000 of 20,000 objects (25%), 5.0 MiB, 1,000/s, 1.0 MiB/s, 15s left: pods\n" +
		"backup: 10,000 of 20,000 objects (50%), 10.0 MiB, 1,000/s, 1.0 MiB/s, 10s left: pods\n"
	if out.String() != want {
		t.Errorf("lines:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestProgressBarAroundMessages(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	var out bytes.Buffer
	ui := &UI{Err: &out, Now: c.Now, ErrTerminal: true, Width: func() int { return 60 }}
	p := ui.Progress("restore", "objects")
	p.Set(State{Done: 5, Total: 10})
	ui.Note("hello")
	p.Done()
	ui.Note("bye")
	text := out.String()
	for _, want := range []string{"5 of 10 objects (50%)", "\r\x1b[2Khello\n", "█"} {
		if !strings.Contains(text, want) {
			t.Errorf("output %q lacks %q", text, want)
		}
	}
	if !strings.HasSuffix(text, "\r\x1b[2Kbye\n") {
		t.Errorf("the bar is not erased at the end: %q", text)
	}
}

func TestProgressFitsNarrowTerminal(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	var out bytes.Buffer
	ui := &UI{Err: &out, Now: c.Now, ErrTerminal: true, Width: func() int { return 20 }}
	p := ui.Progress("restore", "objects")
	p.Set(State{Done: 5, Total: 10, Doing: strings.Repeat("x", 100)})
	if got := []rune(out.String()); len(got) > 19 {
		t.Errorf("line of %d columns on a terminal of 20: %q", len(got), string(got))
	}
}

func TestQuietDropsNotesAndProgressButNotWarnings(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	var out bytes.Buffer
	ui := &UI{Err: &out, Now: c.Now, Quiet: true, ErrTerminal: true}
	p := ui.Progress("backup", "objects")
	p.Set(State{Done: 1})
	ui.Note("note")
	p.Done()
	ui.Warn("look")
	if got, want := out.String(), "warning: look\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

func TestConfirm(t *testing.T) {
	for answer, ok := range map[string]bool{"nightly\n": true, "nightly": true, "yes\n": false, "": false} {
		ui := &UI{In: strings.NewReader(answer), Err: &bytes.Buffer{}, Interactive: true}
		if err := ui.Confirm("Delete backup nightly?", "nightly"); (err == nil) != ok {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
	ui := &UI{In: strings.NewReader("nightly\n"), Err: &bytes.Buffer{}}
	if err := ui.Confirm("Delete?", "nightly"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("not interactive: %v, want ErrNoAnswer", err)
	}
}
