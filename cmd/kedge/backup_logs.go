package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/internal/term"
)

func (a *app) backupLogsCommand() *cobra.Command {
	var location string
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "logs NAME",
		Aliases: []string{"log"},
		Short:   "Print the log of a backup",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("print the log", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "print the log", readFlags...); err != nil {
					return err
				}
				return r.backupLogs(cmd.Context(), location, args[0], out.format)
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			reader, err := a.read(cmd.Context(), f)
			if err != nil {
				return err
			}
			w := a.logWriter(out.format)
			if err := reader.Log(cmd.Context(), w); err != nil {
				return err
			}
			return w.Close()
		},
	}
	out.bind(cmd.Flags(), formatText, formatJSON)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// logWriter takes JSON lines and prints them to stdout as asked.
func (a *app) logWriter(format string) io.WriteCloser {
	if format == formatJSON {
		return nopCloser{a.ui.Out}
	}
	return &logText{out: bufio.NewWriter(a.ui.Out)}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// logText turns JSON lines as log/slog writes them into text, line by line.
type logText struct {
	out  *bufio.Writer
	rest []byte
}

// maxLogLine bounds the lines of a log. Kedge writes shorter ones, so a longer one is damage.
const maxLogLine = 1 << 20

// Write takes any piece of the log.
func (l *logText) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	if len(l.rest) > maxLogLine && !bytes.Contains(l.rest[:maxLogLine], []byte("\n")) {
		return 0, codeError(exitRefused, fmt.Errorf("print the log: it has a line longer than %d bytes", maxLogLine), "the log is damaged; \"kedge backup verify --deep\" shows how far it goes")
	}
	for {
		line, after, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if err := l.line(line); err != nil {
			return 0, err
		}
		l.rest = after
	}
}

// Close prints what is left.
func (l *logText) Close() error {
	if len(l.rest) > 0 {
		if err := l.line(l.rest); err != nil {
			return err
		}
	}
	return outputError(l.out.Flush())
}

func (l *logText) line(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	text := term.Clean(string(line))
	var entry map[string]any
	if err := json.Unmarshal(line, &entry); err == nil {
		text = logLine(entry)
	}
	_, err := fmt.Fprintln(l.out, text)
	return outputError(err)
}

// logLine writes the known keys first, then the others by name.
func logLine(entry map[string]any) string {
	var text strings.Builder
	for _, key := range []string{"time", "level", "msg"} {
		if value, ok := entry[key]; ok {
			text.WriteString(term.Clean(fmt.Sprint(value)) + " ")
		}
		delete(entry, key)
	}
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		value := entry[key]
		if _, plain := value.(string); !plain {
			if data, err := json.Marshal(value); err == nil {
				value = string(data)
			}
		}
		text.WriteString(term.Clean(fmt.Sprintf("%s=%v", key, value)) + " ")
	}
	return text.String()[:max(0, len(text.String())-1)]
}
