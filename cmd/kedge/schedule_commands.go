package main

import (
	"github.com/spf13/cobra"
)

func (a *app) scheduleGetCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "get [NAME]",
		Aliases: []string{"list", "ls"},
		Short:   "List schedules, with their last and next runs",
		Args:    argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("get schedules")
			if err != nil {
				return err
			}
			return r.getSchedules(cmd.Context(), &out, args)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML, formatName)
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) scheduleDescribeCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Say everything about a schedule: what it does, and whether it is well",
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("describe schedule")
			if err != nil {
				return err
			}
			return r.describeSchedule(cmd.Context(), &out, args[0])
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) schedulePauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Stop the runs of a schedule",
		Long:  `Stop the runs of a schedule. Times that pass while it is paused are not caught up. "kedge schedule run" works all the same.`,
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("pause schedule")
			if err != nil {
				return err
			}
			return r.pauseSchedule(cmd.Context(), args[0], true)
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) scheduleUnpauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "unpause NAME",
		Aliases: []string{"resume"},
		Short:   "Let a paused schedule run again",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("unpause schedule")
			if err != nil {
				return err
			}
			return r.pauseSchedule(cmd.Context(), args[0], false)
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) scheduleRunCommand() *cobra.Command {
	var out outputFlag
	var wait bool
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Have a schedule make a backup now",
		Long: `Have a schedule make a backup now, paused or not. The backup is one of the schedule's: its rules say how long it is kept.

With --wait the command follows the backup to its end, with the exit codes of "kedge backup create".`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("run schedule")
			if err != nil {
				return err
			}
			return r.runSchedule(cmd.Context(), &out, args[0], wait)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML, formatName)
	cmd.Flags().BoolVar(&wait, "wait", false, "follow the backup to its end; -o prints it")
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) scheduleDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"remove", "rm"},
		Short:   "Delete a schedule; the backups that it made stay",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("delete schedule")
			if err != nil {
				return err
			}
			return r.deleteSchedule(cmd.Context(), args[0])
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}
