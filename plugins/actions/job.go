package actions

import (
	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// jobLabels tie a Job to its pods; the API server writes them from the new Job's uid and name.
var jobLabels = []string{"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"}

// job drops selector and labels that carry the old Job's uid, unless the user manages the selector. A Job that has ended
// is left out: it would run again.
func job() plugins.Action {
	return &rule{
		name:    "Job",
		matches: on("jobs.batch"),
		apply: func(item *plugins.Item) plugins.Decision {
			if how := ended(tree.Map(item.Object, "status")); how != "" {
				return skip(ReasonFinished, "the Job had ended (%s) and would run again", how)
			}
			tree.DropAnnotations(item.Object, "batch.kubernetes.io/job-tracking")
			spec := tree.Map(item.Object, "spec")
			if spec["manualSelector"] == true {
				return goOn
			}
			delete(spec, "selector")
			tree.DropLabels(tree.Map(spec, "template"), jobLabels...)
			tree.DropLabels(item.Object, jobLabels...)
			return goOn
		},
	}
}

// ended is the condition that ended a Job, or "".
func ended(status map[string]any) (how string) {
	tree.Each(status, "conditions", func(condition map[string]any) {
		kind := tree.Text(condition, "type")
		if tree.Text(condition, "status") == "True" && (kind == "Complete" || kind == "Failed") {
			how = kind
		}
	})
	return how
}
