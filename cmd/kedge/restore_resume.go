package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/restore"
)

func (a *app) restoreResumeCommand() *cobra.Command {
	var out outputFlag
	var concurrency int
	cmd := &cobra.Command{
		Use:   "resume NAME",
		Short: "Go on with a restore that was cancelled, killed or partially failed",
		Long: `Go on with a restore of this machine that was cancelled or killed, where it was. What is in the cluster already is not made twice;
what failed is tried again.

A server goes on with its restores by itself; for those nothing is to be resumed.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("resume restore", err)
			}
			if r != nil {
				return r.resumeRestore(cmd.Context(), args[0])
			}
			return a.resumeRestore(cmd.Context(), c, args[0], concurrency, &out)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML, formatName)
	cmd.Flags().IntVar(&concurrency, "concurrency", 0, "most requests to the API server at once (default: it adapts)")
	a.keys.bindIdentities(cmd.Flags())
	cmd.Flags().StringArrayVar(&a.keys.trustedFiles, "trusted-key-file", nil, "`file` with an Ed25519 public key (PEM) whose signatures are accepted, beside the location's (repeatable)")
	annotate(cmd.Flags(), groupKeys, "trusted-key-file")
	bindMovers(cmd.Flags(), &a.movers)
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) resumeRestore(ctx context.Context, c *config, name string, concurrency int, out *outputFlag) error {
	state, err := a.findRestoreState(name)
	if err != nil {
		return err
	}
	object, err := state.object()
	if err != nil {
		return err
	}
	start, err := journalStart(ctx, state)
	if err != nil {
		return fmt.Errorf("resume restore %s: %w", name, err)
	}
	if start == nil { // killed before its first line: nothing was written to the target
		start = &restore.Start{Name: object.Name, UID: string(object.UID), Spec: object.Spec}
	}
	spec := start.Spec
	spec.StorageLocation = object.Spec.StorageLocation
	if start.BackupUID != "" {
		spec.BackupName = start.BackupUID
	}
	a.keys.require = spec.RequireSignature
	run, err := a.openRestore(ctx, c, spec, concurrency)
	if err != nil {
		return err
	}
	plan, err := run.engine.Plan(ctx, restore.Request{Name: start.Name, UID: start.UID, Spec: start.Spec})
	if err != nil {
		return err
	}
	return a.runRestore(ctx, run, plan, state, out)
}

// journalStart reads the first line of a restore's journal; nil where there is none.
func journalStart(ctx context.Context, state *restoreState) (start *restore.Start, err error) {
	journal, err := restore.OpenFileJournal(state.path(stateJournal))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	return restore.ReadStart(ctx, journal)
}
