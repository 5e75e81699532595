package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the generated pages and the expected output of tables instead of comparing them")

// testApp is an app that reads nothing from the machine.
func testApp() *app {
	return newApp(environment{Getenv: func(string) string { return "" }, Now: time.Now, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}

// TestReference holds docs/cli and docs/exit-codes.md against the commands; with -update it writes them.
func TestReference(t *testing.T) {
	folder := filepath.Join("..", "..", "docs", "cli")
	pages := map[string][]byte{filepath.Join("..", "..", "docs", "exit-codes.md"): exitCodesPage()}
	root := testApp().rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	collectPages(t, root, folder, pages)
	known, err := filepath.Glob(filepath.Join(folder, "kedge*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range known {
		if pages[file] == nil && !*update {
			t.Errorf("%s describes no command: run go test ./cmd/kedge -run TestReference -update", file)
		} else if pages[file] == nil {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	for file, want := range pages {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the commands say: run go test ./cmd/kedge -run TestReference -update", file)
		}
	}
}

// collectPages renders the page of a command and of those below it.
func collectPages(t *testing.T, cmd *cobra.Command, folder string, pages map[string][]byte) {
	t.Helper()
	if cmd.IsAdditionalHelpTopicCommand() || cmd.Name() == "help" {
		return
	}
	cmd.DisableAutoGenTag = true
	var page bytes.Buffer
	if err := doc.GenMarkdown(cmd, &page); err != nil {
		t.Fatal(err)
	}
	pages[filepath.Join(folder, strings.ReplaceAll(cmd.CommandPath(), " ", "_")+".md")] = page.Bytes()
	for _, c := range cmd.Commands() {
		collectPages(t, c, folder, pages)
	}
}

// exitCodesPage is docs/exit-codes.md.
func exitCodesPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Exit codes\n\nScripts can rely on these. `kedge help exit-codes` prints the same table.\n\n| code | name | meaning |\n| --- | --- | --- |\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", row.Code, row.Name, row.Meaning)
	}
	b.WriteString("\nErrors are printed on stderr: one line `kedge: what failed: on what: why`, and a line `hint: …` where there is something to do about it.\nData goes to stdout, everything else to stderr, so `kedge … -o json | jq` sees data only.\n")
	return b.Bytes()
}

// TestShortTexts checks that every command says in one phrase what it does.
func TestShortTexts(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its short text is %q", cmd.CommandPath(), cmd.Short)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(testApp().rootCommand())
}
