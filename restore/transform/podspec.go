package transform

// podSpecPlaces has where the resources that make pods keep the pod's spec.
var podSpecPlaces = map[resource]place{
	{"", "pods"}:                   at("spec"),
	{"", "podtemplates"}:           at("template spec"),
	{"", "replicationcontrollers"}: at("spec template spec"),
	{"apps", "deployments"}:        at("spec template spec"),
	{"apps", "replicasets"}:        at("spec template spec"),
	{"apps", "statefulsets"}:       at("spec template spec"),
	{"apps", "daemonsets"}:         at("spec template spec"),
	{"batch", "jobs"}:              at("spec template spec"),
	{"batch", "cronjobs"}:          at("spec jobTemplate spec template spec"),
	{"extensions", "deployments"}:  at("spec template spec"),
	{"extensions", "replicasets"}:  at("spec template spec"),
	{"extensions", "daemonsets"}:   at("spec template spec"),
}

// customPodSpecs are where custom resources usually keep one (Argo Rollouts, Knative services, OpenKruise, KEDA jobs); it is taken for one
// where it has a list of containers.
var customPodSpecs = []place{
	at("spec template spec"), at("spec jobTemplate spec template spec"), at("spec jobTargetRef template spec"), at("spec podTemplate spec"),
}

var (
	containerPlaces = []place{at("containers []"), at("initContainers []"), at("ephemeralContainers []")}
	affinityTerms   = []place{
		at("affinity podAffinity requiredDuringSchedulingIgnoredDuringExecution []"),
		at("affinity podAffinity preferredDuringSchedulingIgnoredDuringExecution [] podAffinityTerm"),
		at("affinity podAntiAffinity requiredDuringSchedulingIgnoredDuringExecution []"),
		at("affinity podAntiAffinity preferredDuringSchedulingIgnoredDuringExecution [] podAffinityTerm"),
	}
	nodeTerms = []place{
		at("affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms [] matchExpressions []"),
		at("affinity nodeAffinity preferredDuringSchedulingIgnoredDuringExecution [] preference matchExpressions []"),
	}
	claimTemplate = at("volumes [] ephemeral volumeClaimTemplate")
)

// hasPodSpecs says that objects of the resource may hold a pod's spec.
func hasPodSpecs(r resource) bool { return podSpecPlaces[r] != nil || r.custom() }

// podSpecs calls f with every pod spec of the object.
func (e *edits) podSpecs(f func(e *edits, spec map[string]any)) {
	if p := podSpecPlaces[e.resource]; p != nil {
		e.edit(e.obj, p, inside(f))
		return
	}
	if !e.resource.custom() {
		return
	}
	for _, p := range customPodSpecs {
		e.edit(e.obj, p, inside(func(e *edits, spec map[string]any) {
			if _, ok := spec["containers"].([]any); ok {
				f(e, spec)
			}
		}))
	}
}

// claims calls f with every PersistentVolumeClaim, and every template of one, that the object is or holds.
func (e *edits) claims(f func(e *edits, claim map[string]any)) {
	switch e.resource {
	case resource{"", "persistentvolumeclaims"}:
		f(e, e.obj)
	case resource{"apps", "statefulsets"}:
		e.edit(e.obj, at("spec volumeClaimTemplates []"), inside(f))
	}
	e.podSpecs(func(e *edits, spec map[string]any) {
		e.edit(spec, claimTemplate, inside(f))
	})
}
