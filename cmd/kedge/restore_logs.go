package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) restoreLogsCommand() *cobra.Command {
	var location string
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "logs NAME",
		Aliases: []string{"log"},
		Short:   "Print the log of a restore",
		Long:    `Print the log of a restore: through the server, or with --local of this machine, or the report's lines where only the location knows the restore.`,
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("print the log", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "print the log", "age-identity-file"); err != nil {
					return err
				}
				return r.restoreLogs(cmd.Context(), args[0], out.format)
			}
			return a.restoreLogs(cmd.Context(), c, location, args[0], out.format)
		},
	}
	out.bind(cmd.Flags(), formatText, formatJSON)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) restoreLogs(ctx context.Context, c *config, location, name, format string) error {
	w := a.logWriter(format)
	state, err := a.findRestoreState(name)
	if errors.Is(err, errNoState) {
		_, report, err := a.findReport(ctx, c, location, name)
		if err != nil {
			return err
		}
		for _, e := range report.Entries {
			a.printf("%s\n", entryText(e))
		}
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.Open(state.path(stateLog))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("print the log: %w", err)
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close(), w.Close())
}
