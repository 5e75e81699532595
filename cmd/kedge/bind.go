package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// binder binds flags straight to the fields of a spec. What was typed is remembered, so that it can be laid over a spec that
// was read from a file after the flags were parsed.
type binder struct {
	flags *pflag.FlagSet
	group string
	bound []*boundFlag
}

// boundFlag is one flag of a binder; it implements pflag.Value.
type boundFlag struct {
	kind  string
	raw   []string
	reset func()
	set   func(string) error
	show  func() string
}

// String is the flag's value, where it is one text; the default of every flag is a zero value.
func (f *boundFlag) String() string {
	if f.show != nil {
		return f.show()
	}
	return ""
}

// Type is the placeholder in help texts.
func (f *boundFlag) Type() string { return f.kind }

// Set takes one value as typed.
func (f *boundFlag) Set(value string) error {
	if len(f.raw) == 0 && f.reset != nil {
		f.reset()
	}
	f.raw = append(f.raw, value)
	return f.set(value)
}

// overlay sets again what was typed: a list that was typed replaces the one that the file gave.
func (b *binder) overlay() error {
	for _, f := range b.bound {
		raw := f.raw
		f.raw = nil
		for _, value := range raw {
			if err := f.Set(value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *binder) add(f *boundFlag, name, short, text string) *pflag.Flag {
	b.bound = append(b.bound, f)
	flag := b.flags.VarPF(f, name, short, text)
	flag.Annotations = map[string][]string{groupAnnotation: {b.group}}
	return flag
}

// list binds a list of comma-separated values; the flag may be repeated.
func (b *binder) list(dst *[]string, name, text string) {
	b.add(&boundFlag{kind: "list", reset: func() { *dst = nil }, set: func(value string) error {
		for item := range strings.SplitSeq(value, ",") {
			item = strings.TrimSpace(item)
			if item == "" {
				return fmt.Errorf("%q holds an empty name", value)
			}
			*dst = append(*dst, item)
		}
		return nil
	}}, name, "", text)
}

// text binds a string.
func (b *binder) text(dst *string, name, kind, text string) {
	b.add(&boundFlag{kind: kind, show: func() string { return *dst }, set: func(value string) error {
		*dst = value
		return nil
	}}, name, "", text)
}

// toggle binds a boolean whose default is false.
func (b *binder) toggle(dst *bool, name, text string) {
	flag := b.add(&boundFlag{kind: "bool", set: func(value string) error {
		on, err := strconv.ParseBool(value)
		*dst = on
		return err
	}}, name, "", text)
	flag.NoOptDefVal = "true"
}

// tristate binds a boolean that may be unset.
func (b *binder) tristate(dst **bool, name, text string) {
	flag := b.add(&boundFlag{kind: "bool", set: func(value string) error {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return err
		}
		*dst = &on
		return nil
	}}, name, "", text)
	flag.NoOptDefVal = "true"
}

// duration binds a time span; days ("30d") and weeks ("2w") are understood beside what Go writes.
func (b *binder) duration(dst *metav1.Duration, name, text string) {
	b.add(&boundFlag{kind: "duration", set: func(value string) error {
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		dst.Duration = d
		return nil
	}}, name, "", text)
}

// span binds a time span that may be unset.
func (b *binder) span(dst **metav1.Duration, name, text string) {
	b.add(&boundFlag{kind: "duration", set: func(value string) error {
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		*dst = &metav1.Duration{Duration: d}
		return nil
	}}, name, "", text)
}

// count binds a number from 0 up.
func (b *binder) count(dst *int, name, text string) {
	b.add(&boundFlag{kind: "number", set: func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a number from 0 up", value)
		}
		*dst = n
		return nil
	}}, name, "", text)
}

// pairs binds a map whose entries are written key<sep>value, comma-separated; the flag may be repeated.
func (b *binder) pairs(dst *map[string]string, sep, name, kind, text string) {
	b.add(&boundFlag{kind: kind, reset: func() { *dst = nil }, set: func(value string) error { return addPairs(dst, kind, sep, value) }}, name, "", text)
}

// addPairs adds entries written key<sep>value to a map. Form is how messages write such an entry.
func addPairs(dst *map[string]string, form, sep, value string) error {
	for item := range strings.SplitSeq(value, ",") {
		key, val, ok := strings.Cut(item, sep)
		key, val = strings.TrimSpace(key), strings.TrimSpace(val)
		if !ok || key == "" {
			return fmt.Errorf("%q is not of the form %s", item, form)
		}
		if before, double := (*dst)[key]; double && before != val {
			return fmt.Errorf("%q is given twice: %q and %q", key, before, val)
		}
		if *dst == nil {
			*dst = map[string]string{}
		}
		(*dst)[key] = val
	}
	return nil
}

// parseDuration reads "720h", "90m", "30d", "2w".
func parseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a time span such as 90m, 12h, 30d or 2w", text)
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		number, ok := strings.CutSuffix(text, suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || n < 0 || time.Duration(n) > (1<<63-1)/unit {
			return 0, bad
		}
		return time.Duration(n) * unit, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, bad
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative", text)
	}
	return d, nil
}

// optionalBool is a boolean flag that knows whether it was given.
type optionalBool struct {
	given, value bool
}

// String is the value for help texts.
func (o *optionalBool) String() string {
	if !o.given {
		return ""
	}
	return strconv.FormatBool(o.value)
}

// Type is the placeholder in help texts.
func (o *optionalBool) Type() string { return "bool" }

// Set takes the value as typed.
func (o *optionalBool) Set(text string) error {
	value, err := strconv.ParseBool(text)
	if err != nil {
		return err
	}
	o.given, o.value = true, value
	return nil
}

// flagError makes what pflag says a usage error that names the command and the flag.
func flagError(cmd *cobra.Command, err error) error {
	hint := fmt.Sprintf("%q lists the flags", cmd.CommandPath()+" --help")
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := errors.Unwrap(invalid)
		var number *strconv.NumError
		switch {
		case errors.As(cause, &number) && number.Func == "ParseBool":
			cause = fmt.Errorf("%q is neither true nor false", number.Num)
		case errors.As(cause, &number):
			cause = fmt.Errorf("%q is not a number", number.Num)
		}
		return usageError(fmt.Errorf("%s--%s: %w", prefix(cmd), invalid.GetFlag().Name, cause), hint)
	}
	if text := err.Error(); strings.HasPrefix(text, "unknown shorthand flag: 'n'") || strings.HasPrefix(text, "unknown flag: --namespace") {
		hint = "objects are selected with --include-namespaces"
	}
	return usageError(fmt.Errorf("%s%w", prefix(cmd), err), hint)
}
