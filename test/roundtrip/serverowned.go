//go:build unix

package main

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/test/testbed"
)

// This file is the whole list of what may differ between an object and its restored self, because the server or a controller
// of the cluster decides it. Whatever it does not name is compared.

// notCompared are resources whose objects are the server's own.
func notCompared(gr schema.GroupResource) bool {
	switch gr.String() {
	case
		"events", "events.events.k8s.io", // what happened in this cluster; they expire within the hour
		"ipaddresses.networking.k8s.io", // one per cluster IP, made by its allocator
		"componentstatuses":             // not stored
		return true
	}
	return false
}

// ofTheCluster are resources whose objects say something of the cluster that they are in: its machines, and what nodes, drivers and
// running processes publish of themselves. A restore may leave them out, and must name them.
func ofTheCluster(gr schema.GroupResource) bool {
	switch gr.String() {
	case "nodes", "csinodes.storage.k8s.io", "volumeattachments.storage.k8s.io", "csistoragecapacities.storage.k8s.io",
		"resourceslices.resource.k8s.io",
		"leases.coordination.k8s.io", "leasecandidates.coordination.k8s.io",
		"certificatesigningrequests.certificates.k8s.io", "podcertificaterequests.certificates.k8s.io",
		"nodeclaims.karpenter.sh", "cninodes.vpcresources.k8s.aws":
		return true
	}
	return false
}

// madeByServer are objects that a server makes again by itself, under names or with contents of its own.
func madeByServer(o *object) bool {
	labels := o.raw.GetLabels()
	switch {
	case labels["kube-aggregator.kubernetes.io/automanaged"] != "": // an APIService for each built-in or custom API
		return true
	case o.api.Resource == "leases" && labels["apiserver.kubernetes.io/identity"] != "", // "I am alive", renewed each 10 seconds
		o.api.Resource == "leases" && labels["k8s.io/component"] == "kube-apiserver": // the same before 1.26
		return true
	}
	return false
}

// ownedByTestbed are objects that the testbed adds to let Kedge in.
func ownedByTestbed(o *object) bool {
	name, ns := o.raw.GetName(), testbed.AccessNamespace
	return o.raw.GetNamespace() == ns || strings.HasPrefix(name, ns+":") || (o.api.Resource == "namespaces" && name == ns)
}

// serverFields are removed from every object.
var serverFields = [][]string{
	{"metadata", "uid"},               // chosen by the server
	{"metadata", "resourceVersion"},   // chosen by the server
	{"metadata", "creationTimestamp"}, // chosen by the server
	{"metadata", "generation"},        // counted by the server
	{"metadata", "selfLink"},          // 1.24 and older
}

// normalise gives what is compared of an object: a copy without what the server decides, and with what stands for other
// objects (their uids) replaced by their names.
func normalise(s *snapshot, o *object, chosen fieldsChosen) map[string]any {
	obj := o.raw.DeepCopy().Object
	for _, path := range serverFields {
		unstructured.RemoveNestedField(obj, path...)
	}
	if o.api.Status {
		delete(obj, "status") // a subresource of its own; restored on request only
	}
	applyOwners(obj)
	namedOwners(s, obj)
	switch o.api.GroupResource().String() {
	case "services":
		service(obj, chosen[o.key])
	case "configmaps":
		if o.raw.GetName() == "kube-root-ca.crt" {
			unstructured.RemoveNestedField(obj, "data", "ca.crt") // the cluster's own authority, kept by a controller
		}
	case "secrets":
		tokenSecret(obj)
	case "clusterroles.rbac.authorization.k8s.io":
		if _, aggregated, _ := unstructured.NestedFieldNoCopy(obj, "aggregationRule"); aggregated {
			delete(obj, "rules") // filled by a controller from the roles that the rule selects
		}
	case "persistentvolumes":
		boundClaim(s, obj)
		bindingNotes(obj)
	case "persistentvolumeclaims":
		bindingNotes(obj)
	case "deployments.apps", "replicasets.apps":
		for _, count := range []string{"revision", "revision-history"} { // counted by a controller
			unstructured.RemoveNestedField(obj, "metadata", "annotations", "deployment.kubernetes.io/"+count)
		}
	case "controllerrevisions.apps":
		delete(obj, "revision") // counted by a controller
	case "jobs.batch":
		jobLabels(obj)
	case "pods":
		pod(obj)
	case "endpoints", "endpointslices.discovery.k8s.io":
		unstructured.RemoveNestedField(obj, "metadata", "annotations", "endpoints.kubernetes.io/last-change-trigger-time") // a clock's
	}
	dropEmpty(obj, "metadata", "annotations")
	dropEmpty(obj, "metadata", "labels")
	return obj
}

