package actions

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// awsAuth handles kube-system/aws-auth of EKS, which says whom IAM identities are in the cluster. A wrong one locks
// everybody out, nodes first. So the target's is only ever added to: its own entries stay as they are, and the old
// cluster's nodes are left out.
type awsAuth struct{}

func (*awsAuth) Name() string { return "aws-auth" }

func (*awsAuth) AppliesTo() []plugins.Match {
	return []plugins.Match{{Resources: []string{"configmaps"}, Names: []string{"aws-auth"}}}
}

func (*awsAuth) Merges(ref plugins.Ref) bool {
	return ref.GroupResource() == "configmaps" && ref.Namespace == "kube-system" && ref.Name == "aws-auth"
}

func isAWSAuth(obj map[string]any) bool {
	meta := tree.Map(obj, "metadata")
	return tree.Text(meta, "namespace") == "kube-system" && tree.Text(meta, "name") == "aws-auth"
}

// authLists are the lists in its data, each YAML in a string, with the key that identifies an entry.
var authLists = []struct{ field, identity string }{{"mapRoles", "rolearn"}, {"mapUsers", "userarn"}, {"mapAccounts", ""}}

// Apply leaves out the roles of the old cluster's nodes.
func (*awsAuth) Apply(_ context.Context, item *plugins.Item) (plugins.Decision, error) {
	if !isAWSAuth(item.Object) {
		return goOn, nil
	}
	data := tree.Map(item.Object, "data")
	roles, err := authEntries(data, "mapRoles")
	if err != nil {
		return skip(ReasonMerged, "its mapRoles cannot be read (%v); nothing is added to the target's", err), nil
	}
	kept := slices.DeleteFunc(roles, func(role any) bool {
		if !isNodeRole(role) {
			return false
		}
		item.Remark(ReasonDropped, "mapRoles: %s is a role of the old cluster's nodes and was left out", identityOf(role, "rolearn"))
		return true
	})
	if len(kept) == len(roles) && len(kept) > 0 || len(roles) == 0 {
		return goOn, nil
	}
	return goOn, setAuthEntries(data, "mapRoles", kept)
}

// Merge adds the entries that the target's lacks.
func (*awsAuth) Merge(_ context.Context, item *plugins.Item, live map[string]any) (bool, error) {
	changed := false
	from, to := tree.Map(item.Object, "data"), tree.Ensure(live, "data")
	for _, list := range authLists {
		c, err := mergeAuthList(item, from, to, list.field, list.identity)
		if err != nil {
			return false, err
		}
		changed = changed || c
	}
	return changed, nil
}

func mergeAuthList(item *plugins.Item, from, to map[string]any, field, identity string) (bool, error) {
	archived, err := authEntries(from, field)
	if err != nil {
		item.Remark(ReasonMerged, "%s cannot be read (%v) and was left out", field, err)
		return false, nil
	}
	if len(archived) == 0 {
		return false, nil
	}
	there, err := authEntries(to, field)
	if err != nil {
		return false, fmt.Errorf("merge configmaps kube-system/aws-auth: the target's %s cannot be read; repair it first: %w", field, err)
	}
	merged := slices.Clone(there)
	for _, entry := range archived {
		name := identityOf(entry, identity)
		i := slices.IndexFunc(there, func(e any) bool { return identityOf(e, identity) == name })
		switch {
		case i < 0:
			merged = append(merged, entry)
			item.Remark(ReasonMerged, "%s: %s was added", field, name)
		case !reflect.DeepEqual(there[i], entry):
			item.Remark(ReasonMerged, "%s: the target's entry of %s was kept; the archived one differs", field, name)
		}
	}
	if len(merged) == len(there) {
		return false, nil
	}
	return true, setAuthEntries(to, field, merged)
}

func authEntries(data map[string]any, field string) ([]any, error) {
	var entries []any
	if err := yaml.Unmarshal([]byte(tree.Text(data, field)), &entries); err != nil {
		return nil, fmt.Errorf("parse YAML of %s: %w", field, err)
	}
	return entries, nil
}

func setAuthEntries(data map[string]any, field string, entries []any) error {
	if len(entries) == 0 {
		delete(data, field)
		return nil
	}
	text, err := yaml.Marshal(entries)
	if err != nil {
		return fmt.Errorf("write YAML of %s: %w", field, err)
	}
	data[field] = string(text)
	return nil
}

func identityOf(entry any, key string) string {
	if m, ok := entry.(map[string]any); ok {
		return tree.Text(m, key)
	}
	return fmt.Sprint(entry)
}

func isNodeRole(entry any) bool {
	role, ok := entry.(map[string]any)
	if !ok {
		return false
	}
	groups, _ := role["groups"].([]any)
	return slices.Contains(groups, any("system:nodes")) || strings.HasPrefix(tree.Text(role, "username"), "system:node:")
}
