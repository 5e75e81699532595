package transform

// reference is a field that names a namespace, and the form in which it does.
type reference struct {
	place place
	form  func(n *namespaces) form
}

// references has, for each resource, the fields of its objects that name other namespaces. What every object may have (label selectors
// on kubernetes.io/metadata.name, annotations), and what pod specs have, stands in the lists below it.
var references = map[resource][]reference{
	{"", "persistentvolumes"}: names(
		"spec claimRef namespace",
		"spec csi controllerPublishSecretRef namespace", "spec csi nodeStageSecretRef namespace", "spec csi nodePublishSecretRef namespace",
		"spec csi controllerExpandSecretRef namespace", "spec csi nodeExpandSecretRef namespace",
		"spec flexVolume secretRef namespace", "spec iscsi secretRef namespace", "spec cephfs secretRef namespace", "spec rbd secretRef namespace",
		"spec scaleIO secretRef namespace", "spec storageos secretRef namespace", "spec azureFile secretNamespace", "spec glusterfs endpointsNamespace",
	),
	{"", "persistentvolumeclaims"}: names("spec dataSourceRef namespace"),
	{"apps", "statefulsets"}:       names("spec volumeClaimTemplates [] spec dataSourceRef namespace"),
	{"", "serviceaccounts"}:        names("secrets [] namespace"),
	{"", "services"}:               {{at("spec externalName"), (*namespaces).host}},
	{"", "endpoints"}: names(
		"subsets [] addresses [] targetRef namespace", "subsets [] notReadyAddresses [] targetRef namespace",
	),
	{"discovery.k8s.io", "endpointslices"}: names("endpoints [] targetRef namespace"),

	{"rbac.authorization.k8s.io", "rolebindings"}:        {{at("subjects []"), (*namespaces).subject}},
	{"rbac.authorization.k8s.io", "clusterrolebindings"}: {{at("subjects []"), (*namespaces).subject}},
	{"rbac.authorization.k8s.io", "clusterroles"}:        {{at("rules []"), (*namespaces).policyRule}},
	{"rbac.authorization.k8s.io", "roles"}:               {{at("rules []"), (*namespaces).policyRule}},
	{"flowcontrol.apiserver.k8s.io", "flowschemas"}: {
		{at("spec rules [] subjects []"), (*namespaces).flowSubject},
		{at("spec rules [] resourceRules [] namespaces"), (*namespaces).list},
	},

	{"admissionregistration.k8s.io", "mutatingwebhookconfigurations"}:     names("webhooks [] clientConfig service namespace"),
	{"admissionregistration.k8s.io", "validatingwebhookconfigurations"}:   names("webhooks [] clientConfig service namespace"),
	{"admissionregistration.k8s.io", "validatingadmissionpolicybindings"}: names("spec paramRef namespace"),
	{"admissionregistration.k8s.io", "mutatingadmissionpolicybindings"}:   names("spec paramRef namespace"),
	{"apiregistration.k8s.io", "apiservices"}:                             names("spec service namespace"),
	{"apiextensions.k8s.io", "customresourcedefinitions"}: names(
		"spec conversion webhook clientConfig service namespace", "spec conversion webhookClientConfig service namespace",
	),

	{"storage.k8s.io", "storageclasses"}:                 {{at("parameters"), (*namespaces).secretParameters}},
	{"snapshot.storage.k8s.io", "volumesnapshotclasses"}: {{at("parameters"), (*namespaces).secretParameters}},
	{"snapshot.storage.k8s.io", "volumesnapshotcontents"}: names(
		"spec volumeSnapshotRef namespace", "metadata annotations snapshot.storage.kubernetes.io/deletion-secret-namespace",
	),
	{"networking.k8s.io", "ingressclasses"}: names("spec parameters namespace"),

	{"gateway.networking.k8s.io", "gateways"}: names(
		"spec listeners [] tls certificateRefs [] namespace", "spec listeners [] tls frontendValidation caCertificateRefs [] namespace",
	),
	{"gateway.networking.k8s.io", "gatewayclasses"}:  names("spec parametersRef namespace"),
	{"gateway.networking.k8s.io", "httproutes"}:      names(routeReferences...),
	{"gateway.networking.k8s.io", "grpcroutes"}:      names(routeReferences...),
	{"gateway.networking.k8s.io", "tcproutes"}:       names(routeReferences...),
	{"gateway.networking.k8s.io", "tlsroutes"}:       names(routeReferences...),
	{"gateway.networking.k8s.io", "udproutes"}:       names(routeReferences...),
	{"gateway.networking.k8s.io", "referencegrants"}: names("spec from [] namespace"),

	{"monitoring.coreos.com", "servicemonitors"}: {{at("spec namespaceSelector matchNames"), (*namespaces).list}},
	{"monitoring.coreos.com", "podmonitors"}:     {{at("spec namespaceSelector matchNames"), (*namespaces).list}},
	{"monitoring.coreos.com", "probes"}:          {{at("spec targets ingress namespaceSelector matchNames"), (*namespaces).list}},
	{"monitoring.coreos.com", "prometheuses"}:    names("spec alerting alertmanagers [] namespace"),

	{"security.istio.io", "authorizationpolicies"}: {
		{at("spec rules [] from [] source namespaces"), (*namespaces).list},
		{at("spec rules [] from [] source notNamespaces"), (*namespaces).list},
		{at("spec rules [] from [] source principals []"), (*namespaces).principal},
		{at("spec rules [] from [] source notPrincipals []"), (*namespaces).principal},
	},
}

