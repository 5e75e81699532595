package download

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/selection"
)

// Rows calls fn for each row of a backup that a selection takes, in the archive's order; frames that hold none are not read.
func Rows(ctx context.Context, reader *archive.Reader, s v1alpha1.Selection, fn func(row archive.Row) error) error {
	matcher, err := selection.Compile(s)
	if err != nil {
		return fmt.Errorf("select objects: %w", err)
	}
	resources := resourcesOf(reader.Record())
	if unmatched := matcher.Unmatched(resources); len(unmatched) > 0 {
		return fmt.Errorf("select objects: %s: the backup holds no resource %q", unmatched[0].Field, unmatched[0].Pattern)
	}
	return reader.Rows(ctx, framesOf(matcher, resources), func(_ int, row archive.Row) error {
		if matcher.Item(row.Ref, row.Labels) != selection.In {
			return nil
		}
		if matcher.NeedsObject() {
			raw, err := reader.Item(ctx, row.Ref)
			if err != nil {
				return err
			}
			if in, err := matcher.Object(ctx, raw); err != nil || !in {
				return err
			}
		}
		return fn(row)
	})
}

// resourcesOf are the resources of a backup as selection knows them.
func resourcesOf(record *archive.Record) []kube.Resource {
	out := make([]kube.Resource, 0, len(record.APIs))
	for _, api := range record.APIs {
		out = append(out, kube.Resource{
			Group: api.Group, Version: api.Archived, Resource: api.Resource, Kind: api.Kind, Singular: strings.ToLower(api.Kind), Namespaced: api.Namespaced, Preferred: true,
		})
	}
	return out
}

// framesOf tells the frames that may hold what is selected.
func framesOf(matcher *selection.Matcher, resources []kube.Resource) func(*archive.Frame) bool {
	takes := map[string]bool{}
	for _, r := range resources {
		takes[r.GroupResource()] = matcher.Resource(r) == selection.TakeMatching
	}
	namespaces, literal := matcher.LiteralNamespaces()
	return func(f *archive.Frame) bool {
		switch {
		case !takes[plugins.Ref{Group: f.Group, Resource: f.Resource}.GroupResource()]:
			return false
		case !literal, f.Resource == "namespaces" && f.Group == "":
			return true
		}
		return slices.ContainsFunc(namespaces, f.MayHold) || f.MayHold("")
	}
}
