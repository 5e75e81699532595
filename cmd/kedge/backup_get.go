package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

func (a *app) backupGetCommand() *cobra.Command {
	var out outputFlag
	var location, selector string
	cmd := &cobra.Command{
		Use:     "get [NAME...]",
		Aliases: []string{"list", "ls"},
		Short:   "List backups",
		Long: `List the backups that the server knows, or with --local those of a location, the youngest last. Damaged ones are listed with what is
wrong with them.

No key is needed for this.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("get backups", err)
			}
			want, err := labels.Parse(selector)
			if err != nil {
				return usageError(fmt.Errorf("get backups: --selector: %q is not a label selector: %w", selector, err), "")
			}
			if r != nil {
				return r.getBackups(cmd.Context(), &out, location, args, want)
			}
			p, err := a.openPlace(cmd.Context(), c, location)
			if err != nil {
				return err
			}
			entries, err := a.listBackups(cmd.Context(), p, args, want)
			if err != nil {
				return err
			}
			return a.printBackups(&out, p, entries, len(args) == 1)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML, formatName)
	bindLocation(cmd.Flags(), &location)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "label `selector` over backups")
	a.kube.bind(cmd.Flags())
	return cmd
}

// listBackups gives the named backups, or all that match, by age.
func (a *app) listBackups(ctx context.Context, p *place, names []string, want labels.Selector) ([]archive.Entry, error) {
	var entries []archive.Entry
	for _, name := range names {
		e, err := p.location.Find(ctx, name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if len(names) > 0 {
		return entries, nil
	}
	err := p.location.Backups(ctx, func(e archive.Entry) error {
		var set labels.Set
		if e.Record != nil {
			set = e.Record.Labels
		}
		if want.Matches(set) {
			entries = append(entries, e)
		}
		return nil
	})
	slices.SortStableFunc(entries, func(x, y archive.Entry) int {
		return cmp.Or(started(&x).Compare(started(&y)), cmp.Compare(x.Name, y.Name), cmp.Compare(x.UID, y.UID))
	})
	return entries, err
}

func started(e *archive.Entry) time.Time {
	if e.Record == nil {
		return time.Time{}
	}
	return e.Record.Started
}

func (a *app) printBackups(out *outputFlag, p *place, entries []archive.Entry, single bool) error {
	if out.structured() {
		list := v1alpha1.BackupList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BackupList"}, Items: []v1alpha1.Backup{}}
		for i := range entries {
			list.Items = append(list.Items, *backupObject(&entries[i], p.object.Name))
		}
		if single && len(list.Items) == 1 {
			return a.printStructured(out.format, list.Items[0])
		}
		return a.printStructured(out.format, list)
	}
	if out.format == formatName {
		for _, e := range entries {
			a.printf("%s\n", e.Name)
		}
		return nil
	}
	now := a.env.Now()
	table := term.Table{Columns: []term.Column{
		{Name: "NAME"}, {Name: "STATUS", Color: phaseColor}, {Name: "OBJECTS", Right: true}, {Name: "ERRORS", Right: true}, {Name: "WARNINGS", Right: true}, {Name: "SIZE", Right: true},
		{Name: "AGE"}, {Name: "EXPIRES"}, {Name: "CLUSTER"}, {Name: "VOLUMES", Right: true, Wide: true}, {Name: "VERSION", Wide: true}, {Name: "SIGNED", Wide: true}, {Name: "UID", Wide: true},
	}}
	for i := range entries {
		e := &entries[i]
		b := backupObject(e, p.object.Name)
		if e.Record == nil {
			table.Add(e.Name, "Damaged", "", "", "", "", "<unknown>", "", b.Status.Message, "", "", "", e.UID)
			continue
		}
		signed := "no"
		if b.Status.Signed {
			signed = "yes"
		}
		status := string(b.Status.Phase)
		if e.Deleting {
			status = "Deleting"
		}
		table.Add(e.Name, status, term.Count(int64(b.Status.Counts.Items)), term.Count(int64(b.Status.Counts.Errors)), term.Count(int64(b.Status.Counts.Warnings)),
			term.Bytes(b.Status.StoredBytes), term.Age(now, e.Record.Started), expiryText(e, now), orElse(e.Record.Cluster.Name, e.Record.Cluster.UID), volumesText(b.Status.Counts), e.Record.Cluster.Version, signed, e.UID)
	}
	return a.printTable(&table, out.format, "No backups in location "+p.object.Name+".")
}
