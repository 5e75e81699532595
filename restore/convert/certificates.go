package convert

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kedge.dev/kedge/internal/tree"
)

// parseGroup is the group of an apiVersion; "" for the core one and for what is none.
func parseGroup(apiVersion string) string {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return ""
	}
	return gv.Group
}

// legacySigner is the signer that v1 no longer knows.
const legacySigner = "kubernetes.io/legacy-unknown"

func signingRequestUp(c *conversion) {
	spec := c.spec()
	switch tree.Text(spec, "signerName") {
	case "":
		c.refuse("it names no signer, which v1 asks for; request the certificate again from a signer of the target")
		return
	case legacySigner:
		c.refuse("its signer %s does not exist in v1; request the certificate again from a signer of the target", legacySigner)
		return
	}
	if tree.Empty(spec["usages"]) {
		spec["usages"] = []any{"digital signature", "key encipherment"}
	}
	tree.Each(tree.Map(c.obj, "status"), "conditions", func(condition map[string]any) { fillText(condition, "status", "True") })
}
