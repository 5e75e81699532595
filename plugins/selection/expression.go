package selection

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
)

const (
	// costLimit bounds one evaluation: about a tenth of a second of work, and far more than a sensible expression takes.
	costLimit     = 1_000_000
	maxExpression = 16 << 10
)

// expression is a compiled CEL expression over "object".
type expression struct {
	program cel.Program
}

func compileExpression(text string) (*expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("is longer than %d bytes", maxExpression)
	}
	env, err := cel.NewEnv(cel.Variable("object", cel.MapType(cel.StringType, cel.DynType)), cel.OptionalTypes(), ext.Strings(ext.StringsVersion(2)), ext.Sets())
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("is not a CEL expression over \"object\": %w", err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("gives a %s: it must give true or false", t)
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(1000))
	if err != nil {
		return nil, fmt.Errorf("is not a CEL expression over \"object\": %w", err)
	}
	return &expression{program}, nil
}

func (e *expression) matches(ctx context.Context, raw []byte) (bool, error) {
	var object map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&object); err != nil {
		return false, &FieldError{"spec.expression", fmt.Errorf("read the object: %w", err)}
	}
	out, _, err := e.program.ContextEval(ctx, map[string]any{"object": numbers(object)})
	if err != nil {
		return false, &FieldError{"spec.expression", fmt.Errorf("%w: guard optional fields with has()", err)}
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, &FieldError{"spec.expression", fmt.Errorf("gave a %s: it must give true or false", out.Type())}
	}
	return yes, nil
}

// numbers makes whole numbers integers, as Kubernetes' own expressions see them, so that "object.spec.replicas == 3" is true.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	}
	return v
}
