package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/deploy/install"
)

func (a *app) uninstallCommand() *cobra.Command {
	var f installFlags
	var yes, kinds bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the server from a cluster; backups in buckets stay",
		Long: `Remove the server from a cluster. From then on no schedule runs and no retention deletes.

What stays: backups in their buckets, always; the namespace; the kinds and all their objects (locations, schedules, backups, restores), so
that a later install goes on with them. --delete-crds deletes the kinds, and with them their objects in the whole cluster. Backups are
found again in their buckets by any server, and by commands with --local.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.openInstaller(cmd.Context(), &f)
			if err != nil {
				return err
			}
			return a.uninstall(cmd.Context(), i, yes, kinds)
		},
	}
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", defaultNamespace, "`namespace` of the server")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&kinds, "delete-crds", false, "delete Kedge's kinds too, with all their objects in the whole cluster")
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) uninstall(ctx context.Context, i *install.Installer, yes, kinds bool) error {
	if err := i.CheckOwner(ctx); err != nil {
		return err
	}
	_, _, err := i.Saved(ctx)
	switch {
	case errors.Is(err, install.ErrNotInstalled) && kinds: // what an uninstall has left
	case err != nil:
		return err
	}
	question := fmt.Sprintf("The server in namespace %s will be removed: no schedule will run.", i.Namespace)
	if kinds {
		counts, err := i.Objects(ctx)
		if err != nil {
			return err
		}
		question += " All objects of Kedge's kinds will be deleted: " + listCounts(counts) + "."
	}
	if !yes {
		if err := a.ui.Confirm(question+" Backups in buckets stay.", i.Namespace); err != nil {
			return codeError(exitUsage, fmt.Errorf("uninstall: %w; nothing was removed", err), "add --yes to remove it without a question")
		}
	}
	if err := i.Remove(ctx); err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	stays := fmt.Sprintf("Namespace %s, Kedge's kinds and their objects stay", i.Namespace)
	if kinds {
		if err := i.RemoveKinds(ctx); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
		stays = fmt.Sprintf("Namespace %s stays", i.Namespace)
	}
	a.ui.Note("The server is removed. %s; so do all backups in their buckets.", stays)
	return nil
}

// listCounts writes how many objects there are: "3 backups, 1 schedules".
func listCounts(counts map[string]int) string {
	if len(counts) == 0 {
		return "there are none"
	}
	var parts []string
	for resource, n := range counts {
		parts = append(parts, plural(n, strings.TrimSuffix(resource, "s")))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
