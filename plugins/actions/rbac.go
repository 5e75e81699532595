package actions

import (
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// clusterRole empties the rules of an aggregated role: a controller collects them from the roles that it selects.
func clusterRole() plugins.Action {
	return &rule{
		name:    "ClusterRole",
		matches: on("clusterroles.rbac.authorization.k8s.io", `"aggregationRule"`),
		apply: func(item *plugins.Item) plugins.Decision {
			if !tree.Empty(tree.Map(item.Object, "aggregationRule")["clusterRoleSelectors"]) {
				item.Object["rules"] = []any{}
			}
			return goOn
		},
	}
}

// serverManaged leaves out, where existing objects would be changed, what the API server of each version keeps up to date
// by itself: an older version's default roles or flow schemas would take rights from the target's own components.
func serverManaged(opts Options) plugins.Action {
	const rbac = ".rbac.authorization.k8s.io"
	return &rule{
		name: "ServerManaged",
		matches: []plugins.Match{
			{Resources: []string{"roles" + rbac, "rolebindings" + rbac, "clusterroles" + rbac, "clusterrolebindings" + rbac}, Contains: []string{"kubernetes.io/bootstrapping"}},
			{Resources: []string{"flowschemas.flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"}, Contains: []string{"apf.kubernetes.io/autoupdate-spec"}},
			{Resources: []string{"priorityclasses.scheduling.k8s.io"}, Contains: []string{`"system-`}},
		},
		apply: func(item *plugins.Item) plugins.Decision {
			if opts.overwrites() && managedByServer(item.Object) {
				return skip(ReasonServerManaged, "the target's API server keeps its own version of it up to date")
			}
			return goOn
		},
	}
}

func managedByServer(obj map[string]any) bool {
	if tree.Text(tree.In(obj, "metadata", "labels"), "kubernetes.io/bootstrapping") == "rbac-defaults" {
		update, _ := tree.Annotation(obj, "rbac.authorization.kubernetes.io/autoupdate")
		return update == "true"
	}
	if update, ok := tree.Annotation(obj, "apf.kubernetes.io/autoupdate-spec"); ok {
		return update == "true"
	}
	return strings.HasPrefix(tree.Text(tree.Map(obj, "metadata"), "name"), "system-") && tree.Text(obj, "kind") == "PriorityClass"
}
