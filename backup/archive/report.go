package archive

import "kedge.dev/kedge/plugins"

// Remark is one thing that a backup has to say about an object or a resource.
type Remark struct {
	// Ref names the object; nil where the remark is about a whole resource.
	Ref *plugins.Ref `json:"ref,omitempty"`
	// Resource is the resource that the remark is about: "pods", "deployments.apps".
	Resource string `json:"resource,omitempty"`
	// Reason is a code in CamelCase that programs may test.
	Reason string `json:"reason"`
	// Message is one sentence for people.
	Message string `json:"message"`
}

// Report is what became of everything that is not simply in the archive. It is kept encrypted beside the items.
type Report struct {
	Errors   []Remark `json:"errors,omitempty"`
	Warnings []Remark `json:"warnings,omitempty"`
	Skipped  []Remark `json:"skipped,omitempty"`
	// Notes are facts about the whole: how the revision was pinned, what was listed apart.
	Notes []string `json:"notes,omitempty"`
}
