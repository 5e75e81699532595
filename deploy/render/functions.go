package render

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

// ErrRequired means that a value is missing which the chart cannot do without; the error's text names it.
var ErrRequired = errors.New("a value is missing")

// requiredError carries its text through the template engine.
type requiredError struct{ text string }

// Error says which value, and what it is for.
func (e *requiredError) Error() string { return e.text }

// Is makes errors.Is(err, ErrRequired) work.
func (e *requiredError) Is(target error) bool { return target == ErrRequired }

// templateError takes what a template complained about out of the engine's account of where it was.
func templateError(err error) error {
	if required, ok := errors.AsType[*requiredError](err); ok {
		return required
	}
	return err
}

// functions are those of Helm's that the chart uses, with Helm's meaning.
func functions(set *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var out strings.Builder
			err := set.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"required": func(text string, value any) (any, error) {
			if value == nil || value == "" {
				return nil, &requiredError{text}
			}
			return value, nil
		},
		"default": func(otherwise, value any) any {
			if truth, ok := template.IsTrue(value); value == nil || (ok && !truth) {
				return otherwise
			}
			return value
		},
		"quote":      func(value any) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"trunc":      func(n int, text string) string { return text[:min(n, len(text))] },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"nindent":    func(n int, text string) string { return "\n" + indent(n, text) },
		"int64":      toInt64,
		"toYaml": func(value any) (string, error) {
			data, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(data), "\n"), err
		},
		"fromYaml": func(text string) (map[string]any, error) {
			content := map[string]any{}
			err := yaml.Unmarshal([]byte(text), &content)
			return content, err
		},
	}
}

func indent(n int, text string) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
}

// toInt64 writes a number as an integer: those of YAML files are floating, and large ones would be written with an exponent.
func toInt64(value any) (int64, error) {
	v := reflect.ValueOf(value)
	switch {
	case v.CanInt():
		return v.Int(), nil
	case v.CanFloat():
		return int64(v.Float()), nil
	}
	return 0, fmt.Errorf("%v is no number", value)
}
