package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins"
)

func (a *app) backupDeleteCommand() *cobra.Command {
	var location string
	var yes, force bool
	cmd := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"remove", "rm"},
		Short:   "Delete backups from a location",
		Long: `Delete backups from a location, for good. A deletion that is cut off is finished by the next one.

A backup that is held is kept unless --force is given, and so is one that cannot be read, for it may be held. One that the bucket retains (object lock) cannot be deleted by anybody before
its date; it is marked, and goes when it may. Snapshots that another cluster keeps (of CSI drivers) are removed there only: elsewhere the deletion is refused before anything is changed, and --force
leaves them to that cluster, and copies of snapshots to regions and accounts that refuse access.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exactArgs("NAME")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("delete backup", err)
			}
			if r != nil {
				return r.deleteBackups(cmd.Context(), location, args, yes, force)
			}
			p, err := a.openPlace(cmd.Context(), c, location)
			if err != nil {
				return err
			}
			if p.object.Spec.ReadOnly {
				return codeError(exitRefused, fmt.Errorf("delete backup: location %s is read-only", p.object.Name), "delete it from a machine where the location is not")
			}
			return a.deleteBackups(cmd.Context(), p, args, yes, force)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "delete also what is held, or cannot be read; leave snapshots that are out of reach")
	bindLocation(cmd.Flags(), &location)
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) deleteBackups(ctx context.Context, p *place, names []string, yes, force bool) error {
	finished, err := a.finishDeletions(ctx, p)
	if err != nil {
		return err
	}
	var entries []archive.Entry
	for _, name := range names {
		e, err := p.location.Find(ctx, name)
		if errors.Is(err, archive.ErrBackupNotFound) && finished[name] {
			continue
		}
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	for _, e := range entries {
		if !yes {
			if err := a.ui.Confirm(deleteQuestion(&e, p, a.env.Now()), e.Name); err != nil {
				return codeError(exitUsage, fmt.Errorf("delete backup %s: %w; nothing was deleted", e.Name, err), "add --yes to delete without a question")
			}
		}
		err := p.location.Delete(ctx, e, archive.DeleteOptions{Force: force, LeaveElsewhere: force, Now: a.env.Now})
		if errors.Is(err, plugins.ErrRetained) {
			return codeError(exitRefused, fmt.Errorf("delete backup %s: %w", e.Name, err), "the deletion is marked in the bucket; delete again after the retention has ended")
		}
		if err != nil {
			return fmt.Errorf("delete backup %s: %w", e.Name, err)
		}
		a.ui.Note("Backup %s is deleted.", e.Name)
	}
	return nil
}

// finishDeletions ends the deletions that were cut off, and gives the names and uids of what is gone thereby. One that cannot be ended keeps nobody from
// deleting other backups.
func (a *app) finishDeletions(ctx context.Context, p *place) (map[string]bool, error) {
	result, err := p.location.ResumeDeletions(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		a.ui.Warn("deletions that were cut off could not all be finished: %v", err)
	}
	for _, e := range result.Elsewhere {
		name, _, _ := strings.Cut(e.ID, "/")
		a.ui.Warn("the deletion of backup %s, which has begun, cannot be finished here: %v", name, e.Err)
	}
	finished := map[string]bool{}
	for _, id := range result.Done {
		name, uid, _ := strings.Cut(id, "/")
		finished[name], finished[uid] = true, true
		a.ui.Note("The deletion of backup %s, which had been cut off, is finished.", name)
	}
	return finished, nil
}

// deleteQuestion says what would be lost.
func deleteQuestion(e *archive.Entry, p *place, now time.Time) string {
	text := fmt.Sprintf("Backup %s (%s) will be deleted from %s.", e.Name, e.UID, p.store)
	if r := e.Record; r != nil {
		text += fmt.Sprintf(" It is %s old and holds %s of cluster %s; it expires: %s.", term.Age(now, r.Started), plural(r.Counts.Items, "object"), orElse(r.Cluster.Name, r.Cluster.UID), expiryText(e, now))
	}
	return text
}
