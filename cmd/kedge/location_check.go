package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
)

func (a *app) locationCheckCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "check [NAME]",
		Short: "Check that a location can be read and written, and that its key opens",
		Long: `Check that a location can be reached, read and written, that it refuses to overwrite, that its clock agrees with ours, and that an
identity or KMS key at hand opens its private key. What is written for that is removed again.

Of a server's location, it says what the server found out when it looked last.`,
		Args: argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("check location", err)
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if r != nil {
				return r.checkLocation(cmd.Context(), &out, name)
			}
			if _, err := c.location(name); err != nil {
				return err
			}
			return a.printFindings(&out, a.checkLocation(cmd.Context(), c, name))
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// checkLocation looks at a location's bucket and keys.
func (a *app) checkLocation(ctx context.Context, c *config, name string) []plugins.Finding {
	object, err := c.location(name)
	if err != nil {
		return []plugins.Finding{a.finding(ctx, "location", err, "")}
	}
	store, err := location.OpenStore(ctx, &object.Spec, location.StoreOptions{Now: a.env.Now})
	if err != nil {
		return []plugins.Finding{a.finding(ctx, "open", err, "")}
	}
	var findings []plugins.Finding
	if checker, ok := plugins.As[plugins.Checker](store); ok {
		findings = append(findings, checker.Check(ctx, plugins.CheckOptions{ReadOnly: object.Spec.ReadOnly, ObjectLock: object.Spec.ObjectLock})...)
	}
	p, err := a.openPlace(ctx, c, object.Name)
	findings = append(findings, a.finding(ctx, "location", err, fmt.Sprintf("%s is the location that this machine knows as %s", store, object.Name)))
	if err == nil {
		_, err = a.unlock(ctx, p)
		findings = append(findings, a.finding(ctx, "key", err, "the location's private key can be opened: backups can be read"))
	}
	return findings
}

// finding makes the outcome of one check of an error, or of what is said where there is none.
func (a *app) finding(ctx context.Context, name string, err error, good string) plugins.Finding {
	if err == nil {
		return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: good}
	}
	f := explain(ctx, err)
	return plugins.Finding{Name: name, Level: plugins.LevelFailed, Detail: f.message, Remedy: f.hint}
}

// findingList is what checks print with -o json.
type findingList struct {
	OK       bool              `json:"ok"`
	Findings []plugins.Finding `json:"findings"`
}

// printFindings prints what checks found; a failed one ends the command with an exit code of its own.
func (a *app) printFindings(out *outputFlag, findings []plugins.Finding) error {
	list := findingList{OK: true, Findings: findings}
	for _, f := range findings {
		if f.Level == plugins.LevelFailed {
			list.OK = false
		}
	}
	if out.structured() {
		if err := a.printStructured(out.format, list); err != nil {
			return err
		}
	} else {
		a.printFindingLines(findings)
	}
	if !list.OK {
		return silent(exitFailed)
	}
	return nil
}

func (a *app) printFindingLines(findings []plugins.Finding) {
	marks := map[plugins.Level]string{
		plugins.LevelOK:      a.ui.Style(a.ui.ColorOut, term.Green, "ok     "),
		plugins.LevelWarning: a.ui.Style(a.ui.ColorOut, term.Yellow, "warning"),
		plugins.LevelFailed:  a.ui.Style(a.ui.ColorOut, term.Red, "FAILED "),
	}
	for _, f := range findings {
		fmt.Fprintf(a.ui.Out, "%s  %s: %s\n", marks[f.Level], term.Clean(f.Name), term.Clean(f.Detail))
		if f.Remedy != "" {
			fmt.Fprintf(a.ui.Out, "         hint: %s\n", term.Clean(f.Remedy))
		}
	}
}
