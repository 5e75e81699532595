package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

func (a *app) restoreGetCommand() *cobra.Command {
	var out outputFlag
	var location string
	cmd := &cobra.Command{
		Use:     "get [NAME]",
		Aliases: []string{"list", "ls"},
		Short:   "List restores",
		Long: `List the restores that the server knows; or with --local those of this machine, and those whose reports are in the location, the youngest last. Reports are encrypted: without a
key that opens the location, only restores of this machine are listed.`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("get restores", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "get restores", "age-identity-file"); err != nil {
					return err
				}
				return r.getRestores(cmd.Context(), &out, location, args)
			}
			restores, err := a.knownRestores(cmd.Context(), c, location)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				restores = slices.DeleteFunc(restores, func(k knownRestore) bool { return k.object.Name != args[0] })
				if len(restores) == 0 {
					return restoreNotFound(args[0])
				}
			}
			return a.printRestores(&out, restores, len(args) == 1)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML, formatName)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// knownRestore is a restore and where it is known from.
type knownRestore struct {
	object *v1alpha1.Restore
	from   string // "this machine" or the location's name
}

// knownRestores gathers the restores of this machine and of the location, by age.
func (a *app) knownRestores(ctx context.Context, c *config, location string) ([]knownRestore, error) {
	var known []knownRestore
	seen := map[string]bool{}
	names, err := a.restoreNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		state, err := a.findRestoreState(name)
		if err != nil {
			return nil, err
		}
		object, err := state.object()
		if err != nil {
			a.ui.Warn("restore %s: %s", name, err)
			continue
		}
		seen[string(object.UID)] = true
		known = append(known, knownRestore{object, "this machine"})
	}
	remote, err := a.locationReports(ctx, c, location, "")
	if err != nil {
		return nil, err
	}
	for _, r := range remote {
		if !seen[r.report.UID] {
			known = append(known, knownRestore{r.object(), r.location})
		}
	}
	slices.SortStableFunc(known, func(x, y knownRestore) int {
		return cmp.Or(x.object.CreationTimestamp.Compare(y.object.CreationTimestamp.Time), cmp.Compare(x.object.Name, y.object.Name))
	})
	return known, nil
}

func (a *app) printRestores(out *outputFlag, restores []knownRestore, single bool) error {
	if out.structured() {
		list := v1alpha1.RestoreList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RestoreList"}, Items: []v1alpha1.Restore{}}
		for _, r := range restores {
			list.Items = append(list.Items, *r.object)
		}
		if single && len(list.Items) == 1 {
			return a.printStructured(out.format, list.Items[0])
		}
		return a.printStructured(out.format, list)
	}
	now := a.env.Now()
	table := term.Table{Columns: []term.Column{
		{Name: "NAME"}, {Name: "STATUS", Color: phaseColor}, {Name: "BACKUP"}, {Name: "PLANNED", Right: true}, {Name: "CREATED", Right: true}, {Name: "FAILED", Right: true},
		{Name: "AGE"}, {Name: "TOOK"}, {Name: "TARGET"}, {Name: "KNOWN FROM", Wide: true}, {Name: "UID", Wide: true},
	}}
	for _, r := range restores {
		o := r.object
		if out.format == formatName {
			a.printf("%s\n", o.Name)
			continue
		}
		target, took := "", ""
		if t := o.Status.Target; t != nil {
			target = orElse(t.Name, t.UID)
		}
		if s, c := o.Status.StartTime, o.Status.CompletionTime; s != nil && c != nil {
			took = term.Duration(c.Sub(s.Time))
		}
		n := o.Status.Counts
		table.Add(o.Name, string(o.Status.Phase), o.Spec.BackupName, term.Count(int64(n.Planned)), term.Count(int64(n.Created)), term.Count(int64(n.Failed)),
			ageText(now, o.Status.StartTime), took, target, r.from, string(o.UID))
	}
	if out.format == formatName {
		return nil
	}
	return a.printTable(&table, out.format, "No restores.")
}

func ageText(now time.Time, t *metav1.Time) string {
	if t == nil {
		return "<unknown>"
	}
	return term.Age(now, t.Time)
}