// applyOwners leaves of managedFields what server-side apply needs to go on: who applied which fields. When that was, and who
// else wrote, belongs to this cluster.
func applyOwners(obj map[string]any) {
	entries, _, _ := unstructured.NestedSlice(obj, "metadata", "managedFields")
	kept := map[string]any{}
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		if entry["operation"] == string(metav1.ManagedFieldsOperationApply) && entry["subresource"] == nil {
			kept[entry["manager"].(string)] = entry["fieldsV1"]
		}
	}
	unstructured.RemoveNestedField(obj, "metadata", "managedFields")
	if len(kept) > 0 {
		_ = unstructured.SetNestedMap(obj, kept, "metadata", "managedFields")
	}
}

// namedOwners replaces the uids of owners.
func namedOwners(s *snapshot, obj map[string]any) {
	owners, _, _ := unstructured.NestedSlice(obj, "metadata", "ownerReferences")
	for _, ref := range owners {
		owner := ref.(map[string]any)
		uid, _ := owner["uid"].(string)
		owner["uid"] = "of nobody"
		if o := s.byUID[uid]; o != nil {
			owner["uid"] = "of " + string(canonical(s, o))
			owner["name"] = "see uid"
		}
	}
	if len(owners) > 0 {
		_ = unstructured.SetNestedSlice(obj, owners, "metadata", "ownerReferences")
	}
}

// service: addresses and ports that the cluster allocates, unless the user chose them.
func service(obj map[string]any, chosen map[string]any) {
	spec, _ := obj["spec"].(map[string]any)
	if spec == nil || spec["clusterIP"] == metav1.NamespaceNone {
		return
	}
	delete(spec, "clusterIP")
	delete(spec, "clusterIPs")
	if health, _, _ := unstructured.NestedFieldNoCopy(chosen, "spec", "healthCheckNodePort"); health == nil {
		delete(spec, "healthCheckNodePort")
	}
	wanted, _, _ := unstructured.NestedSlice(chosen, "spec", "ports")
	ports, _ := spec["ports"].([]any)
	for i, p := range ports {
		port := p.(map[string]any)
		if i < len(wanted) {
			if w, _ := wanted[i].(map[string]any); w["nodePort"] != nil {
				continue
			}
		}
		delete(port, "nodePort")
	}
}

// tokenSecret: a controller fills secrets of this type for the service account that they name.
func tokenSecret(obj map[string]any) {
	if obj["type"] != "kubernetes.io/service-account-token" {
		return
	}
	for _, field := range []string{"token", "ca.crt", "namespace"} {
		unstructured.RemoveNestedField(obj, "data", field)
	}
	dropEmpty(obj, "data")
	unstructured.RemoveNestedField(obj, "metadata", "annotations", "kubernetes.io/service-account.uid")
	unstructured.RemoveNestedField(obj, "metadata", "labels", "kubernetes.io/legacy-token-last-used")
}

// boundClaim names a volume's claim by name alone.
func boundClaim(s *snapshot, obj map[string]any) {
	ref, found, _ := unstructured.NestedMap(obj, "spec", "claimRef")
	if !found {
		return
	}
	if uid, _ := ref["uid"].(string); uid != "" {
		ref["uid"] = "of nobody"
		if o := s.byUID[uid]; o != nil {
			ref["uid"] = "of " + string(o.key)
		}
	}
	delete(ref, "resourceVersion")
	_ = unstructured.SetNestedMap(obj, ref, "spec", "claimRef")
}

// bindingNotes: how a claim and its volume came together, as the controller that bound them noted it. That they are bound to each other,
// and completely (pv.kubernetes.io/bind-completed), is compared.
func bindingNotes(obj map[string]any) {
	for _, note := range []string{
		"pv.kubernetes.io/bound-by-controller",                                                      // which of the two named the other first
		"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner", // who was asked for a volume
	} {
		unstructured.RemoveNestedField(obj, "metadata", "annotations", note)
	}
}

