package actions

import (
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

const tokenType = "kubernetes.io/service-account-token" // #nosec G101 -- the name of a type, not a credential

// secret drops tokens of service accounts: another cluster's tokens open nothing. One that the old cluster made by itself
// is left out; one that a user asked for is restored empty, and the target fills it.
func secret() plugins.Action {
	return &rule{
		name:    "Secret",
		matches: on("secrets", tokenType),
		apply: func(item *plugins.Item) plugins.Decision {
			if tree.Text(item.Object, "type") != tokenType {
				return goOn
			}
			name := tree.Text(tree.Map(item.Object, "metadata"), "name")
			account, _ := tree.Annotation(item.Object, "kubernetes.io/service-account.name")
			if strings.HasPrefix(name, account+"-token-") && tokenSecret.MatchString(name) {
				return skip(ReasonRemade, "it is a token that the old cluster made for service account %s; the target makes its own", account)
			}
			// With the old uid the token controller would delete the secret as an orphan.
			tree.DropAnnotations(item.Object, "kubernetes.io/service-account.uid")
			tree.DropLabels(item.Object, "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since")
			data := tree.Map(item.Object, "data")
			tree.Drop(data, "token", "ca.crt", "namespace")
			if len(data) == 0 {
				delete(item.Object, "data")
			}
			return goOn
		},
	}
}
