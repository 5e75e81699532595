package main

import (
	"context"
	"errors"
	"strings"

	"kedge.dev/kedge/internal/term"
)

// The exit codes. They are documented API: docs/exit-codes.md and "kedge help exit-codes" print this table.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitNotFound    = 4
	exitRefused     = 5
	exitUnreachable = 6
	exitCancelled   = 130
)

// exitCode is one row of the table.
type exitCode struct {
	Code    int
	Name    string
	Meaning string
}

var exitTable = []exitCode{
	{exitOK, "ok", "The command did what it was asked to."},
	{exitFailed, "failed", "Something failed that no other code describes; for a backup or a restore: there is no usable result."},
	{exitUsage, "usage", "The command line, a file given to it or the configuration is wrong, or the cluster has no Kedge server. Nothing was changed."},
	{exitPartial, "partial", "A backup or a restore is partially failed: each object that is missing is named in its report. A mover could not read, or not restore, every file. With --exit-code: a comparison found differences, or a dry run would change something."},
	{exitNotFound, "not-found", "What was named does not exist: a location, a backup, a restore, an object in a backup."},
	{exitRefused, "refused", "Kedge or a server refused: a damaged backup, a missing or wrong signature, a key that opens nothing, retention, a policy, missing rights."},
	{exitUnreachable, "unreachable", "The cluster or the bucket could not be reached, or did not accept the credentials."},
	{exitCancelled, "cancelled", "A person cancelled (Ctrl-C, or the command cancel). A restore of this machine can be resumed; a backup left nothing that looks whole. Where a server does the work, Ctrl-C ends only the following of it."},
}

// commandError is an error with what the command knows about it: its exit code and what a person can do.
type commandError struct {
	code int
	hint string
	err  error
}

// Error is the cause's text.
func (e *commandError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *commandError) Unwrap() error { return e.err }

func usageError(err error, hint string) error {
	return &commandError{code: exitUsage, hint: hint, err: err}
}

func codeError(code int, err error, hint string) error {
	return &commandError{code: code, hint: hint, err: err}
}

// errSilent ends a command with an exit code when everything has been said already.
var errSilent = errors.New("see above")

func silent(code int) error { return &commandError{code: code, err: errSilent} }

// failure is an error ready to be printed.
type failure struct {
	message string
	hint    string
	code    int
}

// print writes the failure as one line, and a line with the remedy where there is one.
func (f failure) print(ui *term.UI) {
	if f.message == "" {
		return
	}
	ui.Fail("kedge: "+f.message, f.hint)
}

// explain turns an error into a line, a remedy and an exit code.
func explain(ctx context.Context, err error) failure {
	f := failure{message: err.Error(), code: exitFailed}
	for _, rule := range rules {
		if code, hint, ok := rule(err); ok {
			f.code, f.hint = code, hint
			break
		}
	}
	if own, ok := errors.AsType[*commandError](err); ok {
		if own.code != 0 {
			f.code = own.code
		}
		f.hint = orElse(own.hint, f.hint)
	}
	switch {
	case errors.Is(err, errSilent):
		f.message = ""
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		f.message, f.hint, f.code = "cancelled", orElse(hintOf(err), f.hint), exitCancelled
	case isCobraUsage(err):
		f.code = exitUsage
		f.hint = orElse(f.hint, `"kedge --help" lists the commands`)
	}
	f.message = oneLine(strings.Replace(f.message, " ("+f.hint+")", "", 1))
	f.hint = oneLine(f.hint)
	return f
}

func hintOf(err error) string {
	if own, ok := errors.AsType[*commandError](err); ok {
		return own.hint
	}
	return ""
}

// isCobraUsage tells the complaints that cobra itself makes about a command line, which have no type.
func isCobraUsage(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "unknown command ") || strings.HasPrefix(text, "required flag(s) ") ||
		strings.HasPrefix(text, "if any flags in the group ") || strings.HasPrefix(text, "at least one of the flags in the group ")
}

// maxMessage bounds a line of a message, which may quote names from an archive.
const maxMessage = 1200

// oneLine joins the lines of a text, as errors.Join writes them, and cuts what is too long for a person.
func oneLine(text string) string {
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage]) + "…"
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}
