package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/server/retention"
)

func (a *app) scheduleRetentionCommand() *cobra.Command {
	var out outputFlag
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "retention [NAME] --dry-run",
		Short: "Say which backups retention keeps or removes, and why",
		Long: `Say of each backup, of one schedule or of all, whether retention keeps it, with every reason, or removes it. Nothing is changed: the server applies
the rules by itself.`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			const command = "preview retention"
			if !dryRun {
				return usageError(fmt.Errorf("%s: the server applies retention by itself; this command only shows it", command), "add --dry-run")
			}
			r, err := a.scheduler(command)
			if err != nil {
				return err
			}
			return atCommandError(command, r.previewRetention(cmd.Context(), &out, strings.Join(args, "")))
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what retention does, and change nothing")
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	a.kube.bind(cmd.Flags())
	return cmd
}

// atCommandError is atCommand where there may be no error.
func atCommandError(command string, err error) error {
	if err == nil {
		return nil
	}
	return atCommand(command, err)
}

// previewRetention decides about the backups that the server shows; "" is all.
func (r *remote) previewRetention(ctx context.Context, out *outputFlag, schedule string) error {
	var schedules v1alpha1.ScheduleList
	var backups v1alpha1.BackupList
	if err := errors.Join(r.list(ctx, &schedules), r.list(ctx, &backups)); err != nil {
		return err
	}
	k, _, err := r.app.cluster(1)
	if err != nil {
		return err
	}
	cluster, err := k.ClusterUID(ctx)
	if err != nil {
		return err
	}
	decisions := []retention.Located{}
	table := &term.Table{Columns: []term.Column{{Name: "LOCATION"}, {Name: "BACKUP"}, {Name: "SCHEDULE"}, {Name: "AGE"}, {Name: "STAYS"}, {Name: "REASONS"}}}
	now := r.app.env.Now()
	for _, d := range retention.PreviewObjects(backups.Items, schedules.Items, cluster, now) {
		if schedule != "" && d.Backup.Schedule != schedule {
			continue
		}
		decisions = append(decisions, d)
		stays := "no"
		if d.Keep {
			stays = "yes"
		}
		table.Add(d.Location, d.Backup.Name, d.Backup.Schedule, term.Age(now, d.Backup.Started), stays, strings.Join(d.Reasons, "; "))
	}
	if out.structured() {
		return r.app.printStructured(out.format, decisions)
	}
	return r.app.printTable(table, out.format, "No backups to decide about in namespace "+r.namespace+".")
}
