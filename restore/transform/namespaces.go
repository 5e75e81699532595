package transform

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"kedge.dev/kedge/plugins"
)

// serviceAccountUser and serviceAccountGroup begin the names under which service accounts log in.
const (
	serviceAccountUser  = "system:serviceaccount:"
	serviceAccountGroup = "system:serviceaccounts:"
)

// metadataName is the label that the server puts on each namespace.
const metadataName = "kubernetes.io/metadata.name"

var namespaceRules = mappingRules{check: func(s string) string {
	if bad := validation.IsDNS1123Label(s); len(bad) > 0 {
		return "is no name of a namespace: " + bad[0]
	}
	return ""
}}

// namespaces renames namespaces and what refers to them.
type namespaces struct{ *mapping }

// to gives the new name, and the old one where it is not mapped. It counts as no use of the rule.
func (n *namespaces) to(name string) string {
	if n == nil || name == "" {
		return name
	}
	if t := n.exact[name]; t != nil {
		return t.to
	}
	return name
}

// ref gives the place that an item goes to.
func (n *namespaces) ref(ref plugins.Ref) plugins.Ref {
	ref.Namespace = n.to(ref.Namespace)
	if ref.Group == "" && ref.Resource == "namespaces" {
		ref.Name = n.to(ref.Name)
	}
	return ref
}

func (n *namespaces) apply(e *edits) {
	n.place(e)
	for _, r := range references[e.resource] {
		e.edit(e.obj, r.place, r.form(n))
	}
	for _, r := range annotationReferences {
		e.edit(e.obj, r.place, r.form(n))
	}
	e.podSpecs(func(e *edits, spec map[string]any) {
		for _, r := range podReferences {
			e.edit(spec, r.place, r.form(n))
		}
	})
	n.selectors(e, e.obj)
}

// place puts the object itself where it goes.
func (n *namespaces) place(e *edits) {
	meta := object(e.obj, "metadata")
	if meta == nil {
		return
	}
	if to, ok := n.lookup(e.subject.Ref.Namespace); ok {
		meta["namespace"] = to
		e.changed = true
		n.helmRelease(e, meta, to)
	}
	if e.resource != (resource{"", "namespaces"}) {
		return
	}
	if to, ok := n.lookup(e.subject.Ref.Name); ok {
		meta["name"] = to
		if labels := object(meta, "labels"); labels[metadataName] != nil {
			labels[metadataName] = to
		}
		e.changed = true
	}
}

// helmRelease remarks on the Secret of a release, whose packed record names its namespace.
func (n *namespaces) helmRelease(e *edits, meta map[string]any, to string) {
	if e.resource == (resource{"", "secrets"}) && text(e.obj, "type") == "helm.sh/release.v1" && text(object(meta, "labels"), "status") == "deployed" {
		e.remark(reasonHelm, "the release's packed record names namespace "+e.subject.Ref.Namespace+", not "+to+
			": before the next helm upgrade, install the release anew in "+to+" with --take-ownership")
	}
}

func (n *namespaces) name() form { return n.value() }
func (n *namespaces) list() form { return n.set() }

// slashed maps "namespace/name".
func (n *namespaces) slashed() form {
	return func(e *edits, v any) any {
		s, _ := v.(string)
		if ns, rest, ok := strings.Cut(s, "/"); ok {
			if to, ok := n.lookup(ns); ok {
				e.changed = true
				return to + "/" + rest
			}
		}
		return v
	}
}

// host maps "service.namespace.svc" and what follows it, in a field that holds a host and nothing else.
func (n *namespaces) host() form {
	return func(e *edits, v any) any {
		s, _ := v.(string)
		parts := strings.SplitN(s, ".", 4)
		if len(parts) < 3 || parts[2] != "svc" {
			return v
		}
		to, ok := n.lookup(parts[1])
		if !ok {
			return v
		}
		parts[1] = to
		e.changed = true
		return strings.Join(parts, ".")
	}
}

