package transform

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Options are what a Pipeline is compiled from: fields of a RestoreSpec.
type Options struct {
	NamespaceMapping map[string]string
	Transforms       *v1alpha1.Transforms
}

// Subject is an item as it was archived: its place before any mapping, its kind, and its labels. Labels may be nil where they are
// not known; they are then read from the object.
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
	// Remarks name fields that hold old values still, because only the user can say what they mean. They quote nothing of a
	// Secret, and of other texts no more than the old value itself.
	Remarks []plugins.Remark
}

// rule is one of the mappings of Transforms.
type rule struct {
	mapping *mapping
	// reads says whether objects of the resource may hold fields that apply maps.
	reads func(r resource) bool
	// names says whether a field of a kind that no table knows could hold such a value, from its key: what it holds is reported. Unset, nothing is.
	names func(key string) bool
	// reports says of which resources; unset, custom ones.
	reports func(r resource) bool
	apply   func(e *edits)
}

// Pipeline is a compiled set of rules. It is safe for concurrent use.
type Pipeline struct {
	namespaces *namespaces // nil where none is mapped
	rules      []rule
	modifiers  []*modifier
	keys       *mapping // of KMS; nil where none is mapped
}

// Compile checks the rules and makes them a Pipeline. It reports all that is wrong at once; each error begins with the field
// that it is about: "namespaceMapping["a"]: …", "transforms.modifiers[2].jsonPatch[0].path: …".
func Compile(opts Options) (*Pipeline, error) {
	p := &Pipeline{}
	var errs []error
	m, err := newMapping("namespaceMapping", opts.NamespaceMapping, namespaceRules)
	errs = append(errs, err)
	if m != nil {
		p.namespaces = &namespaces{m}
	}
	t := opts.Transforms
	if t == nil {
		t = &v1alpha1.Transforms{}
	}
	for _, c := range []struct {
		field  string
		values map[string]string
		rules  mappingRules
		rule   func(*mapping) rule
	}{
		{"storageClasses", t.StorageClasses, storageClassRules, storageClasses},
		{"images", t.Images, imageRules, images},
		{"nodeSelectors", t.NodeSelectors, nodeSelectorRules, nodeSelectors},
		{"zones", t.Zones, zoneRules, zones},
		{"fileSystems", t.FileSystems, fileSystemRules, fileSystems},
		{"kmsKeys", t.KMSKeys, kmsKeyRules, p.mapKeys},
		{"roleARNs", t.RoleARNs, roleRules, roleARNs},
		{"loadBalancerValues", t.LoadBalancerValues, mappingRules{prefixes: true}, loadBalancerValues},
	} {
		m, err := newMapping("transforms."+c.field, c.values, c.rules)
		errs = append(errs, err)
		if m != nil {
			p.rules = append(p.rules, c.rule(m))
		}
	}
	for i, spec := range t.Modifiers {
		m, err := compileModifier(fmt.Sprintf("transforms.modifiers[%d]", i), spec)
		errs = append(errs, err)
		p.modifiers = append(p.modifiers, m)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// Empty says that the pipeline changes nothing, whatever the item.
func (p *Pipeline) Empty() bool { return p.namespaces == nil && len(p.rules)+len(p.modifiers) == 0 }

// Ref gives the place that an item goes to: its namespace mapped, and its name if it is a namespace.
func (p *Pipeline) Ref(ref plugins.Ref) plugins.Ref { return p.namespaces.ref(ref) }

// Wants says whether a rule could change or remark on the item, from its place and its JSON alone; where it is false, Apply
// changes nothing and the item need not be decoded.
func (p *Pipeline) Wants(s Subject, raw []byte) bool {
	if p.Empty() {
		return false
	}
	res := resourceOf(s.Ref)
	if p.namespaces != nil && (p.Ref(s.Ref) != s.Ref || p.namespaces.named(raw)) {
		return true
	}
	for i := range p.rules {
		if r := &p.rules[i]; (r.reads(res) || r.remarksOn(res)) && r.mapping.in(raw) {
			return true
		}
	}
	if (p.namespaces != nil || len(p.rules) > 0) && escaped(raw) {
		return true
	}
	for _, m := range p.modifiers {
		if m.wants(s, raw) {
			return true
		}
	}
	return false
}

// in says whether the object could hold an old value of the mapping.
func (m *mapping) in(raw []byte) bool {
	for _, n := range m.needles {
		if bytes.Contains(raw, n) {
			return true
		}
	}
	return false
}

// named says whether the object could name a mapped namespace. A name stands between characters that no name holds.
func (n *namespaces) named(raw []byte) bool {
	for _, needle := range n.needles {
		for rest := raw; ; {
			i := bytes.Index(rest, needle)
			if i < 0 {
				break
			}
			end := i + len(needle)
			if (i == 0 || !nameByte(rest[i-1])) && (end == len(rest) || !nameByte(rest[end])) {
				return true
			}
			rest = rest[i+1:]
		}
	}
	return false
}

func nameByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '-'
}

// escaped says that the JSON writes characters of names as escapes, so that a search of its bytes is no proof. Servers escape
// "<", ">", "&" and control characters only.
func escaped(raw []byte) bool {
	for rest := raw; ; {
		i := bytes.Index(rest, []byte(`\u`))
		if i < 0 {
			return bytes.Contains(raw, []byte(`\/`))
		}
		if rest = rest[i+2:]; len(rest) < 4 || !harmless(string(rest[:4])) {
			return true
		}
	}
}

// harmless says that the four hexadecimal digits are of a character that stands in no old value.
func harmless(hex string) bool {
	switch hex {
	case "003c", "003e", "0026", "003C", "003E", "2028", "2029":
		return true
	}
	return hex[:3] == "000" || hex[:3] == "001"
}

// Apply runs all rules over a decoded object: namespaces, then the other mappings in the order of Transforms' fields, then the modifiers
// in theirs. It changes the object in place where it can; the caller goes on with Result.Object, and on an error with neither.
// Errors name the item and the modifier.
func (p *Pipeline) Apply(ctx context.Context, s Subject, obj map[string]any) (Result, error) {
	e := &edits{subject: s, resource: resourceOf(s.Ref), obj: obj}
	p.collect(e)
	if p.namespaces != nil {
		p.namespaces.apply(e)
	}
	for _, r := range p.rules {
		r.apply(e)
	}
	for _, m := range p.modifiers {
		out, changed, err := m.apply(ctx, e)
		if err != nil {
			return Result{}, fmt.Errorf("apply %s to %s: %w", m.field, s.Ref, err)
		}
		e.obj = out
		e.changed = e.changed || changed
	}
	e.remarkKept(e.obj)
	return Result{Object: e.obj, Changed: e.changed, Remarks: e.remarks}, nil
}

// collect notes fields that hold old values where no table says what they mean.
func (p *Pipeline) collect(e *edits) {
	var looks []func(*edits, string, string)
	if p.namespaces != nil {
		looks = append(looks, p.namespaces.keeps)
	}
	for _, r := range p.rules {
		if r.remarksOn(e.resource) {
			looks = append(looks, r.keeps)
		}
	}
	if len(looks) == 0 {
		return
	}
	e.collect(func(e *edits, key, value string) {
		for _, look := range looks {
			look(e, key, value)
		}
	})
}

func (r rule) remarksOn(res resource) bool {
	if r.names == nil {
		return false
	}
	return res.custom() || r.reports != nil && r.reports(res)
}

// Unused gives the fields of the rules that have matched nothing so far: entries of mappings, and modifiers.
func (p *Pipeline) Unused() []string {
	var out []string
	if p.namespaces != nil {
		out = p.namespaces.unused()
	}
	for _, r := range p.rules {
		out = append(out, r.mapping.unused()...)
	}
	for _, m := range p.modifiers {
		if !m.used.Load() {
			out = append(out, m.field)
		}
	}
	return out
}
