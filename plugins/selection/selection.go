// Package selection compiles what a user selects (v1alpha1.Selection) into a matcher over resources and objects, and knows which
// cluster-scoped objects the selected ones need. Both engines select with it, so that a backup and a restore of the same
// words mean the same objects.
package selection

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// Take says how the objects of a resource are chosen.
type Take int

// The ways of choosing.
const (
	// TakeNone: no object of the resource takes part.
	TakeNone Take = iota
	// TakeRelated: only objects that selected ones need (Needs, Wanted) take part. Only cluster-scoped resources are chosen this way.
	TakeRelated
	// TakeMatching: the objects that Item and Object accept take part; of a cluster-scoped resource also those that selected ones need, as
	// long as AlsoRelated says so.
	TakeMatching
)

// Verdict says whether an object takes part.
type Verdict int

// The verdicts.
const (
	Out Verdict = iota
	// OutByLabel: the object carries v1alpha1.ExcludeLabel with the value "true". It is left out even where others need it.
	OutByLabel
	In
)

// Matcher is a compiled selection. It may be used from many goroutines.
type Matcher struct {
	includedNamespaces, excludedNamespaces patterns

	scoped                                 bool // the four fields that name a scope are used, not includedResources
	included, excluded                     patterns
	includedCluster, excludedCluster       patterns
	includedNamespaced, excludedNamespaced patterns
	clusterResources                       *bool

	selectors  []labels.Selector // an object matches any of them; none where empty
	fields     []fieldTerm
	expression *expression
}

// patterns is one list field.
type patterns struct {
	field string // "includedNamespaces"
	list  []string
}

// all says whether the list stands for everything.
func (p patterns) all() bool {
	return len(p.list) == 0 || (len(p.list) == 1 && p.list[0] == "*")
}

func (p patterns) matches(s string) bool {
	for _, pattern := range p.list {
		if kube.MatchesGlob(pattern, s) {
			return true
		}
	}
	return false
}

func (p patterns) matchesResource(r kube.Resource) bool {
	for _, pattern := range p.list {
		if resourceMatches(pattern, r) {
			return true
		}
	}
	return false
}

// resourceMatches compares as kubectl would, and knows the usual short names also where the source of r does not.
func resourceMatches(pattern string, r kube.Resource) bool {
	if r.Matches(pattern) != kube.MatchNone {
		return true
	}
	name, rest, qualified := strings.Cut(pattern, ".")
	long, known := shortNames[strings.ToLower(name)]
	if !known || len(r.ShortNames) > 0 || long != r.GroupResource() {
		return false
	}
	return !qualified || r.Matches(r.Resource+"."+rest) != kube.MatchNone
}

// Namespace says whether objects of the namespace may take part.
func (m *Matcher) Namespace(name string) bool {
	return (m.includedNamespaces.all() || m.includedNamespaces.matches(name)) && !m.excludedNamespaces.matches(name)
}

// AllNamespaces says that no namespace is left out.
func (m *Matcher) AllNamespaces() bool {
	return m.includedNamespaces.all() && len(m.excludedNamespaces.list) == 0
}

