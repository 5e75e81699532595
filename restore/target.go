package restore

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/restore/convert"
)

// targetState says how the target takes the objects of a resource.
type targetState uint8

const (
	// targetSame: the target serves the archived version.
	targetSame targetState = iota
	// targetTable: a built-in kind that the table converts.
	targetTable
	// targetOther: a custom resource of which the target serves another version.
	targetOther
	// targetPending: what serves it is part of this restore.
	targetPending
	// targetNone: nothing in the target takes it.
	targetNone
)

// target is what the cluster that is restored into has for a resource.
type target struct {
	kube.Resource
	state   targetState
	reason  Reason // of targetNone
	message string // for people, where the state is not targetSame
}

// hasStatus says that the status is a subresource, which a create ignores.
func (t *target) hasStatus() bool {
	return slices.Contains(t.Subresources, "status")
}

// resolve finds how the target takes objects of r.
func resolve(d *kube.Discovery, r *resource) target {
	if found, ok := d.Find(r.Group, r.Version, r.Resource); ok {
		if !found.Can("create") {
			return target{Resource: found, state: targetNone, reason: NotCreatable, message: "its API has no create verb"}
		}
		return target{Resource: found, state: targetSame}
	}
	gvk := schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
	for _, next := range convert.Successors(gvk) {
		if found, ok := d.FindKind(next.Group, next.Version, next.Kind); ok && found.Can("create") {
			return target{Resource: found, state: targetTable,
				message: fmt.Sprintf("the target does not serve %s; converted to %s", gvk.GroupVersion(), next.GroupVersion())}
		}
	}
	if versions := d.Versions(r.Group, r.Resource); len(versions) > 0 && !builtIn(r.Group) {
		other := versions[0]
		return target{Resource: other, state: targetOther,
			message: fmt.Sprintf("the target does not serve %s; sent as %s", gvk.GroupVersion(), other.APIVersion())}
	}
	if reason, gone := convert.NoSuccessor(gvk); gone {
		return target{state: targetNone, reason: NoSuccessor, message: reason}
	}
	return target{state: targetNone, reason: NotServed, message: notServed(d, r)}
}

// pending is the target of a resource whose definition or API service is part of the restore.
func pending(r *resource) target {
	return target{state: targetPending, Resource: kube.Resource{
		Group: r.Group, Version: r.Version, Resource: r.Resource, Kind: r.Kind, Namespaced: r.Namespaced,
	}}
}

func notServed(d *kube.Discovery, r *resource) string {
	gv := schema.GroupVersion{Group: r.Group, Version: r.Version}.String()
	if err, failed := d.Failed[gv]; failed {
		return fmt.Sprintf("the target's discovery of %s fails (%v): repair or remove that APIService, then resume", gv, err)
	}
	if builtIn(r.Group) {
		return fmt.Sprintf("the target does not serve %s in %s", r.Kind, gv)
	}
	return fmt.Sprintf("the target does not know %s: install its CustomResourceDefinition, or restore it too", r.groupResource())
}

// builtIn says whether a group belongs to Kubernetes itself: what has no dot, and some of what ends in k8s.io.
func builtIn(group string) bool {
	return !strings.Contains(group, ".") || builtInGroups[group]
}

// builtInGroups are the groups with a dot that the API server itself serves (Kubernetes API reference, API Groups).
var builtInGroups = map[string]bool{
	"admissionregistration.k8s.io": true, "apiextensions.k8s.io": true, "apiregistration.k8s.io": true, "authentication.k8s.io": true,
	"authorization.k8s.io": true, "certificates.k8s.io": true, "coordination.k8s.io": true, "discovery.k8s.io": true,
	"events.k8s.io": true, "flowcontrol.apiserver.k8s.io": true, "internal.apiserver.k8s.io": true, "networking.k8s.io": true,
	"node.k8s.io": true, "rbac.authorization.k8s.io": true, "resource.k8s.io": true, "scheduling.k8s.io": true,
	"storage.k8s.io": true, "storagemigration.k8s.io": true,
}
