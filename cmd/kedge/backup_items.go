package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins/selection"
)

func (a *app) backupItemsCommand() *cobra.Command {
	var out outputFlag
	var location string
	var s v1alpha1.Selection
	cmd := &cobra.Command{
		Use:   "items NAME",
		Short: "List the objects that a backup holds",
		Long: `List the objects that a backup holds, all or those that flags select. Only the index of what may match is read from the bucket.

With -o json each object is one line: its reference, kind, uid, labels, owners, size and SHA-256.`,
		Example: `  kedge backup items nightly --include-namespaces shop
  kedge backup items nightly --include-resources secrets -o name`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("list the items of a backup", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "list the items of a backup", readFlags...); err != nil {
					return err
				}
				return r.backupItems(cmd.Context(), &out, location, args[0], s)
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			reader, err := a.read(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.listItems(cmd.Context(), &out, reader, s)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatName)
	bindLocation(cmd.Flags(), &location)
	bindSelection(&binder{flags: cmd.Flags(), group: groupSelection}, &s)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// itemColumns is the width of the table's columns but the last; the list is streamed, so it cannot be measured first.
const itemColumns = "%-42s %-24s %s%s\n"

func (a *app) listItems(ctx context.Context, out *outputFlag, reader *archive.Reader, s v1alpha1.Selection) error {
	p := a.newItemPrinter(out)
	if err := selectRows(ctx, reader, s, func(_ int, row archive.Row) error { return p.row(row) }); err != nil {
		return err
	}
	return p.end()
}

// itemPrinter prints rows as they come.
type itemPrinter struct {
	app     *app
	format  string
	w       *bufio.Writer
	encoder *json.Encoder
	count   int
}

func (a *app) newItemPrinter(out *outputFlag) *itemPrinter {
	w := bufio.NewWriter(a.ui.Out)
	return &itemPrinter{app: a, format: out.format, w: w, encoder: json.NewEncoder(w)}
}

func (p *itemPrinter) row(row archive.Row) error {
	ui := p.app.ui
	if p.count == 0 && (p.format == formatTable || p.format == formatWide) {
		fmt.Fprint(p.w, ui.Style(ui.ColorOut, term.Bold, fmt.Sprintf(itemColumns, "RESOURCE", "NAMESPACE", "NAME", "")))
	}
	p.count++
	switch p.format {
	case formatJSON:
		return outputError(p.encoder.Encode(row))
	case formatName:
		_, err := fmt.Fprintln(p.w, term.Clean(row.String()))
		return outputError(err)
	}
	more := ""
	if p.format == formatWide {
		more = fmt.Sprintf("   %s   %s   %s", row.APIVersion(), term.Bytes(row.Size), row.UID)
	}
	_, err := fmt.Fprintf(p.w, itemColumns, term.Clean(row.GroupResource()), term.Clean(row.Namespace), term.Clean(row.Name), term.Clean(more))
	return outputError(err)
}

// end prints what is left, and how many rows there were.
func (p *itemPrinter) end() error {
	if err := p.w.Flush(); err != nil {
		return outputError(err)
	}
	p.app.ui.Note("%s", plural(p.count, "object"))
	return nil
}

// selectRows calls fn for each row that a selection takes; frames that hold none are not read.
func selectRows(ctx context.Context, reader *archive.Reader, s v1alpha1.Selection, fn func(frame int, row archive.Row) error) error {
	matcher, err := selection.Compile(s)
	if err != nil {
		return usageError(fmt.Errorf("select objects: %w", err), "")
	}
	record := reader.Record()
	resources := make([]kube.Resource, 0, len(record.APIs))
	for _, api := range record.APIs {
		resources = append(resources, archivedResource(api))
	}
	if unmatched := matcher.Unmatched(resources); len(unmatched) > 0 {
		return codeError(exitNotFound, fmt.Errorf("select objects: %s: the backup holds no resource %q", unmatched[0].Field, unmatched[0].Pattern), "\"kedge backup describe\" lists the resources that it holds")
	}
	takes := map[string]bool{}
	for _, r := range resources {
		takes[r.GroupResource()] = matcher.Resource(r) == selection.TakeMatching
	}
	namespaces, literal := matcher.LiteralNamespaces()
	wanted := func(f *archive.Frame) bool {
		if !takes[groupResource(f.Resource, f.Group)] {
			return false
		}
		if !literal || f.Resource == "namespaces" && f.Group == "" {
			return true
		}
		if slices.ContainsFunc(namespaces, f.MayHold) {
			return true
		}
		return f.MayHold("")
	}
	return reader.Rows(ctx, wanted, func(frame int, row archive.Row) error {
		if matcher.Item(row.Ref, row.Labels) != selection.In {
			return nil
		}
		if matcher.NeedsObject() {
			if in, err := matchObject(ctx, reader, matcher, row); err != nil || !in {
				return err
			}
		}
		return fn(frame, row)
	})
}

func matchObject(ctx context.Context, reader *archive.Reader, matcher *selection.Matcher, row archive.Row) (bool, error) {
	raw, err := reader.Item(ctx, row.Ref)
	if err != nil {
		return false, err
	}
	return matcher.Object(ctx, raw)
}

// archivedResource is an API of a backup as selection knows APIs.
func archivedResource(api archive.API) kube.Resource {
	return kube.Resource{Group: api.Group, Version: api.Archived, Resource: api.Resource, Kind: api.Kind, Singular: strings.ToLower(api.Kind), Namespaced: api.Namespaced, Preferred: true}
}

func groupResource(resource, group string) string {
	if group == "" {
		return resource
	}
	return resource + "." + group
}
