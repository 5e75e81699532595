package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
)

// The domains of annotations, the first that a pod has for a phase counts. Velero's are read so that applications need not be changed.
var domains = []string{"kedge.dev", "velero.io"}

// marker is in the JSON of every pod that has annotations of hooks.
const marker = ".hook.backup."

// fromAnnotations reads the command that a pod's annotations have for a phase of a backup, if they have one.
func fromAnnotations(annotations map[string]string, phase Phase) (Command, bool) {
	c, _, ok := annotated(annotations, string(phase)+marker, "timeout", v1alpha1.HookFail)
	return c, ok
}

// annotated reads the command of annotations that begin so, before the domain, and gives the prefix with the domain.
func annotated(annotations map[string]string, kind, timeout string, mode v1alpha1.HookErrorMode) (c Command, prefix string, ok bool) {
	for _, domain := range domains {
		prefix = kind + domain + "/"
		text, ok := annotations[prefix+"command"]
		if !ok {
			continue
		}
		c := Command{Source: "annotation " + prefix + "command", Container: annotations[prefix+"container"], Timeout: DefaultTimeout, OnError: mode}
		var errs [3]error
		c.Argv, errs[0] = parseCommand(text)
		if t, ok := annotations[prefix+timeout]; ok {
			c.Timeout, errs[1] = parseTimeout(prefix+timeout, t)
		}
		if text, ok := annotations[prefix+"on-error"]; ok {
			c.OnError, errs[2] = parseMode(prefix+"on-error", text)
		}
		c.Invalid = errors.Join(errs[:]...)
		return c, prefix, true
	}
	return Command{}, "", false
}

// parseCommand reads a JSON array, or else takes the text for the path of a program.
func parseCommand(text string) ([]string, error) {
	text = strings.TrimSpace(text)
	argv := []string{text}
	if strings.HasPrefix(text, "[") {
		argv = nil
		if err := json.Unmarshal([]byte(text), &argv); err != nil {
			return nil, errors.New(`the command begins like a JSON array and is none: write ["/bin/sh", "-c", "…"]`) // the parser's error could quote it
		}
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("the command names no program")
	}
	return argv, nil
}

func parseTimeout(name, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return DefaultTimeout, fmt.Errorf("annotation %s: %q is not a time span such as 30s or 5m", name, text)
	}
	if err := checkTimeout(d); err != nil {
		return DefaultTimeout, fmt.Errorf("annotation %s: %w", name, err)
	}
	return d, nil
}

func parseMode(name, text string) (v1alpha1.HookErrorMode, error) {
	switch mode := v1alpha1.HookErrorMode(text); mode {
	case v1alpha1.HookFail, v1alpha1.HookContinue:
		return mode, nil
	}
	return v1alpha1.HookFail, fmt.Errorf("annotation %s: %q is neither Fail nor Continue", name, text)
}
