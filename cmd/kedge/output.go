package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/internal/term"
)

// The output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
	formatText  = "text"
)

// outputFlag is -o: how data is printed.
type outputFlag struct {
	format  string
	allowed []string
}

// bindOutput adds -o with the formats that a command knows; the first is the default.
func (o *outputFlag) bind(flags *pflag.FlagSet, formats ...string) {
	o.format, o.allowed = formats[0], formats
	flags.VarP(o, "output", "o", "how to print: "+strings.Join(formats, ", "))
}

// String is the chosen format.
func (o *outputFlag) String() string { return o.format }

// Type is the placeholder in help texts.
func (o *outputFlag) Type() string { return "format" }

// Set chooses a format.
func (o *outputFlag) Set(text string) error {
	if !slices.Contains(o.allowed, text) {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(o.allowed, ", "))
	}
	o.format = text
	return nil
}

// structured says whether a program will read the output.
func (o *outputFlag) structured() bool { return o.format == formatJSON || o.format == formatYAML }

// printStructured writes a value as JSON or YAML.
func (a *app) printStructured(format string, value any) error {
	data, err := encode(format, value)
	if err != nil {
		return err
	}
	return a.write(data)
}

func encode(format string, value any) ([]byte, error) {
	if format == formatYAML {
		data, err := yaml.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode the output: %w", err)
		}
		return data, nil
	}
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	return append(data, '\n'), nil
}

// write puts data on stdout.
func (a *app) write(data []byte) error {
	_, err := a.ui.Out.Write(data)
	return outputError(err)
}

// printf puts a line of text on stdout, made safe for a terminal.
func (a *app) printf(format string, args ...any) {
	fmt.Fprint(a.ui.Out, term.CleanText(fmt.Sprintf(format, args...)))
}

// printText puts on stdout what a function writes, made safe for a terminal.
func (a *app) printText(write func(io.Writer) error) error {
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	a.printf("%s", text.String())
	return nil
}

// printTable puts a table on stdout; an empty one is a note.
func (a *app) printTable(t *term.Table, format, none string) error {
	if t.Len() == 0 {
		a.ui.Note("%s", none)
		return nil
	}
	return outputError(t.Write(a.ui.Out, a.ui, format == formatWide))
}

// outputError says where data could not be written.
func outputError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write the output: %w", err)
}
