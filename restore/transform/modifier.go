package transform

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins/selection"
)

// maxRegex bounds a name's pattern.
const maxRegex = 4096

// patch makes a new object of one; it may use up the old one.
type patch func(ctx context.Context, obj map[string]any) (map[string]any, error)

// modifier is a compiled ResourceModifier.
type modifier struct {
	field string // "transforms.modifiers[2]"
	used  atomic.Bool

	resources  *selection.Matcher // nil: all
	items      *selection.Matcher // by namespace and label; nil: all
	namespaced bool               // namespaces are named, so that cluster-scoped objects are out
	labelled   bool               // labels are asked for
	name       *regexp.Regexp     // nil: all
	condition  *expression        // nil: always

	patch patch

	mu   sync.RWMutex
	seen map[resourceVersion]bool // what resources said, for it is asked of every item
}

type resourceVersion struct {
	resource
	version    string
	namespaced bool
}

// selectionFields are the names that a selection's fields have in a modifier.
var selectionFields = strings.NewReplacer("spec.includedResources", "resources", "spec.includedNamespaces", "namespaces", "spec.labelSelector", "labelSelector",
	"includedResources", "resources", "includedNamespaces", "namespaces")

func compileModifier(field string, spec v1alpha1.ResourceModifier) (*modifier, error) {
	m := &modifier{field: field, seen: map[resourceVersion]bool{}}
	var errs []error
	fail := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%s: %w", field, name, err))
		}
	}
	var err error
	if len(spec.Resources) > 0 {
		m.resources, err = selection.Compile(v1alpha1.Selection{IncludedResources: spec.Resources})
		errs = append(errs, renamed(field, err))
	}
	if len(spec.Namespaces) > 0 || spec.LabelSelector != nil {
		m.items, err = selection.Compile(v1alpha1.Selection{IncludedNamespaces: spec.Namespaces, LabelSelector: spec.LabelSelector})
		errs = append(errs, renamed(field, err))
		m.namespaced = err == nil && !m.items.AllNamespaces()
		m.labelled = spec.LabelSelector != nil
	}
	if spec.NameRegex != "" {
		m.name, err = compileRegex(spec.NameRegex)
		fail("nameRegex", err)
	}
	if spec.Condition != "" {
		m.condition, err = compileCondition(spec.Condition)
		fail("condition", err)
	}
	m.patch, err = compilePatch(field, spec)
	errs = append(errs, err)
	return m, errors.Join(errs...)
}

func compileRegex(s string) (*regexp.Regexp, error) {
	if len(s) > maxRegex {
		return nil, fmt.Errorf("is longer than %d bytes", maxRegex)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("is no RE2 expression: %w", err)
	}
	return re, nil
}

