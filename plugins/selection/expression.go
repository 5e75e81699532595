package selection

import (
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
	if err := json.Unmarshal(raw, &object); err != nil {
		return false, &FieldError{"spec.expression", fmt.Errorf("read the object: %w", err)}
	}
	out, _, err := e.program.ContextEval(ctx, map[string]any{"object": integers(object)})
	if err != nil {
		return false, &FieldError{"spec.expression", fmt.Errorf("%w: guard optional fields with has()", err)}
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, &FieldError{"spec.expression", fmt.Errorf("gave a %s: it must give true or false", out.Type())}
	}
	return yes, nil
}

// integers makes whole numbers integers, as Kubernetes' own expressions see them, so that "object.spec.replicas == 3" is true.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = integers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = integers(e)
		}
	case float64:
		if i := int64(v); float64(i) == v && i > -(1<<53) && i < 1<<53 {
			return i
		}
	}
	return v
}
