package backup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins/selection"
)

// target is one resource in one version that is read.
type target struct {
	res  kube.Resource
	take selection.Take
	also bool // a version that is archived beside the main one

	revision uint64 // when it was probed
	expected int64  // objects, by the server's own count; 0 where it gives none
	alone    bool   // not of the pinned revision
	again    bool   // read alone for the second time
	json     bool   // the server says more in JSON than is known of its protobuf
	empty    bool   // proven to have no objects at the pinned revision
	err      error  // of the reading of its revision

	section  section // open; nil before the first object and after the end
	opened   section // the last one that was opened
	unsorted bool
	taken    map[string]bool // names in the section, of a cluster-scoped resource whose objects may be found in two ways
	looked   map[string]bool // names that were looked for because something needs them
	items    int
	failed   bool
	remarks  *remarks // on what was read of it
}

// name is what remarks call the target.
func (t *target) name() string {
	if t.also {
		return t.res.Resource + "." + t.res.Version + "." + t.res.Group
	}
	return t.res.GroupResource()
}

// servedTwice has the resources whose objects API servers show under two groups, with the group under which they are archived:
// the one that outlives the other, except for events, which are written and read as core/v1 nearly everywhere.
var servedTwice = map[string]string{
	"events.events.k8s.io":           "events",
	"ingresses.extensions":           "ingresses.networking.k8s.io",
	"networkpolicies.extensions":     "networkpolicies.networking.k8s.io",
	"deployments.extensions":         "deployments.apps",
	"daemonsets.extensions":          "daemonsets.apps",
	"replicasets.extensions":         "replicasets.apps",
	"podsecuritypolicies.extensions": "podsecuritypolicies.policy",
}

// virtualGroups are computed by their servers; that they are away is no loss to a backup.
var virtualGroups = map[string]bool{"metrics.k8s.io": true, "custom.metrics.k8s.io": true, "external.metrics.k8s.io": true}

// persisted says whether the objects of a resource are stored and can be read and made again. What an API server computes on
// request (componentstatuses, access reviews, metrics) can be neither listed nor created, or only one of them.
func persisted(r kube.Resource) bool { return r.Can("list", "get", "create") }

// chooseTargets picks what is read: of each resource one version, and the versions that were asked for beside it.
func (r *reading) chooseTargets() {
	takes := r.takes()
	for _, res := range r.discovery.Resources {
		if !res.Preferred {
			continue
		}
		gr := res.GroupResource()
		take := takes[gr]
		if take == selection.TakeNone {
			continue
		}
		if !persisted(res) {
			if res.Can("list") && !virtualGroups[res.Group] {
				r.remarks.note("%s are not archived: they are computed by the server and cannot be created", gr)
			}
			continue
		}
		if twin, ok := r.twin(gr); ok {
			if takes[twin.GroupResource()] == selection.TakeNone {
				r.remarks.note("%s are not archived: they are the same objects as %s, which the selection excludes", gr, twin.GroupResource())
			} else {
				r.remarks.note("%s are archived as %s, which are the same objects", gr, twin.GroupResource())
			}
			continue
		}
		main := r.mainVersion(res)
		r.addTarget(target{res: main, take: take})
		r.alsoTargets(main, take)
	}
	slices.SortFunc(r.targets, func(a, b *target) int {
		return cmp.Or(cmp.Compare(a.res.Resource, b.res.Resource), cmp.Compare(a.res.Group, b.res.Group), cmp.Compare(a.res.Version, b.res.Version))
	})
}

func (r *reading) addTarget(t target) {
	t.unsorted = !t.res.Namespaced && r.matcher.AlsoRelated()
	t.remarks = r.remarks.part()
	r.targets = append(r.targets, &t)
}

// takes says how the objects of each resource are chosen, by its name. Those that are served twice are asked for by either name.
func (r *reading) takes() map[string]selection.Take {
	out := map[string]selection.Take{}
	for _, res := range r.discovery.Resources {
		if !res.Preferred {
			continue
		}
		take := r.matcher.Resource(res)
		if twin, ok := r.twin(res.GroupResource()); ok && persisted(res) && !r.matcher.Excluded(twin) {
			out[twin.GroupResource()] = max(out[twin.GroupResource()], take)
		}
		out[res.GroupResource()] = max(out[res.GroupResource()], take)
	}
	return out
}

