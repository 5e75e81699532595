package restore

import (
	"strings"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
)

// leaveOut says whether a row alone tells that its object is not restored, and why. Compare means that it is looked at in
// the target all the same. What owners decide is in controlled; what contents decide is up to the actions.
func leaveOut(row *archive.Row) (reason Reason, compare bool) {
	if r, ok := ownGroup(row); ok {
		return r, false
	}
	for i := range row.Owners {
		if kindOfOwner(&row.Owners[i]) == ownerNode {
			return NodeBound, false
		}
	}
	if rule, ok := rowRules[row.GroupResource()]; ok {
		return rule(row)
	}
	return "", false
}

// ownGroup leaves out what belongs to the cluster that made it: Kedge's records, and the API server's internal ones.
func ownGroup(row *archive.Row) (Reason, bool) {
	switch row.Group {
	case v1alpha1.GroupVersion.Group:
		if row.Resource == "schedules" || row.Resource == "backupstoragelocations" {
			return "", false
		}
		return KedgeOwn, true
	case "internal.apiserver.k8s.io":
		return ServerManaged, true
	}
	return "", false
}

// keepsOwn protects the Kedge that runs in the target, whose namespace Engine.OwnNamespace is: of what an older one had there only its
// locations, schedules, Secrets and ConfigMaps come back, where they are missing. A definition of Kedge's kinds that the target has is newer or
// the same, and stays in any case.
func (b *builder) keepsOwn(it *item, r *resource, namespace string) {
	if r.stage == stageCRDs && strings.HasSuffix(it.name, "."+v1alpha1.GroupVersion.Group) {
		it.flags |= flagKept
	}
	if b.e.OwnNamespace == "" || namespace != b.e.OwnNamespace {
		return
	}
	it.flags |= flagKept
	switch {
	case r.stage == stageNamespaces, r.Group == v1alpha1.GroupVersion.Group:
	case r.Group == "" && (r.Resource == "secrets" || r.Resource == "configmaps"):
	default:
		it.state, it.reason = Skipped, KedgeOwn
	}
}

// rowRules has the resources of which some objects are left out by name or label.
var rowRules = map[string]func(*archive.Row) (Reason, bool){
	"clusterroles.rbac.authorization.k8s.io":                   bootstrapRBAC,
	"clusterrolebindings.rbac.authorization.k8s.io":            bootstrapRBAC,
	"roles.rbac.authorization.k8s.io":                          bootstrapRBAC,
	"rolebindings.rbac.authorization.k8s.io":                   bootstrapRBAC,
	"flowschemas.flowcontrol.apiserver.k8s.io":                 defaultFlowControl,
	"prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": defaultFlowControl,
	"priorityclasses.scheduling.k8s.io": func(r *archive.Row) (Reason, bool) {
		return when(strings.HasPrefix(r.Name, "system-"), ServerManaged), true
	},
	"apiservices.apiregistration.k8s.io": func(r *archive.Row) (Reason, bool) {
		return when(r.Labels["kube-aggregator.kubernetes.io/automanaged"] != "", ServerManaged), false
	},
	"services": func(r *archive.Row) (Reason, bool) { return when(isKubernetesService(r), ServerManaged), false },
	"endpoints": func(r *archive.Row) (Reason, bool) {
		if isKubernetesService(r) {
			return ServerManaged, false
		}
		return when(r.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller", Remade), false
	},
	"endpointslices.discovery.k8s.io": func(r *archive.Row) (Reason, bool) {
		if isKubernetesService(r) {
			return ServerManaged, false
		}
		by := r.Labels["endpointslice.kubernetes.io/managed-by"]
		return when(by == "endpointslice-controller.k8s.io" || by == "endpointslicemirroring-controller.k8s.io", Remade), false
	},
	"servicecidrs.networking.k8s.io": func(r *archive.Row) (Reason, bool) {
		return when(r.Name == "kubernetes", ServerManaged), false
	},
	"configmaps": func(r *archive.Row) (Reason, bool) {
		switch {
		case r.Name == "kube-root-ca.crt":
			return Remade, false
		case r.Namespace == "kube-system" && (r.Name == "extension-apiserver-authentication" || r.Name == "kube-apiserver-legacy-service-account-token-tracking"):
			return ServerManaged, false
		}
		return "", false
	},
}

func when(yes bool, reason Reason) Reason {
	if yes {
		return reason
	}
	return ""
}

func isKubernetesService(r *archive.Row) bool {
	return r.Namespace == "default" && r.Name == "kubernetes"
}

// bootstrapRBAC are the roles and bindings that an API server makes at its start and repairs after changes. The label alone
// is not enough: people copy these objects together with their labels.
func bootstrapRBAC(r *archive.Row) (Reason, bool) {
	if r.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" {
		return "", false
	}
	switch r.Name {
	case "admin", "edit", "view", "cluster-admin":
		return ServerManaged, true
	}
	return when(strings.HasPrefix(r.Name, "system:"), ServerManaged), true
}