// jobMarks are labels by which a job knows its pods: the server generates them from its uid and name.
var jobMarks = []string{"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"}

// hashMarks are labels with a hash of a template, which is compared where it is defined.
var hashMarks = []string{"pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash"}

// jobLabels: the server generates a job's selector and the labels that it selects by, unless the user does (manualSelector).
func jobLabels(obj map[string]any) {
	if manual, _, _ := unstructured.NestedBool(obj, "spec", "manualSelector"); manual {
		return
	}
	for _, path := range [][]string{{"metadata", "labels"}, {"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
		for _, label := range jobMarks {
			unstructured.RemoveNestedField(obj, append(append([]string{}, path...), label)...)
		}
		dropEmpty(obj, path...)
	}
	dropEmpty(obj, "spec", "selector")
	dropEmpty(obj, "spec", "template", "metadata")
}

// pod: the volume with the pod's token has a random name.
func pod(obj map[string]any) {
	const prefix = "kube-api-access-"
	rename := func(items any) {
		list, _ := items.([]any)
		for _, item := range list {
			if m, _ := item.(map[string]any); m != nil {
				if name, _ := m["name"].(string); strings.HasPrefix(name, prefix) && len(name) == len(prefix)+5 {
					m["name"] = prefix + "*"
				}
			}
		}
	}
	spec, _ := obj["spec"].(map[string]any)
	rename(spec["volumes"])
	for _, kind := range []string{"initContainers", "containers", "ephemeralContainers"} {
		containers, _ := spec[kind].([]any)
		for _, c := range containers {
			if m, _ := c.(map[string]any); m != nil {
				rename(m["volumeMounts"])
			}
		}
	}
	// An admission plugin's note of the resources that it filled in; the resources themselves are compared.
	unstructured.RemoveNestedField(obj, "metadata", "annotations", "kubernetes.io/limit-ranger")
}

// normaliseMade is normalise for objects that a controller made: their names, and labels made of uids and hashes, are
// the controller's choice. Across says that the two servers are of different versions.
func normaliseMade(s *snapshot, o *object, across bool) map[string]any {
	obj := normalise(s, o, nil)
	unstructured.RemoveNestedField(obj, "metadata", "name")
	unstructured.RemoveNestedField(obj, "metadata", "generateName")
	paths := [][]string{{"metadata", "labels"}, {"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}}
	for _, path := range paths {
		for _, label := range slices.Concat(jobMarks, hashMarks) {
			unstructured.RemoveNestedField(obj, append(append([]string{}, path...), label)...)
		}
		dropEmpty(obj, path...)
	}
	if across && o.api.Group == "" && o.api.Resource == "pods" {
		oldSeccomp(obj)
	}
	return obj
}

// oldSeccomp: servers before 1.27 keep a pod's annotations on seccomp and its fields in step; later ones ignore the annotations.
func oldSeccomp(obj map[string]any) {
	const container, whole = "container.seccomp.security.alpha.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/pod"
	annotations, _, _ := unstructured.NestedMap(obj, "metadata", "annotations")
	for name := range annotations {
		if strings.HasPrefix(name, container) || name == whole {
			unstructured.RemoveNestedField(obj, "metadata", "annotations", name)
		}
	}
	dropEmpty(obj, "metadata", "annotations")
	spec, _ := obj["spec"].(map[string]any)
	unstructured.RemoveNestedField(spec, "securityContext", "seccompProfile")
	for _, kind := range []string{"initContainers", "containers"} {
		containers, _ := spec[kind].([]any)
		for _, c := range containers {
			if m, _ := c.(map[string]any); m != nil {
				unstructured.RemoveNestedField(m, "securityContext", "seccompProfile")
				dropEmpty(m, "securityContext")
			}
		}
	}
}

func dropEmpty(obj map[string]any, path ...string) {
	if m, found, _ := unstructured.NestedMap(obj, path...); found && len(m) == 0 {
		unstructured.RemoveNestedField(obj, path...)
	}
}
