package convert

import (
	"math"
	"strconv"

	"kedge.dev/kedge/internal/tree"
)

// templateGenerationAnnotation is where apps/v1 keeps what extensions/v1beta1 called spec.templateGeneration.
const templateGenerationAnnotation = "deprecated.daemonset.template.generation"

func deploymentFromExtensions(c *conversion) {
	selectByTemplate(c)
	dropRollback(c)
	spec := c.spec()
	strategy := tree.Ensure(spec, "strategy")
	fillText(strategy, "type", "RollingUpdate")
	if tree.Text(strategy, "type") == "RollingUpdate" || tree.Has(strategy, "rollingUpdate") {
		rolling := tree.Ensure(strategy, "rollingUpdate")
		fill(rolling, "maxUnavailable", int64(1))
		fill(rolling, "maxSurge", int64(1))
	}
	// "No limit" and "no deadline" were the old defaults; this is how the API servers wrote them.
	fill(spec, "progressDeadlineSeconds", int64(math.MaxInt32))
	fill(spec, "revisionHistoryLimit", int64(math.MaxInt32))
}

func deploymentFromAppsBeta1(c *conversion) {
	selectByTemplate(c)
	dropRollback(c)
	fill(c.spec(), "revisionHistoryLimit", int64(2))
}

func dropRollback(c *conversion) {
	spec := c.spec()
	if spec["rollbackTo"] != nil {
		c.warn("spec.rollbackTo was dropped: a rollback that was under way is not repeated")
	}
	delete(spec, "rollbackTo")
}

func daemonSetFromExtensions(c *conversion) {
	selectByTemplate(c)
	spec := c.spec()
	fillText(tree.Ensure(spec, "updateStrategy"), "type", "OnDelete")
	generation, _ := spec["templateGeneration"].(int64)
	tree.SetAnnotation(c.obj, templateGenerationAnnotation, strconv.FormatInt(generation, 10))
	delete(spec, "templateGeneration")
}

func replicaSetFromExtensions(c *conversion) { selectByTemplate(c) }

func statefulSetFromAppsBeta1(c *conversion) {
	selectByTemplate(c)
	fillText(tree.Ensure(c.spec(), "updateStrategy"), "type", "OnDelete")
}

// selectByTemplate writes out the defaults that versions before apps/v1beta2 took from the pod template's labels: the
// selector, which later versions ask for, and the object's own labels.
func selectByTemplate(c *conversion) {
	spec := c.spec()
	meta := tree.Map(tree.Map(spec, "template"), "metadata")
	if !tree.Has(meta, "labels") {
		return
	}
	labels := tree.Map(meta, "labels")
	if spec["selector"] == nil {
		spec["selector"] = map[string]any{"matchLabels": tree.Copy(labels)}
	}
	if meta := tree.Ensure(c.obj, "metadata"); tree.Empty(meta["labels"]) {
		meta["labels"] = tree.Copy(labels)
	}
}