// renamed makes errors about a selection errors about the modifier's fields.
func renamed(field string, err error) error {
	if err == nil {
		return nil
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var errs []error
	for _, one := range list {
		if _, ok := one.(interface{ Unwrap() []error }); ok {
			errs = append(errs, renamed(field, one))
			continue
		}
		errs = append(errs, errors.New(field+"."+selectionFields.Replace(one.Error())))
	}
	return errors.Join(errs...)
}

// wants says whether the modifier selects the item, as far as that can be told without decoding it.
func (m *modifier) wants(s Subject, raw []byte) bool {
	if !m.selects(s) {
		return false
	}
	if !m.labelled {
		return true
	}
	labels := s.Labels
	if labels == nil {
		head, err := rawjson.ReadHead(raw)
		if err != nil {
			return true
		}
		labels = head.Labels
	}
	return m.items.Item(s.Ref, labels) == selection.In
}

// selects decides by all but labels and condition.
func (m *modifier) selects(s Subject) bool {
	if m.name != nil && !m.name.MatchString(s.Ref.Name) {
		return false
	}
	if m.namespaced {
		namespace := s.Ref.Namespace
		if s.Ref.Group == "" && s.Ref.Resource == "namespaces" {
			namespace = s.Ref.Name
		}
		if namespace == "" || !m.items.Namespace(namespace) {
			return false
		}
	}
	return m.resources == nil || m.selectsResource(s)
}

func (m *modifier) selectsResource(s Subject) bool {
	key := resourceVersion{resourceOf(s.Ref), s.Ref.Version, s.Ref.Namespace != ""}
	m.mu.RLock()
	yes, known := m.seen[key]
	m.mu.RUnlock()
	if known {
		return yes
	}
	r := kube.Resource{Group: key.group, Version: key.version, Resource: key.name, Kind: s.Kind, Singular: strings.ToLower(s.Kind), Namespaced: key.namespaced}
	yes = m.resources.Resource(r) == selection.TakeMatching
	if r.Group = heir(key.resource); !yes && r.Group != "" {
		yes = m.resources.Resource(r) == selection.TakeMatching
	}
	m.mu.Lock()
	m.seen[key] = yes
	m.mu.Unlock()
	return yes
}

// heir gives the group that took over a resource of the group extensions, so that "deployments.apps" selects its objects too.
func heir(r resource) string {
	if r.group != "extensions" {
		return ""
	}
	switch r.name {
	case "deployments", "daemonsets", "replicasets":
		return "apps"
	case "ingresses", "networkpolicies":
		return "networking.k8s.io"
	}
	return ""
}

// apply changes the object if the modifier selects it.
func (m *modifier) apply(ctx context.Context, e *edits) (map[string]any, bool, error) {
	if !m.selects(e.subject) {
		return e.obj, false, nil
	}
	if m.labelled && m.items.Item(e.subject.Ref, e.labels()) != selection.In {
		return e.obj, false, nil
	}
	if m.condition != nil {
		yes, err := m.condition.holds(ctx, e.obj)
		if err != nil {
			return nil, false, fmt.Errorf("condition: %w", err)
		}
		if !yes {
			return e.obj, false, nil
		}
	}
	m.used.Store(true)
	before, err := encodeObject(e.obj)
	if err != nil {
		return nil, false, fmt.Errorf("encode: %w", err)
	}
	was := identityOf(e.obj)
	out, err := m.patch(ctx, e.obj)
	if err != nil {
		return nil, false, err
	}
	if err := was.same(identityOf(out)); err != nil {
		return nil, false, err
	}
	after, err := encodeObject(out)
	if err != nil {
		return nil, false, fmt.Errorf("encode: %w", err)
	}
	return out, string(before) != string(after), nil
}

// labels are those of the item as it was archived, where they are known, else those of the object.
func (e *edits) labels() map[string]string {
	if e.subject.Labels != nil {
		return e.subject.Labels
	}
	out := map[string]string{}
	for k, v := range object(object(e.obj, "metadata"), "labels") {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out
}

// identity is what an object is known by.
type identity struct {
	apiVersion, kind, name, namespace any
}

func identityOf(obj map[string]any) identity {
	meta := object(obj, "metadata")
	return identity{apiVersion: obj["apiVersion"], kind: obj["kind"], name: meta["name"], namespace: meta["namespace"]}
}

// same refuses a change of what an object is known by: others refer to it, and the plan was made for it.
func (i identity) same(now identity) error {
	for _, f := range []struct {
		field   string
		was, is any
		way     string
	}{
		{"apiVersion", i.apiVersion, now.apiVersion, "the target's version is taken by itself"},
		{"kind", i.kind, now.kind, "restore the object and make the other kind yourself"},
		{"metadata.name", i.name, now.name, "only namespaces can be renamed"},
		{"metadata.namespace", i.namespace, now.namespace, "use namespaceMapping"},
	} {
		if !equalJSON(f.was, f.is) {
			return fmt.Errorf("changes %s from %s to %s, which a modifier may not: %s", f.field, show(f.was), show(f.is), f.way)
		}
	}
	return nil
}
