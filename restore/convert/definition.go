package convert

import (
	"kedge.dev/kedge/internal/crdschema"
	"kedge.dev/kedge/internal/tree"
)

func definitionUp(c *conversion) {
	spec := c.spec()
	if !tree.Has(c.obj, "spec") {
		return
	}
	fillText(spec, "scope", "Namespaced")
	if tree.Empty(spec["versions"]) && tree.Text(spec, "version") != "" {
		spec["versions"] = []any{map[string]any{"name": spec["version"], "served": true, "storage": true}}
	}
	delete(spec, "version")
	topLevelUp(spec)
	conversionUp(spec)
	fill(spec, "preserveUnknownFields", true) // the default of v1beta1
	_, warnings := crdschema.Upgrade(spec)
	c.warnings = append(c.warnings, warnings...)
	if w := crdschema.Approve(c.obj); w != "" {
		c.warnings = append(c.warnings, w)
	}
}

// topLevelUp gives each version the schema, columns and subresources that v1beta1 could say once for all.
func topLevelUp(spec map[string]any) {
	fields := map[string]string{"validation": "schema", "subresources": "subresources", "additionalPrinterColumns": "additionalPrinterColumns"}
	for from, to := range fields {
		if shared := spec[from]; shared != nil {
			tree.Each(spec, "versions", func(version map[string]any) { fill(version, to, tree.Copy(shared)) })
		}
		delete(spec, from)
	}
	tree.Each(spec, "versions", func(version map[string]any) {
		tree.Each(version, "additionalPrinterColumns", func(column map[string]any) { move(column, "JSONPath", "jsonPath") })
	})
}

// conversionUp puts what belongs to the webhook into a field of its own.
func conversionUp(spec map[string]any) {
	conversion := tree.Map(spec, "conversion")
	webhook := map[string]any{}
	if client := conversion["webhookClientConfig"]; client != nil {
		webhook["clientConfig"] = client
	}
	if reviews := conversion["conversionReviewVersions"]; !tree.Empty(reviews) {
		webhook["conversionReviewVersions"] = reviews
	}
	delete(conversion, "webhookClientConfig")
	delete(conversion, "conversionReviewVersions")
	if tree.Text(conversion, "strategy") == "Webhook" {
		fill(webhook, "conversionReviewVersions", []any{"v1beta1"})
		conversion["webhook"] = webhook
	}
}
