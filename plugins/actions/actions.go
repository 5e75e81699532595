// Package actions holds what a restore changes on built-in kinds, one file per kind: what a cluster wrote into an object
// and another must write anew, and what it makes by itself. Every action is a pure function of the item and of Options.
package actions

import (
	"context"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Options are what actions need to know of the restore beside the item.
type Options struct {
	// PreserveNodePorts keeps all node ports of Services, not only those that a user chose.
	PreserveNodePorts bool
	// PreserveClusterIPs keeps the cluster IPs of Services.
	PreserveClusterIPs bool
	// IncludeControlled restores what controllers would make again: EndpointSlices, Endpoints.
	IncludeControlled bool
	// Policy is the one for existing objects; empty is Skip. Where it changes existing objects, those that the API server
	// keeps up to date by itself (default roles and flow schemas) are left out.
	Policy v1alpha1.ExistingResourcePolicy
	// Restored says whether an object is part of the restore or exists in the target. It is asked for volumes of claims,
	// for snapshots and claims that a claim was made from. The version of the reference is empty. Nil says no.
	Restored func(ref plugins.Ref) bool
	// VolumeName is what the target calls a PersistentVolume of the backup. Nil leaves names as they are.
	VolumeName func(name string) string
	// MadeNew says whether a PersistentVolume of the backup gets new storage of its own. Nil says no.
	MadeNew func(name string) bool
	// TakenBy names the claim that has a volume of the target, where that is another one than what the claim of this namespace and name becomes.
	// Nil says that all are free.
	TakenBy func(volume, namespace, claim string) string
	// OtherCluster says that the target is not the cluster that the items come from. What a volume or a snapshot stands for is then the
	// source's too, which may still be at work with it.
	OtherCluster bool
	// ServiceSelects says whether a Service of this namespace and name has a selector, so that its Endpoints are made
	// again. Nil says no.
	ServiceSelects func(namespace, name string) bool
	// EBSDriver is the CSI driver that EBS volumes and classes get. Empty leaves CSI ones as they are and turns in-tree
	// ones into DefaultEBSDriver's; AutoModeEBSDriver is what EKS Auto Mode wants.
	EBSDriver string
	// KeepInTree leaves in-tree EBS volumes and classes as they are, unless EBSDriver is set: the target treats them as the
	// source did.
	KeepInTree bool
}

// keepsInTree says whether in-tree EBS volumes and classes stay.
func (o Options) keepsInTree() bool { return o.KeepInTree && o.EBSDriver == "" }

func (o Options) restored(group, resource, namespace, name string) bool {
	return name != "" && o.Restored != nil &&
		o.Restored(plugins.Ref{Group: group, Resource: resource, Namespace: namespace, Name: name})
}

func (o Options) takenBy(volume, namespace, claim string) string {
	if volume == "" || o.TakenBy == nil {
		return ""
	}
	return o.TakenBy(volume, namespace, claim)
}

// overwrites says whether existing objects of the target are changed.
func (o Options) overwrites() bool {
	return o.Policy != "" && o.Policy != v1alpha1.PolicySkip
}

// All are the actions of a restore, in the order in which they run.
func All(opts Options) []plugins.Action {
	return []plugins.Action{
		service(opts), endpoints(opts), endpointSlice(opts),
		pod(), job(),
		claim(opts), volume(opts), storageClass(opts), snapshot(opts), snapshotContent(opts),
		&serviceAccount{policy: opts.Policy}, secret(), &awsAuth{}, configMap(),
		namespace(), ingress(), apiService(), definition(), clusterRole(),
		serverManaged(opts), ipAddress(), initHook(),
	}
}

// rule is an action that is one function.
type rule struct {
	name    string
	matches []plugins.Match
	apply   func(*plugins.Item) plugins.Decision
}

func (r *rule) Name() string { return r.name }

func (r *rule) AppliesTo() []plugins.Match { return r.matches }

func (r *rule) Apply(_ context.Context, item *plugins.Item) (plugins.Decision, error) {
	return r.apply(item), nil
}

// on matches one resource; contains are byte strings of which one is there where the rule has something to do.
func on(resource string, contains ...string) []plugins.Match {
	return []plugins.Match{{Resources: []string{resource}, Contains: contains}}
}

// goOn lets an item go on its way.
var goOn = plugins.Decision{}

func skip(reason, format string, args ...any) plugins.Decision {
	return plugins.Decision{Skip: true, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Reasons of skipped items and of remarks.
const (
	ReasonRemade        = "Remade"        // the target makes it by itself
	ReasonServerManaged = "ServerManaged" // the target's API server keeps it up to date
	ReasonFinished      = "Finished"      // it has run to its end
	ReasonNodeBound     = "NodeBound"     // it belongs to one node
	ReasonBeingDeleted  = "BeingDeleted"  // its volume was on its way out
	ReasonDropped       = "Dropped"       // a field that the user chose was dropped
	ReasonChanged       = "Changed"       // something means or is something else now
	ReasonMerged        = "Merged"        // it was merged into what was there
	ReasonEmptyVolume   = "EmptyVolume"   // a claim gets a new, empty volume
	ReasonHookLeftOut   = "HookLeftOut"   // an init container that an annotation asks for is not added
)

func (o Options) volumeName(name string) string {
	if o.VolumeName == nil {
		return name
	}
	return o.VolumeName(name)
}