// LiteralNamespaces gives the namespaces that take part where each is written out, without globs; ok says that they are.
func (m *Matcher) LiteralNamespaces() (names []string, ok bool) {
	if m.includedNamespaces.all() {
		return nil, false
	}
	seen := map[string]bool{}
	for _, p := range m.includedNamespaces.list {
		if strings.ContainsAny(p, `*?[\`) {
			return nil, false
		}
		if !seen[p] && !m.excludedNamespaces.matches(p) {
			seen[p] = true
			names = append(names, p)
		}
	}
	return names, true
}

// narrowed says that objects are selected by more than namespace and resource.
func (m *Matcher) narrowed() bool {
	return len(m.selectors) > 0 || len(m.fields) > 0 || m.expression != nil
}

// AlsoRelated says that selected objects bring the cluster-scoped objects that they need. It is false where all of those are selected anyway.
func (m *Matcher) AlsoRelated() bool {
	return m.narrowed() || !m.everyClusterResource()
}

// everyClusterResource says that all cluster-scoped resources are selected as a whole.
func (m *Matcher) everyClusterResource() bool {
	if m.scoped {
		return len(m.excludedCluster.list) == 0 &&
			((len(m.includedCluster.list) == 0 && m.wholeCluster()) || (len(m.includedCluster.list) > 0 && m.includedCluster.all()))
	}
	if m.clusterResources != nil {
		return *m.clusterResources && m.included.all()
	}
	return m.included.all() && m.AllNamespaces()
}

// wholeCluster says that everything namespaced is selected, which selects everything cluster-scoped too where nothing is said of it.
func (m *Matcher) wholeCluster() bool {
	return m.AllNamespaces() && m.includedNamespaced.all() && len(m.excludedNamespaced.list) == 0
}

// Resource says how the objects of a resource are chosen. Version is looked at only where a pattern names one.
func (m *Matcher) Resource(r kube.Resource) Take {
	take := m.resource(r)
	if isNamespaces(r) {
		return m.namespaces(r, take)
	}
	return take
}

func (m *Matcher) resource(r kube.Resource) Take {
	switch {
	case m.Excluded(r):
		return TakeNone
	case m.scoped && r.Namespaced:
		return takeIf(m.includedNamespaced.all() || m.includedNamespaced.matchesResource(r), TakeNone)
	case m.scoped && len(m.includedCluster.list) == 0:
		return takeIf(m.wholeCluster(), TakeRelated)
	case m.scoped:
		return takeIf(m.includedCluster.matchesResource(r), TakeRelated)
	}
	named := m.included.all() || m.included.matchesResource(r)
	switch {
	case r.Namespaced:
		return takeIf(named, TakeNone)
	case m.clusterResources == nil:
		return takeIf(named && m.AllNamespaces(), TakeRelated)
	case *m.clusterResources:
		return takeIf(named, TakeRelated)
	}
	return TakeNone
}

// Excluded says that a list of exclusions names the resource, or everything of its scope.
func (m *Matcher) Excluded(r kube.Resource) bool {
	switch {
	case m.scoped && r.Namespaced:
		return m.excludedNamespaced.matchesResource(r)
	case m.scoped:
		return m.excludedCluster.matchesResource(r)
	}
	return m.excluded.matchesResource(r)
}

func takeIf(matching bool, otherwise Take) Take {
	if matching {
		return TakeMatching
	}
	return otherwise
}

func (p patterns) hasStar() bool {
	return slices.Contains(p.list, "*")
}

func isNamespaces(r kube.Resource) bool { return r.Group == "" && r.Resource == "namespaces" }

// namespaces gives Namespace objects their own rule: the one of a selected object comes with it unless it is excluded by name, whatever
// else is said of cluster-scoped resources, for the labels of a namespace belong to what lives in it; and where resources are
// not restricted each selected namespace comes, even an empty one.
func (m *Matcher) namespaces(r kube.Resource, take Take) Take {
	if take == TakeMatching || m.excluded.matchesResource(r) || m.excludedCluster.names(r) {
		return take
	}
	refused := m.clusterResources != nil && !*m.clusterResources || m.excludedCluster.hasStar()
	restricted := !m.included.all() || !m.includedNamespaced.all() || len(m.includedCluster.list) > 0
	return takeIf(!refused && !restricted, TakeRelated)
}

// names says that a pattern other than "*" stands for the resource.
func (p patterns) names(r kube.Resource) bool {
	return !p.hasStar() && p.matchesResource(r)
}

// Group says whether a resource may take part of a group whose resources could not be learned, by what the patterns say of groups; known are the
// resources of the others. A bare name that none of those has may be of the group.
func (m *Matcher) Group(group string, known []kube.Resource) bool {
	takes := func(in, out patterns) bool {
		return !out.wholeGroup(group) && (in.all() || in.mayReach(group, known))
	}
	if !m.scoped {
		return takes(m.included, m.excluded)
	}
	related := len(m.includedCluster.list) == 0 && !m.wholeCluster()
	return takes(m.includedNamespaced, m.excludedNamespaced) || !related && takes(m.includedCluster, m.excludedCluster)
}

// wholeGroup says that the list stands for everything in the group.
func (p patterns) wholeGroup(group string) bool {
	return slices.ContainsFunc(p.list, func(pattern string) bool {
		name, rest, qualified := strings.Cut(pattern, ".")
		return name == "*" && (!qualified || kube.MatchesGlob(rest, group))
	})
}

// mayReach says that a pattern may stand for something in the group, as far as what is known does not say otherwise.
func (p patterns) mayReach(group string, known []kube.Resource) bool {
	return slices.ContainsFunc(p.list, func(pattern string) bool {
		return inGroup(pattern, group) && (strings.Contains(pattern, ".") || !matchesAny(pattern, known))
	})
}

func inGroup(pattern, group string) bool {
	_, rest, qualified := strings.Cut(pattern, ".")
	_, afterVersion, _ := strings.Cut(rest, ".")
	return !qualified || kube.MatchesGlob(rest, group) || kube.MatchesGlob(afterVersion, group)
}

func matchesAny(pattern string, resources []kube.Resource) bool {
	return slices.ContainsFunc(resources, func(r kube.Resource) bool { return resourceMatches(pattern, r) })
}

// Item says whether an object takes part by its place, name and labels. Where it is In, and NeedsObject says so, Object has the last word.
func (m *Matcher) Item(ref plugins.Ref, objectLabels map[string]string) Verdict {
	if objectLabels[v1alpha1.ExcludeLabel] == "true" {
		return OutByLabel
	}
	namespace := ref.Namespace
	if ref.Group == "" && ref.Resource == "namespaces" {
		namespace = ref.Name
	}
	if namespace != "" && !m.Namespace(namespace) {
		return Out
	}
	for _, f := range m.fields {
		if !f.matches(ref) {
			return Out
		}
	}
	if len(m.selectors) == 0 {
		return In
	}
	set := labels.Set(objectLabels)
	for _, s := range m.selectors {
		if s.Matches(set) {
			return In
		}
	}
	return Out
}

// NeedsObject says that Object is to be asked too.
func (m *Matcher) NeedsObject() bool { return m.expression != nil }

// Object evaluates the expression over one object, as JSON with apiVersion and kind. An expression that fails over this
// object (a field that it lacks) is an error that names the field of the selection.
func (m *Matcher) Object(ctx context.Context, raw []byte) (bool, error) {
	if m.expression == nil {
		return true, nil
	}
	return m.expression.matches(ctx, raw)
}

// LabelSelector gives what a server may be asked to select by, so that it sends less; "" where it is not one selector.
func (m *Matcher) LabelSelector() string {
	if len(m.selectors) != 1 {
		return ""
	}
	return m.selectors[0].String()
}

// Unmatched gives the patterns that name resources and match none of those given, with their fields, for a remark: a misspelt name
// would else select nothing without a word.
func (m *Matcher) Unmatched(resources []kube.Resource) []FieldPattern {
	var out []FieldPattern
	for _, p := range []patterns{m.included, m.excluded, m.includedCluster, m.excludedCluster, m.includedNamespaced, m.excludedNamespaced} {
		for i, pattern := range p.list {
			if pattern != "*" && !matchesAny(pattern, resources) {
				out = append(out, FieldPattern{Field: fieldAt(p.field, i), Pattern: pattern})
			}
		}
	}
	return out
}

// FieldPattern is one pattern and where it stands.
type FieldPattern struct {
	Field, Pattern string // "spec.includedResources[1]", "deploymnets"
}

// MayBeIn says whether the pattern, which matches nothing that is known, may name something of a group that is not.
func (p FieldPattern) MayBeIn(group string) bool { return inGroup(p.Pattern, group) }

// shortNames are those of the resources that every cluster has, for archives, which do not record them.
var shortNames = map[string]string{
	"cm": "configmaps", "ep": "endpoints", "ev": "events", "limits": "limitranges", "ns": "namespaces", "no": "nodes",
	"pvc": "persistentvolumeclaims", "pv": "persistentvolumes", "po": "pods", "rc": "replicationcontrollers", "quota": "resourcequotas",
	"sa": "serviceaccounts", "svc": "services", "ds": "daemonsets.apps", "deploy": "deployments.apps", "rs": "replicasets.apps",
	"sts": "statefulsets.apps", "hpa": "horizontalpodautoscalers.autoscaling", "cj": "cronjobs.batch", "csr": "certificatesigningrequests.certificates.k8s.io",
	"ing": "ingresses.networking.k8s.io", "netpol": "networkpolicies.networking.k8s.io", "pdb": "poddisruptionbudgets.policy",
	"psp": "podsecuritypolicies.policy", "pc": "priorityclasses.scheduling.k8s.io", "sc": "storageclasses.storage.k8s.io",
	"crd": "customresourcedefinitions.apiextensions.k8s.io", "crds": "customresourcedefinitions.apiextensions.k8s.io",
}