// defaultFlowControl are the objects of API priority and fairness that an API server makes (its "suggested" and "mandatory" ones).
func defaultFlowControl(r *archive.Row) (Reason, bool) {
	return when(defaultFlows[r.Name], ServerManaged), true
}

var defaultFlows = map[string]bool{
	"exempt": true, "probes": true, "system-leader-election": true, "endpoint-controller": true, "workload-leader-election": true,
	"system-node-high": true, "system-nodes": true, "kube-controller-manager": true, "kube-scheduler": true,
	"kube-system-service-accounts": true, "service-accounts": true, "global-default": true, "catch-all": true,
	"system": true, "node-high": true, "leader-election": true, "workload-high": true, "workload-low": true,
}

// controlled leaves out what a controller of the target makes again from its owner. An object is left out only where its owner
// is restored, or is itself made again; one whose owner was not selected is restored as it is.
func (g *graph) controlled() {
	const (
		unknown = iota
		busy
		known
	)
	state := make([]uint8, len(g.items))
	var decide func(i int32)
	decide = func(i int32) {
		if state[i] != unknown {
			return
		}
		state[i] = busy
		if g.items[i].state != Pending {
			state[i] = known
			return
		}
		owners := g.owners(i)
		remade := len(owners) > 0
		for _, l := range owners {
			if l.owner < 0 {
				remade = false
				continue
			}
			decide(l.owner)
			owner := &g.items[l.owner]
			if owner.state == Skipped && owner.reason == Remade {
				remade = remade && g.followsOwner(i, l.owner)
			} else {
				remade = false
			}
			if l.controller && (g.planned(l.owner) || owner.reason == Remade) && g.madeBy(i, l.owner) {
				if g.isHistory(i) {
					g.items[i].flags |= flagHistory
				} else {
					g.items[i].state, g.items[i].reason = Skipped, Remade
				}
			}
		}
		if remade {
			g.items[i].state, g.items[i].reason = Skipped, Remade
		}
		state[i] = known
	}
	for i := range g.items {
		if g.first[i] != g.first[i+1] {
			decide(int32(i))
		}
	}
}

// madeBy has, for each resource that controllers make, the resources whose controllers do.
var madeBy = map[string]map[string]bool{
	"pods":                     {"replicasets.apps": true, "replicationcontrollers": true, "jobs.batch": true, "daemonsets.apps": true, "statefulsets.apps": true},
	"replicasets.apps":         {"deployments.apps": true},
	"controllerrevisions.apps": {"daemonsets.apps": true, "statefulsets.apps": true},
}

func (g *graph) madeBy(child, owner int32) bool {
	c, o := &g.resources[g.items[child].res], &g.resources[g.items[owner].res]
	return madeBy[c.groupResource()][o.groupResource()]
}

// isHistory tells the kinds of which a controller makes the current one only: the older ReplicaSets and ControllerRevisions are
// what a rollout can be undone to. Which one is the current is seen when it is read, or when the target has it already.
func (g *graph) isHistory(i int32) bool {
	r := g.resources[g.items[i].res].groupResource()
	return r == "replicasets.apps" || r == "controllerrevisions.apps"
}

// followsOwner says whether an object goes with an owner that a controller makes again. A claim does only where it is the
// ephemeral volume of its pod, whose name it then starts with: any other claim holds data.
func (g *graph) followsOwner(child, owner int32) bool {
	if r := &g.resources[g.items[child].res]; r.Group == "" && r.Resource == "persistentvolumeclaims" {
		return strings.HasPrefix(g.items[child].name, g.items[owner].name+"-")
	}
	return true
}
