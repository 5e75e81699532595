package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

// completeTimeout bounds how long a shell waits for names that are read from a bucket.
const completeTimeout = 3 * time.Second

// completion offers names to a shell.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// registerCompletions tells each command of the tree how its arguments and flags are completed.
func (a *app) registerCompletions(root *cobra.Command) {
	backups := a.first(a.completeBackups)
	arguments := map[string]completion{
		"kedge backup get": a.completeBackups, "kedge backup delete": a.completeBackups, "kedge backup diff": a.completeBackups,
		"kedge backup describe": backups, "kedge backup logs": backups, "kedge backup items": backups, "kedge backup show": backups,
		"kedge backup download": backups, "kedge backup verify": backups, "kedge backup cancel": backups,
		"kedge backup hold": backups, "kedge backup release": backups, "kedge backup extend": backups,
		"kedge schedule get": a.first(a.completeSchedules), "kedge schedule describe": a.first(a.completeSchedules), "kedge schedule pause": a.first(a.completeSchedules),
		"kedge schedule unpause": a.first(a.completeSchedules), "kedge schedule run": a.first(a.completeSchedules), "kedge schedule retention": a.first(a.completeSchedules), "kedge schedule delete": a.first(a.completeSchedules),
		"kedge location get": a.first(a.completeLocations), "kedge location describe": a.first(a.completeLocations),
		"kedge location check": a.first(a.completeLocations), "kedge location delete": a.first(a.completeLocations),
		"kedge restore get": a.first(a.completeRestores), "kedge restore describe": a.first(a.completeRestores),
		"kedge restore logs": a.first(a.completeRestores), "kedge restore resume": a.first(a.completeRestores),
		"kedge restore cancel": a.first(a.completeRestores),
	}
	flags := map[string]completion{"storage-location": a.completeLocations, "from-backup": a.completeBackups}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if complete, ok := arguments[cmd.CommandPath()]; ok {
			cmd.ValidArgsFunction = complete
		}
		for name, complete := range flags {
			if cmd.Flags().Lookup(name) != nil {
				_ = cmd.RegisterFlagCompletionFunc(name, complete) // it fails only for flags that are not there
			}
		}
		if flag := cmd.Flags().Lookup("output"); flag != nil {
			if out, ok := flag.Value.(*outputFlag); ok {
				_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(out.allowed, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
}

// first completes the first argument only.
func (a *app) first(complete completion) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

func (a *app) completeLocations(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, r, err := a.chooseLocations(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if r != nil {
		return offered(r.locationChoices(ctx))
	}
	var names []string
	for _, l := range c.Locations {
		names = append(names, l.Name+"\t"+term.Clean(where(&l.Spec)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeBackups(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, r, err := a.choose()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	location := ""
	if flag := cmd.Flags().Lookup("storage-location"); flag != nil && flag.Changed {
		location = flag.Value.String()
	}
	if r != nil {
		return offered(r.backupChoices(ctx, location))
	}
	p, err := a.openPlace(ctx, c, location)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	err = p.location.Backups(ctx, func(e archive.Entry) error {
		names = append(names, term.Clean(e.Name)+"\t"+term.Age(a.env.Now(), started(&e))+" old")
		return nil
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeRestores(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	_, r, err := a.choose()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if r != nil {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		return offered(r.restoreChoices(ctx))
	}
	names, err := a.restoreNames()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
