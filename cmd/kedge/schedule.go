package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins/hooks"
	"kedge.dev/kedge/plugins/selection"
)

func (a *app) scheduleCommand() *cobra.Command {
	cmd := group("schedule", "Have the server make backups by the clock", `A schedule has the server make backups by the clock, and says which of them are kept.

Schedules need a server ("kedge install"); with --local, use cron and "kedge backup create".`,
		a.scheduleCreateCommand(),
		a.scheduleGetCommand(),
		a.scheduleDescribeCommand(),
		a.schedulePauseCommand(),
		a.scheduleUnpauseCommand(),
		a.scheduleRunCommand(),
		a.scheduleRetentionCommand(),
		a.scheduleDeleteCommand(),
	)
	cmd.Aliases = []string{"schedules"}
	return cmd
}

// scheduler is choose for commands that only a server can follow.
func (a *app) scheduler(command string) (*remote, error) {
	_, r, err := a.choose()
	if err != nil {
		return nil, atCommand(command, err)
	}
	if r == nil {
		return nil, usageError(fmt.Errorf("%s: schedules need a server, and --local is set", command), "leave --local away (--local=false, where the configuration sets it), or run \"kedge backup create\" from cron")
	}
	return r, nil
}

// scheduleFlags are what "schedule create" takes; all but the file are bound to the API's spec.
type scheduleFlags struct {
	object    v1alpha1.Schedule
	retention v1alpha1.RetentionPolicy
	binder    *binder
	file      string
	out       outputFlag
}

func (a *app) scheduleCreateCommand() *cobra.Command {
	var f scheduleFlags
	cmd := &cobra.Command{
		Use:   `create NAME --schedule "CRON"`,
		Short: "Make a schedule",
		Long: `Make a schedule: when backups are made, what they hold, and which are kept.

A backup is kept while one of the --keep rules keeps it, its --ttl has not ended, it is held, or it is the newest one that can be restored.
Without rules and --ttl every backup is kept until it is deleted.`,
		Example: `  # every night at one in Berlin; a week of days, a month of weeks
  kedge schedule create nightly --schedule "0 1 * * *" --timezone Europe/Berlin --keep-daily 7 --keep-weekly 4

  # two namespaces, every six hours, for three days
  kedge schedule create shop --schedule "@every 6h" --include-namespaces shop,payments --ttl 3d`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.scheduler("create schedule")
			if err != nil {
				return err
			}
			if len(args) == 1 {
				f.object.Name = args[0]
			}
			return r.createSchedule(cmd.Context(), args, &f)
		},
	}
	flags := cmd.Flags()
	f.out.bind(flags, formatTable, formatJSON, formatYAML, formatName)
	f.bind(cmd)
	flags.StringVarP(&f.file, "from-file", "f", "", "`file` with a Schedule (YAML or JSON; - is stdin); flags are laid over it")
	a.kube.bind(flags)
	return cmd
}

// bind binds the flags that are fields of the spec.
func (f *scheduleFlags) bind(cmd *cobra.Command) {
	s := &f.object.Spec
	b := &binder{flags: cmd.Flags()}
	f.binder = b
	b.text(&s.Schedule, "schedule", "cron", `when: five fields ("0 1 * * *"), or @hourly, @daily, @weekly, @monthly, @yearly, "@every 6h"`)
	b.text(&s.TimeZone, "timezone", "zone", "IANA `name` of the time zone: Europe/Berlin (default UTC)")
	b.toggle(&s.Paused, "paused", "make it paused")
	b.add(&boundFlag{kind: "policy", set: func(value string) error {
		policy, err := parseMissedRuns(value)
		s.MissedRuns = policy
		return err
	}}, "missed-runs", "", "what happens to runs that no server was there for: skip, or catch-up with one backup (default catch-up)")
	b.span(&s.StartingDeadline, "starting-deadline", "how late a run may still begin (default: any time before the next)")
	b.span(&s.Jitter, "jitter", "longest delay by which runs are spread, so that many schedules do not begin at once")
	b.text(&s.NameTemplate, "name-template", "template", "name of the backups (default {schedule}-{time})")
	b.toggle(&s.UseOwnerReferencesInBackup, "use-owner-references-in-backup", "have Backup objects go with the schedule; what is in the bucket stays")
	bindBackup(b, &s.Template.Spec, &s.Template.Metadata.Labels)
	b.group = groupRetention
	for _, rule := range []struct {
		dst        *int
		name, text string
	}{
		{&f.retention.KeepLast, "keep-last", "keep the newest `N` backups"},
		{&f.retention.KeepHourly, "keep-hourly", "keep the newest backup of each of the last `N` hours that have one"},
		{&f.retention.KeepDaily, "keep-daily", "the same by day"},
		{&f.retention.KeepWeekly, "keep-weekly", "the same by ISO week"},
		{&f.retention.KeepMonthly, "keep-monthly", "the same by month"},
		{&f.retention.KeepYearly, "keep-yearly", "the same by year"},
	} {
		b.count(rule.dst, rule.name, rule.text)
	}
	b.group = groupSelection
	bindSelection(b, &s.Template.Spec.Selection)
}

// parseMissedRuns reads a policy as it is written in flags, or in the API.
func parseMissedRuns(text string) (v1alpha1.MissedRunPolicy, error) {
	switch text {
	case "skip", string(v1alpha1.MissedRunSkip):
		return v1alpha1.MissedRunSkip, nil
	case "catch-up", string(v1alpha1.MissedRunCatchUp):
		return v1alpha1.MissedRunCatchUp, nil
	}
	return "", fmt.Errorf("%q is not one of skip, catch-up", text)
}

// completeSchedule reads the file, lays the flags over it, and checks the result.
func (a *app) completeSchedule(f *scheduleFlags, args []string) error {
	if f.file != "" {
		var object v1alpha1.Schedule
		if err := a.readObject(f.file, "Schedule", &object); err != nil {
			return usageError(err, "")
		}
		f.object, f.retention = object, v1alpha1.RetentionPolicy{}
		if object.Spec.Retention != nil {
			f.retention = *object.Spec.Retention
		}
		if err := f.binder.overlay(); err != nil {
			return usageError(err, "")
		}
		if len(args) == 1 {
			f.object.Name = args[0]
		}
	}
	s := &f.object.Spec
	if f.retention != (v1alpha1.RetentionPolicy{}) {
		s.Retention = &f.retention
	}
	if f.object.Name == "" {
		return usageError(errors.New("NAME is missing"), "usage: kedge schedule create NAME --schedule \"CRON\"")
	}
	if err := checkName("schedule", f.object.Name); err != nil {
		return usageError(fmt.Errorf("the name: %w", err), "")
	}
	if s.Schedule == "" {
		return usageError(errors.New("--schedule is missing"), `say when: --schedule "0 1 * * *" is every day at one`)
	}
	if s.Template.Spec.TTL.Duration < 0 {
		return usageError(errors.New("spec.template.spec.ttl: it is negative"), "")
	}
	if err := checkLabels(s.Template.Metadata.Labels); err != nil {
		return usageError(fmt.Errorf("labels: %w", err), "")
	}
	if _, err := selection.Compile(s.Template.Spec.Selection); err != nil {
		return usageError(err, "")
	}
	if _, err := hooks.Compile(s.Template.Spec.Hooks); err != nil {
		return usageError(fmt.Errorf("spec.template.%w", err), "")
	}
	return nil
}
