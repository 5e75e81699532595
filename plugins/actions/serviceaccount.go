package actions

import (
	"context"
	"regexp"
	"slices"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// generated is a pull secret that OpenShift makes for each service account.
var generated = regexp.MustCompile(`^.+-dockercfg-[bcdfghjklmnpqrstvwxz2456789]{5}$`)

// serviceAccount drops references to secrets that are made anew. The account "default", which every new namespace gets
// at once, is merged into: the target's would else keep the archived one's pull secrets and annotations out.
type serviceAccount struct {
	policy v1alpha1.ExistingResourcePolicy
}

func (*serviceAccount) Name() string { return "ServiceAccount" }

func (*serviceAccount) AppliesTo() []plugins.Match {
	return on("serviceaccounts", `"secrets"`, `"imagePullSecrets"`)
}

func (*serviceAccount) Apply(_ context.Context, item *plugins.Item) (plugins.Decision, error) {
	tree.Keep(item.Object, "secrets", func(ref map[string]any) bool {
		name := tree.Text(ref, "name")
		return !tokenSecret.MatchString(name) && !generated.MatchString(name)
	})
	tree.Keep(item.Object, "imagePullSecrets", func(ref map[string]any) bool { return !generated.MatchString(tree.Text(ref, "name")) })
	return goOn, nil
}

// Merges says that the account "default" is merged, unless existing objects are updated as a whole.
func (a *serviceAccount) Merges(ref plugins.Ref) bool {
	return ref.Name == "default" && a.policy != v1alpha1.PolicyUpdate
}

// Merge adds secrets, pull secrets, labels and annotations that live lacks.
func (*serviceAccount) Merge(_ context.Context, item *plugins.Item, live map[string]any) (bool, error) {
	changed := false
	for _, key := range []string{"secrets", "imagePullSecrets"} {
		changed = addNamed(live, item.Object, key) || changed
	}
	for _, key := range []string{"labels", "annotations"} {
		for k, v := range tree.In(item.Object, "metadata", key) {
			to := tree.Ensure(tree.Ensure(live, "metadata"), key)
			switch old, ok := to[k]; {
			case !ok:
				to[k] = v
				changed = true
			case old != v && key == "annotations":
				item.Remark(ReasonMerged, "annotation %s of the target's service account was kept; the archived one differs", k)
			}
		}
	}
	if v, ok := item.Object["automountServiceAccountToken"]; ok && live["automountServiceAccountToken"] == nil {
		live["automountServiceAccountToken"] = v
		changed = true
	}
	return changed, nil
}

// addNamed adds entries of a list whose names are not there yet.
func addNamed(to, from map[string]any, key string) (changed bool) {
	var names []string
	tree.Each(to, key, func(e map[string]any) { names = append(names, tree.Text(e, "name")) })
	tree.Each(from, key, func(e map[string]any) {
		if slices.Contains(names, tree.Text(e, "name")) {
			return
		}
		list, _ := to[key].([]any)
		to[key] = append(list, tree.Copy(e))
		changed = true
	})
	return changed
}
