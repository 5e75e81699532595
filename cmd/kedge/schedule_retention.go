package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/server/retention"
)

func (a *app) scheduleRetentionCommand() *cobra.Command {
	var out outputFlag
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "retention [NAME] --dry-run",
		Short: "Say which backups retention keeps now, and why",
		Long: `Say which backups, of a schedule or of all, retention keeps now, which it removes, and why. Nothing is changed: the server removes by itself what need not
be kept, and --dry-run must be given so that nobody takes this for it.

It is computed here from the objects of the server, with the rules that the server follows, in each location by itself.`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("preview retention")
			if err != nil {
				return err
			}
			if !dryRun {
				return usageError(errors.New("preview retention: --dry-run is missing"), "the server removes backups by itself; this command only says which it would")
			}
			return r.previewRetention(cmd.Context(), &out, strings.Join(args, ""))
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be kept and removed")
	a.kube.bind(cmd.Flags())
	return cmd
}

// previewRetention evaluates the rules over the backups of a schedule; of all where the name is "".
func (r *remote) previewRetention(ctx context.Context, out *outputFlag, name string) error {
	schedules, err := r.schedules(ctx, name)
	if err != nil {
		return err
	}
	in := retention.Input{Now: r.app.env.Now(), Policies: map[string]retention.Policy{}, InUse: map[string]string{}}
	want := labels.Everything()
	if name != "" {
		want = labels.SelectorFromSet(labels.Set{v1alpha1.ScheduleLabel: name})
	}
	for i := range schedules {
		in.Policies[schedules[i].Name] = retention.PolicyOf(&schedules[i])
	}
	k, _, err := r.app.cluster(0)
	if err != nil {
		return err
	}
	info, err := k.ClusterInfo(ctx)
	if err != nil {
		return fmt.Errorf("find out which cluster this is: %w", err)
	}
	in.Cluster = info.UID
	backups, err := r.backups(ctx, want, "")
	if err != nil {
		return err
	}
	var restores v1alpha1.RestoreList
	if err := r.list(ctx, &restores); err != nil {
		return fmt.Errorf("list the restores: %w", err)
	}
	for i := range restores.Items {
		if o := &restores.Items[i]; !o.Status.Phase.Final() && o.Status.BackupUID != "" {
			in.InUse[o.Status.BackupUID] = "restore " + o.Name
		}
	}
	return r.app.printDecisions(out, decide(in, backups))
}

// decided is what becomes of a backup, and where it is.
type decided struct {
	retention.Decision
	Location string `json:"location"`
}

// decide evaluates the rules as the server does, over each location by itself. The decisions are in the order of the backups; those that have no
// archive are left out.
func decide(in retention.Input, backups []v1alpha1.Backup) []decided {
	var out []decided
	at := map[string][]int{}
	for i := range backups {
		b := &backups[i]
		if b.Status.ArchiveUID == "" || !b.Status.Phase.Final() {
			continue
		}
		location := locationOf(b)
		at[location] = append(at[location], len(out))
		out = append(out, decided{retention.Decision{Backup: retentionView(b)}, location})
	}
	for _, places := range at {
		one := in
		one.Backups = nil
		for _, i := range places {
			one.Backups = append(one.Backups, out[i].Backup)
		}
		for n, d := range retention.Evaluate(one) {
			out[places[n]].Decision = d
		}
	}
	return out
}

// retentionView is what the rules look at of a Backup object.
func retentionView(b *v1alpha1.Backup) retention.Backup {
	s := &b.Status
	v := retention.Backup{Name: b.Name, UID: s.ArchiveUID, Schedule: b.Labels[v1alpha1.ScheduleLabel], Started: begun(b), Phase: s.Phase, Held: s.Held}
	v.Unreadable = s.Cluster == nil // its commit record could not be read, or there is none
	if s.Cluster != nil {
		v.Cluster = s.Cluster.UID
	}
	if s.CompletionTime != nil {
		v.Completed = s.CompletionTime.Time
	}
	if s.Expiration != nil {
		v.Expires = &s.Expiration.Time
	}
	return v
}

func (a *app) printDecisions(out *outputFlag, decisions []decided) error {
	kept := 0
	table := term.Table{Columns: []term.Column{{Name: "NAME"}, {Name: "LOCATION"}, {Name: "STARTED"}, {Name: "STATUS", Color: phaseColor}, {Name: "DECISION", Color: decisionColor}, {Name: "WHY"}}}
	for i := range decisions {
		d := &decisions[i]
		word := "remove"
		if d.Keep {
			word = "keep"
			kept++
		}
		table.Add(d.Backup.Name, d.Location, d.Backup.Started.UTC().Format(time.RFC3339), string(d.Backup.Phase), word, strings.Join(d.Reasons, "; "))
	}
	if out.structured() {
		if err := a.printStructured(out.format, append([]decided{}, decisions...)); err != nil {
			return err
		}
	} else if err := a.printTable(&table, out.format, "There are no backups."); err != nil {
		return err
	}
	a.ui.Note("%d kept, %d removed. Nothing was changed (--dry-run).", kept, len(decisions)-kept)
	return nil
}

func decisionColor(word string) term.Color {
	if word == "keep" {
		return term.Green
	}
	return term.Red
}
