package kube

import (
	"path"
	"slices"
	"strings"
)

// Find gives one resource in one version.
func (d *Discovery) Find(group, version, resource string) (Resource, bool) {
	for _, r := range d.Resources {
		if r.Group == group && r.Version == version && r.Resource == resource {
			return r, true
		}
	}
	return Resource{}, false
}

// FindKind gives the resource whose objects are of this kind; where two are (none in Kubernetes itself), the one with most verbs.
func (d *Discovery) FindKind(group, version, kind string) (Resource, bool) {
	best := -1
	for i, r := range d.Resources {
		if r.Group == group && r.Version == version && r.Kind == kind && (best < 0 || len(r.Verbs) > len(d.Resources[best].Verbs)) {
			best = i
		}
	}
	if best < 0 {
		return Resource{}, false
	}
	return d.Resources[best], true
}

// Preferred gives a resource in the version that the server prefers.
func (d *Discovery) Preferred(group, resource string) (Resource, bool) {
	for _, r := range d.Resources {
		if r.Group == group && r.Resource == resource {
			return r, true
		}
	}
	return Resource{}, false
}

// Versions gives every served version of a resource, the preferred one first.
func (d *Discovery) Versions(group, resource string) []Resource {
	var out []Resource
	for _, r := range d.Resources {
		if r.Group == group && r.Resource == resource {
			out = append(out, r)
		}
	}
	return out
}

// Lookup gives the resources that a person means, in every group that has them: "deployments", "deploy", "Deployment",
// "deployments.apps", "deployments.v1.apps", "*.apps", "*". Without a version they come in the one that the server prefers.
func (d *Discovery) Lookup(pattern string) []Resource {
	var out []Resource
	for _, r := range d.Resources {
		if m := r.Matches(pattern); m == MatchVersion || (m == MatchAny && r.Preferred) {
			out = append(out, r)
		}
	}
	return out
}

// Match says how a resource matched a pattern.
type Match int

// The ways of matching.
const (
	MatchNone    Match = iota
	MatchAny           // the pattern names no version
	MatchVersion       // the pattern names this version
)

// Matches compares the resource with one pattern of the forms that Lookup takes. Globs ("*", "?", "[…]") work in each part.
func (r Resource) Matches(pattern string) Match {
	name, rest, qualified := strings.Cut(pattern, ".")
	if !r.named(name) {
		return MatchNone
	}
	if !qualified || MatchesGlob(rest, r.Group) {
		return MatchAny
	}
	if version, group, _ := strings.Cut(rest, "."); MatchesGlob(version, r.Version) && MatchesGlob(group, r.Group) && (group != "" || r.Group == "") {
		return MatchVersion
	}
	return MatchNone
}

func (r Resource) named(name string) bool {
	return MatchesGlob(strings.ToLower(name), r.Resource) || strings.EqualFold(name, r.Singular) || strings.EqualFold(name, r.Kind) ||
		slices.Contains(r.ShortNames, strings.ToLower(name))
}

// MatchesGlob matches a whole string with "*", "?" and "[…]"; a malformed pattern matches itself only.
func MatchesGlob(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return pattern == s || (err == nil && ok)
}
