package selection

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// maxPatterns and maxPattern bound each list field.
const (
	maxPatterns = 10000
	maxPattern  = 512
)

// FieldError is one thing wrong with a selection.
type FieldError struct {
	Field string // "spec.includedNamespaces[2]"
	Err   error
}

// Error is "<field>: <what is wrong>".
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldAt(field string, i int) string { return fmt.Sprintf("spec.%s[%d]", field, i) }

func wrong(field, format string, args ...any) error {
	return &FieldError{Field: "spec." + field, Err: fmt.Errorf(format, args...)}
}

// Compile checks a selection and makes it a Matcher. Its errors are one or more *FieldError, joined, each naming the field.
func Compile(s v1alpha1.Selection) (*Matcher, error) {
	m := &Matcher{
		includedNamespaces: patterns{"includedNamespaces", s.IncludedNamespaces},
		excludedNamespaces: patterns{"excludedNamespaces", s.ExcludedNamespaces},
		included:           patterns{"includedResources", s.IncludedResources},
		excluded:           patterns{"excludedResources", s.ExcludedResources},
		includedCluster:    patterns{"includedClusterScopedResources", s.IncludedClusterScopedResources},
		excludedCluster:    patterns{"excludedClusterScopedResources", s.ExcludedClusterScopedResources},
		includedNamespaced: patterns{"includedNamespaceScopedResources", s.IncludedNamespaceScopedResources},
		excludedNamespaced: patterns{"excludedNamespaceScopedResources", s.ExcludedNamespaceScopedResources},
		clusterResources:   s.IncludeClusterResources,
	}
	m.scoped = len(m.includedCluster.list)+len(m.excludedCluster.list)+len(m.includedNamespaced.list)+len(m.excludedNamespaced.list) > 0
	errs := []error{
		pair(m.includedNamespaces, m.excludedNamespaces, false, checkNamespace),
		pair(m.included, m.excluded, false, checkResource),
		pair(m.includedCluster, m.excludedCluster, true, checkResource),
		pair(m.includedNamespaced, m.excludedNamespaced, true, checkResource),
		m.combination(),
		m.compileLabels(s.LabelSelector, s.OrLabelSelectors),
		m.compileFields(s.FieldSelector),
	}
	if s.Expression != "" {
		var err error
		if m.expression, err = compileExpression(s.Expression); err != nil {
			errs = append(errs, &FieldError{Field: "spec.expression", Err: err})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}

// combination refuses the two ways of naming resources at once, as Velero does.
func (m *Matcher) combination() error {
	if !m.scoped {
		return nil
	}
	var errs []error
	for _, p := range []patterns{m.included, m.excluded} {
		if len(p.list) > 0 {
			errs = append(errs, wrong(p.field, "cannot be combined with the fields that name cluster-scoped or namespace-scoped resources: use either form alone"))
		}
	}
	if m.clusterResources != nil {
		errs = append(errs, wrong("includeClusterResources", "cannot be combined with the fields that name cluster-scoped or namespace-scoped resources: use includedClusterScopedResources or excludedClusterScopedResources"))
	}
	return errors.Join(errs...)
}

// pair checks a list of inclusions and its list of exclusions.
func pair(in, out patterns, excludeAll bool, check func(string) error) error {
	errs := []error{checkList(in, check), checkList(out, check)}
	if in.hasStar() && len(in.list) > 1 {
		errs = append(errs, wrong(in.field, "holds \"*\" and more: \"*\" means all, so leave out the others"))
	}
	switch {
	case out.hasStar() && !excludeAll:
		errs = append(errs, wrong(out.field, "holds \"*\": that leaves nothing; name what is to be left out"))
	case out.hasStar() && len(out.list) > 1:
		errs = append(errs, wrong(out.field, "holds \"*\" and more: \"*\" means all, so leave out the others"))
	}
	for i, s := range out.list {
		if s != "*" && slices.Contains(in.list, s) {
			errs = append(errs, &FieldError{fieldAt(out.field, i), fmt.Errorf("%q is in %s too: keep it in one of them", s, in.field)})
		}
	}
	return errors.Join(errs...)
}

func checkList(p patterns, check func(string) error) error {
	if len(p.list) > maxPatterns {
		return wrong(p.field, "has %d entries, more than the %d allowed: use globs", len(p.list), maxPatterns)
	}
	var errs []error
	for i, s := range p.list {
		if err := check(s); err != nil {
			errs = append(errs, &FieldError{fieldAt(p.field, i), err})
		}
	}
	return errors.Join(errs...)
}

var (
	namespacePattern = regexp.MustCompile(`^[-a-z0-9*?\[\]^]+$`)
	resourcePattern  = regexp.MustCompile(`^[-a-zA-Z0-9.*?\[\]^]+$`)
)

func checkNamespace(s string) error {
	return checkPattern(s, namespacePattern, `a namespace: lower case letters, digits and "-", with "*", "?" and "[a-z]" as wildcards`)
}

func checkResource(s string) error {
	return checkPattern(s, resourcePattern, `a resource: "deployments", "deploy", "deployments.apps", "deployments.v1.apps", with "*", "?" and "[a-z]" as wildcards`)
}

func checkPattern(s string, legal *regexp.Regexp, what string) error {
	switch {
	case s == "":
		return fmt.Errorf("is empty: write %s", what)
	case len(s) > maxPattern:
		return fmt.Errorf("is longer than %d characters", maxPattern)
	case strings.Contains(s, ","):
		return fmt.Errorf("%q holds a comma: write one entry for each name", s)
	case !legal.MatchString(s):
		return fmt.Errorf("%q is not %s", s, what)
	}
	for part := range strings.SplitSeq(s, ".") {
		if _, err := path.Match(part, ""); err != nil {
			return fmt.Errorf("%q has a \"[\" that is not closed", s)
		}
	}
	return nil
}

func (m *Matcher) compileLabels(one *metav1.LabelSelector, any []*metav1.LabelSelector) error {
	if one != nil && len(any) > 0 {
		return wrong("orLabelSelectors", "cannot be combined with labelSelector: move that into the list")
	}
	if one != nil {
		return m.addSelector("labelSelector", one)
	}
	var errs []error
	for i, s := range any {
		field := fmt.Sprintf("orLabelSelectors[%d]", i)
		if s == nil {
			errs = append(errs, wrong(field, "is empty: write a selector"))
			continue
		}
		errs = append(errs, m.addSelector(field, s))
	}
	return errors.Join(errs...)
}

func (m *Matcher) addSelector(field string, s *metav1.LabelSelector) error {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return wrong(field, "%w", err)
	}
	if sel.Empty() {
		sel = labels.Everything()
		if field == "labelSelector" {
			return nil
		}
	}
	m.selectors = append(m.selectors, sel)
	return nil
}

// fieldTerm is one comparison of a field selector.
type fieldTerm struct {
	namespace bool // metadata.namespace, else metadata.name
	not       bool
	value     string
}

func (f fieldTerm) matches(ref plugins.Ref) bool {
	got := ref.Name
	if f.namespace {
		got = ref.Namespace
	}
	return (got == f.value) != f.not
}

func (m *Matcher) compileFields(s string) error {
	if s == "" {
		return nil
	}
	sel, err := fields.ParseSelector(s)
	if err != nil {
		return wrong("fieldSelector", "%w", err)
	}
	for _, req := range sel.Requirements() {
		term := fieldTerm{value: req.Value, not: req.Operator == selection.NotEquals}
		switch req.Field {
		case "metadata.name":
		case "metadata.namespace":
			term.namespace = true
		default:
			return wrong("fieldSelector", "%q is not a field that every object has: use metadata.name and metadata.namespace, or an expression", req.Field)
		}
		m.fields = append(m.fields, term)
	}
	return nil
}
