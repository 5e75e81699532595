package actions

import (
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

const addressesRemade = "the target's controller makes it from its Service's selector"

// endpoints keeps those that a user wrote, for Services without a selector; addresses of the old cluster's pods would
// lead nowhere.
func endpoints(opts Options) plugins.Action {
	return &rule{
		name:    "Endpoints",
		matches: on("endpoints"),
		apply: func(item *plugins.Item) plugins.Decision {
			meta := tree.Map(item.Object, "metadata")
			namespace, name := tree.Text(meta, "namespace"), tree.Text(meta, "name")
			if namespace == "default" && name == "kubernetes" {
				return skip(ReasonRemade, "the API server publishes its own addresses")
			}
			if _, leads := tree.Annotation(item.Object, "control-plane.alpha.kubernetes.io/leader"); leads {
				return skip(ReasonRemade, "it is held by a running process for leader election, which takes it anew")
			}
			if !opts.IncludeControlled && (opts.ServiceSelects != nil && opts.ServiceSelects(namespace, name) || madeByController(item.Object)) {
				return skip(ReasonRemade, addressesRemade)
			}
			tree.DropAnnotations(item.Object, "endpoints.kubernetes.io/last-change-trigger-time")
			tree.Each(item.Object, "subsets", func(subset map[string]any) {
				for _, list := range []string{"addresses", "notReadyAddresses"} {
					tree.Each(subset, list, func(address map[string]any) {
						tree.Drop(tree.Map(address, "targetRef"), "uid", "resourceVersion")
					})
				}
			})
			return goOn
		},
	}
}

// madeByController finds the controller's label, which it writes since Kubernetes 1.33, or addresses that all are pods'.
func madeByController(obj map[string]any) bool {
	if tree.Text(tree.In(obj, "metadata", "labels"), "endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
		return true
	}
	pods, others := 0, 0
	tree.Each(obj, "subsets", func(subset map[string]any) {
		for _, list := range []string{"addresses", "notReadyAddresses"} {
			tree.Each(subset, list, func(address map[string]any) {
				if tree.Text(tree.Map(address, "targetRef"), "kind") == "Pod" {
					pods++
				} else {
					others++
				}
			})
		}
	})
	return pods > 0 && others == 0
}

// sliceControllers are the values of the label endpointslice.kubernetes.io/managed-by of slices that are made again.
var sliceControllers = map[string]bool{
	"endpointslice-controller.k8s.io":          true,
	"endpointslicemirroring-controller.k8s.io": true,
}

func endpointSlice(opts Options) plugins.Action {
	return &rule{
		name:    "EndpointSlice",
		matches: on("endpointslices.discovery.k8s.io"),
		apply: func(item *plugins.Item) plugins.Decision {
			meta := tree.Map(item.Object, "metadata")
			labels := tree.Map(meta, "labels")
			if tree.Text(meta, "namespace") == "default" && tree.Text(labels, "kubernetes.io/service-name") == "kubernetes" {
				return skip(ReasonRemade, "the API server publishes its own addresses")
			}
			if !opts.IncludeControlled && sliceControllers[tree.Text(labels, "endpointslice.kubernetes.io/managed-by")] {
				return skip(ReasonRemade, addressesRemade)
			}
			tree.DropAnnotations(item.Object, "endpoints.kubernetes.io/last-change-trigger-time")
			tree.Each(item.Object, "endpoints", func(endpoint map[string]any) {
				tree.Drop(tree.Map(endpoint, "targetRef"), "uid", "resourceVersion")
			})
			return goOn
		},
	}
}

// ipAddress leaves out the addresses that the API server books for Services.
func ipAddress() plugins.Action {
	return &rule{
		name:    "IPAddress",
		matches: on("ipaddresses.networking.k8s.io"),
		apply: func(item *plugins.Item) plugins.Decision {
			if tree.Text(tree.In(item.Object, "metadata", "labels"), "ipaddress.kubernetes.io/managed-by") == "ipallocator.k8s.io" {
				return skip(ReasonRemade, "the API server books the addresses of the target's Services")
			}
			return goOn
		},
	}
}

// ingress resolves what a create refuses and an update once allowed: a class named in the field and in the old
// annotation. Controllers go by the annotation.
func ingress() plugins.Action {
	const class = "kubernetes.io/ingress.class"
	return &rule{
		name:    "Ingress",
		matches: on("ingresses.networking.k8s.io", class),
		apply: func(item *plugins.Item) plugins.Decision {
			spec := tree.Map(item.Object, "spec")
			annotation, both := tree.Annotation(item.Object, class)
			field := tree.Text(spec, "ingressClassName")
			if !both || field == "" {
				return goOn
			}
			if annotation == field {
				tree.DropAnnotations(item.Object, class)
				return goOn
			}
			delete(spec, "ingressClassName")
			item.Remark(ReasonChanged, "spec.ingressClassName %s was dropped: a new Ingress may not also have the annotation %s: %s, which controllers obey first", field, class, annotation)
			return goOn
		},
	}
}
