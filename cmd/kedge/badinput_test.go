package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The table of bad input, testdata/badinput/*.txt: what a user types after "$ ", what kedge answers on stderr, and the exit code. Every
// line of it is run; with -update the answers are written anew, to be read by a person before they are committed.

// badCase is one entry of the table.
type badCase struct {
	comment string
	command string
	answer  string
	code    int
}

var (
	casePattern = regexp.MustCompile(`(?s)^\$ (.*?)\n(.*)exit (\d+)\n?$`)
	leadPattern = regexp.MustCompile(`(?m)\A(?:#[^\n]*\n)*`)
)

// parseBadCases reads a table: entries with an empty line between them, each with comments before it.
func parseBadCases(t *testing.T, file string) []badCase {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []badCase
	for block := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n\n") {
		block = strings.TrimSpace(block) + "\n"
		comment := leadPattern.FindString(block)
		rest := strings.TrimPrefix(block, comment)
		c := badCase{comment: comment}
		if m := casePattern.FindStringSubmatch(rest); m != nil {
			c.command, c.answer = m[1], m[2]
			fmt.Sscan(m[3], &c.code)
		} else if command, ok := strings.CutPrefix(rest, "$ "); ok && *update {
			c.command = strings.TrimSpace(command)
		} else if rest != "" {
			t.Fatalf("%s: cannot read the entry:\n%s", file, block)
		}
		cases = append(cases, c)
	}
	return cases
}

func writeBadCases(t *testing.T, file string, cases []badCase) {
	t.Helper()
	var b strings.Builder
	for i, c := range cases {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(c.comment)
		if c.command != "" {
			fmt.Fprintf(&b, "$ %s\n%sexit %d\n", c.command, c.answer, c.code)
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBadInput(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "badinput", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	w := newBadWorld(t)
	before := w.digest(t)
	clusterBefore := w.clusterDigest(t)
	total := 0
	for _, file := range files {
		cases := parseBadCases(t, file)
		for i := range cases {
			c := &cases[i]
			if c.command == "" {
				continue
			}
			total++
			t.Run(fmt.Sprintf("%s/%d", strings.TrimSuffix(filepath.Base(file), ".txt"), i), func(t *testing.T) { w.check(t, c) })
			if after := w.digest(t); after != before {
				t.Errorf("$ %s: it changed files or the bucket:\n%s", c.command, diffLines(before, after))
				before = after
			}
		}
		if *update {
			writeBadCases(t, file, cases)
		}
	}
	if total < 60 {
		t.Errorf("the table has %d entries, want at least 60", total)
	}
	if after := w.clusterDigest(t); after != clusterBefore {
		t.Errorf("the cluster is not as before:\n%s", diffLines(clusterBefore, after))
	}
}

// check runs one entry.
func (w *badWorld) check(t *testing.T, c *badCase) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	words, err := splitWords(c.command)
	if err != nil {
		t.Fatal(err)
	}
	env := slices.Clone(w.env)
	for len(words) > 0 && strings.Contains(words[0], "=") {
		env = append(env, w.expand(words[0]))
		words = words[1:]
	}
	for i := range words {
		words[i] = w.expand(words[i])
	}
	if len(words) == 0 || words[0] != "kedge" {
		t.Fatalf("$ %s: not a kedge command", c.command)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "kedge", words[1:]...) // TestMain has put it on the path
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, env, &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("$ %s: it hangs", c.command)
	}
	code := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	answer := w.normalize(stderr.String())
	if strings.Contains(answer, "goroutine ") || code < 0 {
		t.Fatalf("$ %s: it panics:\n%s", c.command, answer)
	}
	if w.leaks(stdout.String() + stderr.String()) {
		t.Errorf("$ %s: it prints a secret", c.command)
	}
	if code == 0 {
		t.Errorf("$ %s: it succeeds", c.command)
	}
	if *update {
		c.answer, c.code = answer, code
		return
	}
	if answer != c.answer || code != c.code {
		t.Errorf("$ %s\ngot:\n%sexit %d\nwant:\n%sexit %d", c.command, answer, code, c.answer, c.code)
	}
}

// splitWords splits a command line at spaces outside single quotes.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quoted := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, inWord = !quoted, true
		case r == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("%q: a quote is not closed", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// expand puts values of this run into a word: $WORK, $LONG.
func (w *badWorld) expand(word string) string {
	return os.Expand(word, func(name string) string {
		if value, ok := w.values[name]; ok {
			return value
		}
		return "$" + name
	})
}

var normalizers = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "$$UID"},
	{regexp.MustCompile(`age1[02-9ac-hj-np-z]{58}`), "$$KEY"},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+->`), ""},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]{2,}`), "127.0.0.1:$$PORT"},
	{regexp.MustCompile(`\b[0-9a-f]{16}/`), "$$ATTEMPT/"},
	{regexp.MustCompile(`bucket-[0-9a-f]{12}`), "$$BUCKET"},
	// which of the lists that run at once fails first
	{regexp.MustCompile(`get \S+: \S+ is forbidden: (User "[^"]*") cannot list resource "[^"]*" in API group "[^"]*"`), "$$RESOURCE is forbidden: $1 cannot list it"},
	// which of the requests that run at once fails first
	{regexp.MustCompile(`back up x: (?:[^:]*: )?(?:GET https://[^/]+|get )/[\w./-]+: `), "back up x: $$REQUEST: "},
	{regexp.MustCompile(`back up x: .*(invalid character|invalid JSON).*`), "back up x: $$REQUEST: the answer is no JSON"},
	{regexp.MustCompile(`at byte [0-9]+`), "at byte $$N"},
	{regexp.MustCompile(`\(request [A-Z0-9]+\)`), "(request $$ID)"},
}

// normalize takes out of an answer what differs from run to run.
func (w *badWorld) normalize(text string) string {
	text = strings.ReplaceAll(text, w.dir, "$WORK")
	for _, n := range normalizers {
		text = n.pattern.ReplaceAllString(text, n.with)
	}
	return text
}

// leaks says whether a text has one of the secrets of this world in it.
func (w *badWorld) leaks(text string) bool {
	for _, secret := range w.secrets {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// digest lists every file of the working folder and every object of the bucket with their hashes.
func (w *badWorld) digest(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&b, "%s %s\n", hex.EncodeToString(sum[:8]), strings.TrimPrefix(path, w.dir))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + w.bucketDigest(t)
}

// diffLines gives the lines that only one of two texts has.
func diffLines(before, after string) string {
	var b strings.Builder
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range old {
		if !slices.Contains(now, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	for _, line := range now {
		if !slices.Contains(old, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	return b.String()
}