// user maps the names of users and groups that stand for service accounts.
func (n *namespaces) user(s string) (string, bool) {
	if rest, ok := strings.CutPrefix(s, serviceAccountUser); ok {
		ns, account, _ := strings.Cut(rest, ":")
		to, ok := n.lookup(ns)
		return serviceAccountUser + to + ":" + account, ok
	}
	if ns, ok := strings.CutPrefix(s, serviceAccountGroup); ok {
		to, ok := n.lookup(ns)
		return serviceAccountGroup + to, ok
	}
	return "", false
}

// subject maps one subject of a role binding: ServiceAccount by its namespace, User and Group by their names.
func (n *namespaces) subject() form {
	return inside(func(e *edits, subject map[string]any) {
		if text(subject, "kind") == "ServiceAccount" {
			e.edit(subject, place{"namespace"}, n.value())
			return
		}
		n.account(e, subject)
	})
}

// account maps the name in an object that stands for a user or a group.
func (n *namespaces) account(e *edits, m map[string]any) {
	if to, ok := n.user(text(m, "name")); ok {
		m["name"] = to
		e.changed = true
	}
}

// flowSubject maps one subject of a FlowSchema.
func (n *namespaces) flowSubject() form {
	return inside(func(e *edits, subject map[string]any) {
		e.edit(subject, at("serviceAccount namespace"), n.value())
		for _, key := range []string{"user", "group"} {
			if m := object(subject, key); m != nil {
				n.account(e, m)
			}
		}
	})
}

// policyRule maps resourceNames of a rule that is about namespaces. A rule that is about more too is remarked on: its names stand
// for objects of every resource that it lists.
func (n *namespaces) policyRule() form {
	return inside(func(e *edits, rule map[string]any) {
		resources, ok := rule["resources"].([]any)
		if !ok {
			return
		}
		isNamespace := func(v any) bool {
			s, _ := v.(string)
			return s == "namespaces" || strings.HasPrefix(s, "namespaces/")
		}
		if !slices.ContainsFunc(resources, isNamespace) {
			return
		}
		if !slices.ContainsFunc(resources, func(v any) bool { return !isNamespace(v) }) {
			e.edit(rule, place{"resourceNames"}, n.set())
			return
		}
		list, _ := rule["resourceNames"].([]any)
		for _, v := range list {
			if s, ok := v.(string); ok && n.to(s) != s {
				e.remark(reasonKept, e.trail.String()+".resourceNames holds "+s+", which may mean the namespace or something else: change it with a modifier")
			}
		}
	})
}

// principal maps "cluster.local/ns/<namespace>/sa/<account>".
func (n *namespaces) principal() form {
	return func(e *edits, v any) any {
		s, _ := v.(string)
		before, rest, ok := strings.Cut(s, "/ns/")
		if !ok {
			return v
		}
		ns, after, ok := strings.Cut(rest, "/")
		if !ok {
			return v
		}
		to, ok := n.lookup(ns)
		if !ok {
			return v
		}
		e.changed = true
		return before + "/ns/" + to + "/" + after
	}
}

// secretParameters maps the parameters of a class that say in which namespace a driver finds its Secrets.
func (n *namespaces) secretParameters() form {
	return inside(func(e *edits, params map[string]any) {
		for key := range params {
			if strings.HasPrefix(key, "csi.storage.k8s.io/") && strings.HasSuffix(key, "-namespace") {
				e.edit(params, place{key}, n.value())
			}
		}
	})
}

// selectors maps what label selectors anywhere in the object say of names of namespaces.
func (n *namespaces) selectors(e *edits, v any) {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			n.selectors(e, child)
		}
	case map[string]any:
		for key, child := range v {
			n.selectors(e, child)
			switch key {
			case "matchLabels":
				for _, label := range namespaceNameLabels {
					e.edit(child, place{label}, n.value())
				}
			case "matchExpressions":
				e.edit(child, at("[]"), inside(func(e *edits, req map[string]any) {
					if slices.Contains(namespaceNameLabels, text(req, "key")) {
						e.edit(req, place{"values"}, n.set())
					}
				}))
			}
		}
	}
}