// twin gives the resource under which the objects of one that is served twice are archived, where the server has it.
func (r *reading) twin(groupResource string) (kube.Resource, bool) {
	name, group, _ := strings.Cut(servedTwice[groupResource], ".")
	if name == "" {
		return kube.Resource{}, false
	}
	twin, ok := r.discovery.Preferred(group, name)
	return twin, ok && persisted(twin)
}

// mainVersion is the storage version of a custom resource, for any other would be a conversion that may lose fields or fail, and
// the server's preferred version of a built-in one.
func (r *reading) mainVersion(preferred kube.Resource) kube.Resource {
	storage := r.storageVersions[preferred.GroupResource()]
	if r.definitionsErr != nil && mayBeCustom(preferred.Group) && len(r.discovery.Versions(preferred.Group, preferred.Resource)) > 1 {
		r.remarks.add(SeverityWarning, archive.Remark{
			Resource: preferred.GroupResource(), Reason: ReasonVersionUnknown,
			Message: fmt.Sprintf("archived as %s, which may not be the version that is stored: grant \"list\" on customresourcedefinitions.apiextensions.k8s.io to the account that Kedge uses", preferred.Version),
		})
	}
	if storage == "" || storage == preferred.Version {
		return preferred
	}
	if res, ok := r.discovery.Find(preferred.Group, storage, preferred.Resource); ok {
		return res
	}
	r.remarks.add(SeverityWarning, archive.Remark{
		Resource: preferred.GroupResource(), Reason: ReasonNotServed,
		Message: fmt.Sprintf("the server does not offer the storage version %s: the objects are archived as %s, into which they are converted", storage, preferred.Version),
	})
	return preferred
}

// mayBeCustom tells the groups of custom resources by name from those of Kubernetes itself.
func mayBeCustom(group string) bool {
	return strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io")
}

func (r *reading) alsoTargets(main kube.Resource, take selection.Take) {
	for _, v := range r.discovery.Versions(main.Group, main.Resource) {
		if v.Version == main.Version || !persisted(v) {
			continue
		}
		for _, pattern := range r.also {
			if v.Matches(pattern) == kube.MatchVersion {
				r.addTarget(target{res: v, take: take, also: true})
				break
			}
		}
	}
}

// checkAlsoVersions refuses patterns that name no version.
func checkAlsoVersions(list []string) error {
	for i, pattern := range list {
		if parts := strings.Split(pattern, "."); len(parts) < 2 || slices.Contains(parts[:2], "") {
			return &selection.FieldError{
				Field: fmt.Sprintf("spec.alsoVersions[%d]", i),
				Err:   fmt.Errorf("%q names no version: write \"resource.version.group\", such as \"ingresses.v1beta1.extensions\"", pattern),
			}
		}
	}
	return nil
}

// unmatched remarks on words of the selection that stand for nothing here.
func (r *reading) unmatched() {
	away := r.away()
	for _, p := range r.matcher.Unmatched(r.discovery.Resources) {
		if slices.ContainsFunc(away, func(gv string) bool { group, _ := splitGroupVersion(gv); return p.MayBeIn(group) }) {
			continue // the error about the group names it
		}
		r.remarks.add(SeverityWarning, archive.Remark{
			Resource: p.Pattern, Reason: ReasonNoMatch,
			Message: fmt.Sprintf("%s: the cluster has no resource %q", p.Field, p.Pattern),
		})
	}
	for i, pattern := range r.also {
		found := slices.ContainsFunc(r.discovery.Resources, func(res kube.Resource) bool { return res.Matches(pattern) == kube.MatchVersion })
		if !found {
			r.remarks.add(SeverityWarning, archive.Remark{
				Resource: pattern, Reason: ReasonNoMatch,
				Message: fmt.Sprintf("spec.alsoVersions[%d]: the cluster serves no %q", i, pattern),
			})
		}
	}
}

// apis records what the cluster serves.
func (r *reading) apis() []archive.API {
	archived := map[string]string{}
	for _, t := range r.targets {
		if !t.also && t.items > 0 {
			archived[t.res.GroupResource()] = t.res.Version
		}
	}
	var out []archive.API
	for _, res := range r.discovery.Resources {
		if !res.Can("list") {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Group == res.Group && out[n-1].Resource == res.Resource {
			out[n-1].Versions = append(out[n-1].Versions, res.Version)
			continue
		}
		out = append(out, archive.API{
			Group: res.Group, Resource: res.Resource, Kind: res.Kind, Namespaced: res.Namespaced,
			Versions: []string{res.Version}, Preferred: res.Version, Archived: archived[res.GroupResource()],
		})
	}
	return out
}
