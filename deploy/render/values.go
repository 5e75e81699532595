package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"
)

// ErrValues means that values are not what the chart can take; the error's text names them.
var ErrValues = errors.New("bad values")

// valuesError is one complaint about values.
type valuesError struct{ err error }

// Error is the complaint.
func (e *valuesError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *valuesError) Unwrap() error { return e.err }

// Is makes errors.Is(err, ErrValues) work.
func (e *valuesError) Is(target error) bool { return target == ErrValues }

func badValues(format string, args ...any) error {
	return &valuesError{fmt.Errorf(format, args...)}
}

// Values lays the user's values over the chart's and checks them against its schema. A null takes a default of the chart away.
func Values(chart fs.FS, own map[string]any) (map[string]any, error) {
	data, err := fs.ReadFile(chart, "values.yaml")
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(data, &defaults); err != nil {
		return nil, fmt.Errorf("read the chart: values.yaml: %w", err)
	}
	merged := withoutNulls(Merge(defaults, own))
	return merged, check(chart, merged)
}

// Merge lays values over others: maps are merged, everything else is replaced. Neither argument is changed.
func Merge(under, over map[string]any) map[string]any {
	merged := maps.Clone(under)
	if merged == nil {
		merged = map[string]any{}
	}
	for key, value := range over {
		below, both := merged[key].(map[string]any)
		if above, ok := value.(map[string]any); ok && both {
			merged[key] = Merge(below, above)
			continue
		}
		merged[key] = value
	}
	return merged
}

func withoutNulls(values map[string]any) map[string]any {
	kept := map[string]any{}
	for key, value := range values {
		switch v := value.(type) {
		case nil:
		case map[string]any:
			kept[key] = withoutNulls(v)
		default:
			kept[key] = v
		}
	}
	return kept
}

// check holds values against the chart's schema.
func check(chart fs.FS, values map[string]any) error {
	data, err := fs.ReadFile(chart, "values.schema.json")
	if err != nil {
		return fmt.Errorf("read the chart: %w", err)
	}
	var schema spec.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		return fmt.Errorf("read the chart: values.schema.json: %w", err)
	}
	result := validate.NewSchemaValidator(&schema, nil, "", strfmt.Default).Validate(any(values))
	if result.IsValid() {
		return nil
	}
	var all error
	for _, e := range result.Errors {
		all = errors.Join(all, errors.New(strings.TrimPrefix(strings.Replace(e.Error(), " in body", "", 1), ".")))
	}
	return badValues("check the values: %w", all)
}

// ReadValues reads a file of values.
func ReadValues(data []byte) (map[string]any, error) {
	var values map[string]any
	if err := yaml.Unmarshal(data, &values); err != nil {
		return nil, badValues("read values: %w", err)
	}
	return values, nil
}

// Set changes one value as Helm's --set does: "a.b=c", "a[0].b=c", "a={x,y}", "a\.b=c" for a key with a dot, "a=null" to take a default away.
// What looks like a number, true, false or null is one, unless text says that everything is a string. Unlike Helm's, it is one
// assignment: commas are part of the value.
func Set(values map[string]any, assignment string, text bool) error {
	left, right, ok := strings.Cut(assignment, "=")
	if !ok || left == "" {
		return badValues("%q is not of the form key=value", assignment)
	}
	keys, err := splitKeys(left)
	if err != nil {
		return badValues("%q: %w", assignment, err)
	}
	changed, err := put(values, keys, typed(right, text))
	if err != nil {
		return badValues("%q: %w", assignment, err)
	}
	maps.Copy(values, changed.(map[string]any)) // the first key is a name
	return nil
}

// splitKeys splits "a.b\.c[0]" in its keys: strings, and ints for places in lists.
func splitKeys(left string) ([]any, error) {
	var keys []any
	for segment := range strings.SplitSeq(strings.ReplaceAll(left, `\.`, "\x00"), ".") {
		name, places, _ := strings.Cut(segment, "[")
		if name == "" {
			return nil, errors.New("a key is empty")
		}
		keys = append(keys, strings.ReplaceAll(name, "\x00", "."))
		for places != "" {
			digits, rest, closed := strings.Cut(places, "]")
			n, err := strconv.Atoi(digits)
			if err != nil || !closed || n < 0 || (rest != "" && rest[0] != '[') {
				return nil, fmt.Errorf("[%s] is no place in a list", digits)
			}
			keys = append(keys, n)
			places = strings.TrimPrefix(rest, "[")
		}
	}
	return keys, nil
}

// put returns old with the value at the end of keys.
func put(old any, keys []any, value any) (any, error) {
	if len(keys) == 0 {
		return value, nil
	}
	switch key := keys[0].(type) {
	case int:
		list, ok := old.([]any)
		if old != nil && !ok {
			return nil, fmt.Errorf("there is no list to have a place %d", key)
		}
		if key > len(list) {
			return nil, fmt.Errorf("the list has %d entries, so the next place is %d", len(list), len(list))
		}
		list = append([]any(nil), list...)
		if key == len(list) {
			list = append(list, nil)
		}
		var err error
		list[key], err = put(list[key], keys[1:], value)
		return list, err
	default:
		name := key.(string)
		values, ok := old.(map[string]any)
		if old != nil && !ok {
			return nil, fmt.Errorf("%s is below something that holds no names", name)
		}
		values = maps.Clone(values)
		if values == nil {
			values = map[string]any{}
		}
		below, err := put(values[name], keys[1:], value)
		values[name] = below
		return values, err
	}
}

// typed reads the right side of an assignment.
func typed(right string, text bool) any {
	if inner, ok := strings.CutPrefix(right, "{"); ok && strings.HasSuffix(inner, "}") {
		list := []any{}
		if inner = strings.TrimSuffix(inner, "}"); inner == "" {
			return list
		}
		for item := range strings.SplitSeq(inner, ",") {
			list = append(list, typed(strings.TrimSpace(item), text))
		}
		return list
	}
	if text {
		return right
	}
	switch right {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	}
	if n, err := strconv.ParseInt(right, 10, 64); err == nil && strconv.FormatInt(n, 10) == right {
		return n
	}
	return right
}
