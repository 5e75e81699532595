package actions

import (
	"kedge.dev/kedge/internal/crdschema"
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// namespace drops the finalizer "kubernetes", which the API server gives every namespace; others are the user's.
func namespace() plugins.Action {
	return &rule{
		name:    "Namespace",
		matches: on("namespaces", `"finalizers"`),
		apply: func(item *plugins.Item) plugins.Decision {
			spec := tree.Map(item.Object, "spec")
			list, _ := spec["finalizers"].([]any)
			var kept []any
			for _, f := range list {
				if f != "kubernetes" {
					kept = append(kept, f)
				}
			}
			if len(kept) > 0 {
				spec["finalizers"] = kept
				return goOn
			}
			delete(spec, "finalizers")
			if len(spec) == 0 {
				delete(item.Object, "spec")
			}
			return goOn
		},
	}
}

// apiService leaves out the entries of groups that the API server itself or custom resource definitions serve.
func apiService() plugins.Action {
	return &rule{
		name:    "APIService",
		matches: on("apiservices.apiregistration.k8s.io"),
		apply: func(item *plugins.Item) plugins.Decision {
			_, managed := tree.In(item.Object, "metadata", "labels")["kube-aggregator.kubernetes.io/automanaged"]
			if managed || !tree.Has(tree.Map(item.Object, "spec"), "service") {
				return skip(ReasonRemade, "the target's API server registers what it serves by itself")
			}
			return goOn
		},
	}
}

// definition makes custom resource definitions that are older than structural schemas acceptable to a create.
func definition() plugins.Action {
	return &rule{
		name:    "CustomResourceDefinition",
		matches: on("customresourcedefinitions.apiextensions.k8s.io", `"preserveUnknownFields"`, `.k8s.io"`, `.kubernetes.io"`),
		apply: func(item *plugins.Item) plugins.Decision {
			var warnings []string
			if spec := tree.Map(item.Object, "spec"); spec["preserveUnknownFields"] != nil {
				_, warnings = crdschema.Upgrade(spec)
			}
			if w := crdschema.Approve(item.Object); w != "" {
				warnings = append(warnings, w)
			}
			for _, w := range warnings {
				item.Remark(ReasonChanged, "%s", w)
			}
			return goOn
		},
	}
}

// configMaps are those that every cluster publishes for itself.
var configMaps = map[string]string{
	"kube-root-ca.crt": "the target publishes its own certificate authority in every namespace",
	"kube-system/extension-apiserver-authentication":                   "it holds the old cluster's certificate authorities; the target's API server writes its own",
	"kube-system/kube-apiserver-legacy-service-account-token-tracking": "the target's API server keeps its own",
	"openshift-service-ca.crt":                                         "the target publishes its own certificate authority in every namespace",
}

func configMap() plugins.Action {
	return &rule{
		name: "ConfigMap",
		matches: []plugins.Match{{Resources: []string{"configmaps"}, Names: []string{
			"kube-root-ca.crt", "openshift-service-ca.crt", "extension-apiserver-authentication", "kube-apiserver-legacy-service-account-token-tracking",
		}}},
		apply: func(item *plugins.Item) plugins.Decision {
			meta := tree.Map(item.Object, "metadata")
			name := tree.Text(meta, "name")
			for _, key := range []string{name, tree.Text(meta, "namespace") + "/" + name} {
				if why, ok := configMaps[key]; ok {
					return skip(ReasonRemade, "%s", why)
				}
			}
			return goOn
		},
	}
}
