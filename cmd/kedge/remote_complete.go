package main

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

// offered hands names to a shell.
func offered(names []string, err error) ([]string, cobra.ShellCompDirective) {
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (r *remote) backupChoices(ctx context.Context, location string) ([]string, error) {
	found, err := r.backups(ctx, labels.Everything(), location)
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].Name + "\t" + term.Age(r.app.env.Now(), begun(&found[i])) + " old"
	}
	return names, err
}

func (r *remote) locationChoices(ctx context.Context) ([]string, error) {
	found, err := r.locations(ctx, "")
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].Name + "\t" + term.Clean(where(&found[i].Spec))
	}
	return names, err
}

func (r *remote) restoreChoices(ctx context.Context) ([]string, error) {
	var list v1alpha1.RestoreList
	err := r.list(ctx, &list)
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name + "\tof " + list.Items[i].Spec.BackupName
	}
	return names, err
}

func (a *app) completeSchedules(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	_, r, err := a.choose()
	if err != nil || r == nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var list v1alpha1.ScheduleList
	err = r.list(ctx, &list)
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name + "\t" + term.Clean(list.Items[i].Spec.Schedule)
	}
	return offered(names, err)
}