// routeReferences are what all routes of the Gateway API share, with the filters that those of HTTP and gRPC add.
var routeReferences = []string{
	"spec parentRefs [] namespace",
	"spec rules [] backendRefs [] namespace",
	"spec rules [] filters [] requestMirror backendRef namespace",
	"spec rules [] backendRefs [] filters [] requestMirror backendRef namespace",
}

// podReferences are the fields of pod specs that name namespaces.
var podReferences = []reference{
	{at("affinity podAffinity requiredDuringSchedulingIgnoredDuringExecution [] namespaces"), (*namespaces).list},
	{at("affinity podAffinity preferredDuringSchedulingIgnoredDuringExecution [] podAffinityTerm namespaces"), (*namespaces).list},
	{at("affinity podAntiAffinity requiredDuringSchedulingIgnoredDuringExecution [] namespaces"), (*namespaces).list},
	{at("affinity podAntiAffinity preferredDuringSchedulingIgnoredDuringExecution [] podAffinityTerm namespaces"), (*namespaces).list},
	{at("volumes [] ephemeral volumeClaimTemplate spec dataSourceRef namespace"), (*namespaces).name},
}

// annotationReferences are annotations that name a namespace alone, or in front of a slash, on objects of any kind.
var annotationReferences = []reference{
	{at("metadata annotations meta.helm.sh/release-namespace"), (*namespaces).name},
	{at("metadata annotations cert-manager.io/inject-ca-from"), (*namespaces).slashed},
	{at("metadata annotations cert-manager.io/inject-ca-from-secret"), (*namespaces).slashed},
	{at("metadata annotations nginx.ingress.kubernetes.io/auth-secret"), (*namespaces).slashed},
	{at("metadata annotations nginx.ingress.kubernetes.io/auth-tls-secret"), (*namespaces).slashed},
	{at("metadata annotations nginx.ingress.kubernetes.io/proxy-ssl-secret"), (*namespaces).slashed},
}

// namespaceNameLabels are the keys of label selectors whose values are names of namespaces: the label that the server puts on
// each namespace, and what Cilium calls it.
var namespaceNameLabels = []string{
	"kubernetes.io/metadata.name", "k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace",
	"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
}

// names makes references whose fields hold a name and nothing else.
func names(places ...string) []reference {
	out := make([]reference, len(places))
	for i, p := range places {
		out[i] = reference{at(p), (*namespaces).name}
	}
	return out
}
