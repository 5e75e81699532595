package transform

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
)

const (
	// costLimit bounds one evaluation, as in a selection.
	costLimit     = 1_000_000
	maxExpression = 16 << 10
	// maxNodes and maxDepth bound the object that an expression makes.
	maxNodes = 1_000_000
	maxDepth = 1000
)

// expression is a compiled CEL expression over "object".
type expression struct{ program cel.Program }

// compileExpression compiles an expression in the language that selections have, with transformMap and its kin.
func compileExpression(s string, wrong func(t *cel.Type) string) (*expression, error) {
	if len(s) > maxExpression {
		return nil, fmt.Errorf("is longer than %d bytes", maxExpression)
	}
	env, err := cel.NewEnv(cel.Variable("object", cel.MapType(cel.StringType, cel.DynType)), cel.OptionalTypes(),
		ext.Strings(ext.StringsVersion(2)), ext.Sets(), ext.TwoVarComprehensions())
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	ast, issues := env.Compile(s)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("is not a CEL expression over \"object\": %w", err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.DynType) {
		if must := wrong(t); must != "" {
			return nil, fmt.Errorf("gives a %s: it must give %s", t, must)
		}
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(1000))
	if err != nil {
		return nil, fmt.Errorf("is not a CEL expression over \"object\": %w", err)
	}
	return &expression{program}, nil
}

func compileCondition(s string) (*expression, error) {
	return compileExpression(s, func(t *cel.Type) string {
		if t.IsExactType(cel.BoolType) {
			return ""
		}
		return "true or false"
	})
}

func (x *expression) eval(ctx context.Context, obj map[string]any) (ref.Val, error) {
	out, _, err := x.program.ContextEval(ctx, map[string]any{"object": obj})
	if err != nil {
		return nil, fmt.Errorf("%w: guard optional fields with has()", err)
	}
	return out, nil
}

func (x *expression) holds(ctx context.Context, obj map[string]any) (bool, error) {
	out, err := x.eval(ctx, obj)
	if err != nil {
		return false, err
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("gave a %s: it must give true or false", out.Type().TypeName())
	}
	return yes, nil
}

// compileReplacement compiles an expression whose value takes the object's place.
func compileReplacement(field, s string) (patch, error) {
	x, err := compileExpression(s, func(t *cel.Type) string {
		if t.Kind() == types.MapKind {
			return ""
		}
		return "the whole object, a map"
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return func(ctx context.Context, obj map[string]any) (map[string]any, error) {
		out, err := x.eval(ctx, obj)
		if err != nil {
			return nil, fmt.Errorf("expression: %w", err)
		}
		n := native{left: maxNodes}
		v, err := n.value(out, 0)
		if err != nil {
			return nil, fmt.Errorf("expression: %w", err)
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("expression: gave a %s: it must give the whole object, a map", out.Type().TypeName())
		}
		return m, nil
	}, nil
}

// native makes decoded JSON of CEL values, without sharing anything with the object that they came from.
type native struct{ left int }

func (n *native) value(v ref.Val, depth int) (any, error) {
	if n.left--; n.left < 0 || depth > maxDepth {
		return nil, errors.New("makes an object that is too large or too deep")
	}
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.String:
		return string(v), nil
	case types.Int, types.Uint, types.Double:
		return number(v)
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(v), nil
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano), nil
	case traits.Mapper:
		return n.object(v, depth)
	case traits.Lister:
		return n.list(v, depth)
	}
	return nil, fmt.Errorf("gives a %s, which JSON cannot write", v.Type().TypeName())
}

// number makes a number that JSON in Kubernetes has.
func number(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Int:
		return int64(v), nil
	case types.Uint:
		if uint64(v) <= math.MaxInt64 {
			return int64(v), nil
		}
	case types.Double:
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, nil
		}
	}
	return nil, errors.New("gives a number that JSON in Kubernetes cannot write")
}

func (n *native) object(v traits.Mapper, depth int) (any, error) {
	out := map[string]any{}
	for it := v.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, fmt.Errorf("gives a key that is a %s: keys are strings", key.Type().TypeName())
		}
		child, err := n.value(v.Get(key), depth+1)
		if err != nil {
			return nil, err
		}
		out[string(name)] = child
	}
	return out, nil
}

func (n *native) list(v traits.Lister, depth int) (any, error) {
	out := []any{}
	for it := v.Iterator(); it.HasNext() == types.True; {
		child, err := n.value(it.Next(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, child)
	}
	return out, nil
}
