package restore

import "kedge.dev/kedge/plugins"

// stage is the place of a kind of object in the order of a restore.
type stage uint8

// The stages, in the order in which plans print them. What must really come first is in needs.
const (
	stageCRDs stage = iota
	stageEstablished
	stageNamespaces
	stageClasses
	stageBounds
	stageAccounts
	stageRoles
	stageBindings
	stageConfig
	stageVolumes
	stageClaims
	stageServices
	stageEndpoints
	stageNetwork
	stageCustom
	stageWorkloads
	stageFollowers
	stagePolicies
	stageBackends
	stageAPIServices
	stageWebhooks
	stageCount
)

// band groups stages: every step of a band comes after every step of the bands before it.
type band uint8

const (
	bandGround band = iota // what workloads stand on
	bandWorkloads
	bandGates // what could refuse or change other objects
	bandCount
)

// stageInfo says what a stage holds and what comes before it within its band.
type stageInfo struct {
	name, title string
	band        band
	needs       []stage
	// wait marks a stage that holds no objects but waits for those of the stage it needs.
	wait bool
}

var stages = [stageCount]stageInfo{
	stageCRDs:        {name: "crds", title: "CustomResourceDefinitions"},
	stageEstablished: {name: "established", title: "wait until the new APIs are served", needs: []stage{stageCRDs}, wait: true},
	stageNamespaces:  {name: "namespaces", title: "namespaces"},
	stageClasses:     {name: "classes", title: "classes of storage, ingress, priority, runtime, devices; CSI drivers; flow control"},
	stageBounds:      {name: "bounds", title: "quotas and limit ranges", needs: []stage{stageNamespaces, stageClasses}},
	stageAccounts:    {name: "accounts", title: "service accounts", needs: []stage{stageNamespaces}},
	stageRoles:       {name: "roles", title: "roles", needs: []stage{stageNamespaces}},
	stageBindings:    {name: "bindings", title: "role bindings", needs: []stage{stageRoles, stageAccounts}},
	stageConfig:      {name: "config", title: "secrets and config maps", needs: []stage{stageBounds, stageAccounts}},
	stageVolumes:     {name: "volumes", title: "persistent volumes", needs: []stage{stageClasses}},
	stageClaims:      {name: "claims", title: "persistent volume claims", needs: []stage{stageVolumes, stageBounds}},
	stageServices:    {name: "services", title: "services", needs: []stage{stageBounds}},
	stageEndpoints:   {name: "endpoints", title: "endpoints that no controller makes", needs: []stage{stageServices}},
	stageNetwork:     {name: "network", title: "network policies", needs: []stage{stageNamespaces}},
	stageCustom: {name: "custom", title: "custom resources and all other kinds",
		needs: []stage{stageEstablished, stageBindings, stageConfig, stageClaims, stageServices, stageNetwork}},
	stageWorkloads:   {name: "workloads", title: "workloads", band: bandWorkloads},
	stageFollowers:   {name: "followers", title: "what points at workloads: autoscalers, disruption budgets, ingresses", band: bandWorkloads, needs: []stage{stageWorkloads}},
	stagePolicies:    {name: "policies", title: "admission policies", band: bandGates},
	stageBackends:    {name: "backends", title: "wait for the backends of API services and webhooks", band: bandGates, wait: true},
	stageAPIServices: {name: "apiservices", title: "API services", band: bandGates, needs: []stage{stageBackends}},
	stageWebhooks:    {name: "webhooks", title: "admission webhooks", band: bandGates, needs: []stage{stageAPIServices, stagePolicies}},
}

// stageOf maps built-in resources to stages; every other resource is in stageCustom. Groups are left out of the key where a
// kind moved between groups.
var stageOf = map[string]stage{
	"customresourcedefinitions.apiextensions.k8s.io": stageCRDs,

	"namespaces": stageNamespaces,

	"storageclasses.storage.k8s.io":                            stageClasses,
	"volumeattributesclasses.storage.k8s.io":                   stageClasses,
	"csidrivers.storage.k8s.io":                                stageClasses,
	"ingressclasses.networking.k8s.io":                         stageClasses,
	"priorityclasses.scheduling.k8s.io":                        stageClasses,
	"runtimeclasses.node.k8s.io":                               stageClasses,
	"deviceclasses.resource.k8s.io":                            stageClasses,
	"flowschemas.flowcontrol.apiserver.k8s.io":                 stageClasses,
	"prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": stageClasses,
	"servicecidrs.networking.k8s.io":                           stageClasses,

	"resourcequotas": stageBounds,
	"limitranges":    stageBounds,

	"serviceaccounts":                               stageAccounts,
	"clusterroles.rbac.authorization.k8s.io":        stageRoles,
	"roles.rbac.authorization.k8s.io":               stageRoles,
	"clusterrolebindings.rbac.authorization.k8s.io": stageBindings,
	"rolebindings.rbac.authorization.k8s.io":        stageBindings,

	"secrets":                           stageConfig,
	"configmaps":                        stageConfig,
	"persistentvolumes":                 stageVolumes,
	"persistentvolumeclaims":            stageClaims,
	"services":                          stageServices,
	"endpoints":                         stageEndpoints,
	"endpointslices.discovery.k8s.io":   stageEndpoints,
	"networkpolicies.networking.k8s.io": stageNetwork,
	"networkpolicies.extensions":        stageNetwork,

	"pods":                     stageWorkloads,
	"replicationcontrollers":   stageWorkloads,
	"podtemplates":             stageWorkloads,
	"deployments.apps":         stageWorkloads,
	"replicasets.apps":         stageWorkloads,
	"statefulsets.apps":        stageWorkloads,
	"daemonsets.apps":          stageWorkloads,
	"controllerrevisions.apps": stageWorkloads,
	"deployments.extensions":   stageWorkloads,
	"replicasets.extensions":   stageWorkloads,
	"daemonsets.extensions":    stageWorkloads,
	"jobs.batch":               stageWorkloads,
	"cronjobs.batch":           stageWorkloads,

	"horizontalpodautoscalers.autoscaling": stageFollowers,
	"poddisruptionbudgets.policy":          stageFollowers,
	"ingresses.networking.k8s.io":          stageFollowers,
	"ingresses.extensions":                 stageFollowers,

	"validatingadmissionpolicies.admissionregistration.k8s.io":       stagePolicies,
	"validatingadmissionpolicybindings.admissionregistration.k8s.io": stagePolicies,
	"mutatingadmissionpolicies.admissionregistration.k8s.io":         stagePolicies,
	"mutatingadmissionpolicybindings.admissionregistration.k8s.io":   stagePolicies,
	"apiservices.apiregistration.k8s.io":                             stageAPIServices,
	"validatingwebhookconfigurations.admissionregistration.k8s.io":   stageWebhooks,
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":     stageWebhooks,
}

// stageFor gives the stage of a resource.
func stageFor(group, resource string) stage {
	if s, ok := stageOf[plugins.Ref{Group: group, Resource: resource}.GroupResource()]; ok {
		return s
	}
	return stageCustom
}
