package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

// diffFlags are what "backup diff" takes.
type diffFlags struct {
	out       outputFlag
	location  string
	selection v1alpha1.Selection
	compare   comparer
	live      bool
	exitCode  bool
}

func (a *app) backupDiffCommand() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff A [B]",
		Short: "Compare two backups, or a backup with the live cluster",
		Long: `Compare two backups of a location, or with --live a backup with a cluster as it is now.

"+" are objects that only the second side has, "-" those that only the first has, "~" those that differ. What a server owns (uid,
resource version, managed fields, status, …) is not compared; --status compares the status too. The values of Secrets are compared
and never printed, unless --show-secrets is given.`,
		Example: `  kedge backup diff monday tuesday --include-namespaces shop --patch
  kedge backup diff nightly --live --exit-code`,
		Args: argsBetween(1, "A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.live == (len(args) == 2) {
				return usageError(errors.New("diff: give either a second backup or --live"), "usage: "+cmd.UseLine())
			}
			c, r, err := a.choose()
			if err != nil {
				return atCommand("diff", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "diff", readFlags...); err != nil {
					return err
				}
				return r.diff(cmd.Context(), args, &f)
			}
			return a.diff(cmd.Context(), c, args, &f)
		},
	}
	flags := cmd.Flags()
	f.out.bind(flags, formatTable, formatJSON, formatYAML, formatName)
	flags.BoolVar(&f.live, "live", false, "compare with the live cluster")
	flags.BoolVarP(&f.compare.patch, "patch", "p", false, "print how changed objects differ")
	flags.BoolVar(&f.compare.status, "status", false, "compare the status too")
	flags.BoolVar(&f.compare.secrets, "show-secrets", false, "print the values of Secrets")
	flags.BoolVar(&f.exitCode, "exit-code", false, "exit with code 3 where something differs")
	bindLocation(flags, &f.location)
	bindSelection(&binder{flags: flags, group: groupSelection}, &f.selection)
	a.keys.bindIdentities(flags)
	a.keys.bindTrust(flags)
	a.kube.bind(flags)
	return cmd
}

func (a *app) diff(ctx context.Context, c *config, names []string, f *diffFlags) error {
	readers := make([]*archive.Reader, len(names))
	for i, name := range names {
		found, err := a.findBackup(ctx, c, f.location, name)
		if err != nil {
			return err
		}
		if readers[i], err = a.read(ctx, found); err != nil {
			return err
		}
	}
	result := &comparison{From: names[0], To: "live", Differences: []difference{}}
	var err error
	if f.live {
		client, cluster, clusterErr := a.cluster(0)
		if clusterErr != nil {
			return clusterErr
		}
		result.To = "live cluster " + cluster
		err = (&liveDiff{app: a, client: client, reader: readers[0], compare: &f.compare, result: result}).run(ctx, f.selection)
	} else {
		result.To = names[1]
		err = (&backupDiff{from: archiveSide{readers[0]}, to: archiveSide{readers[1]}, compare: &f.compare, result: result}).run(ctx, f.selection)
	}
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", result.From, result.To, err)
	}
	return a.printComparison(result, f)
}

func (a *app) printComparison(result *comparison, f *diffFlags) error {
	if f.out.structured() {
		if err := a.printStructured(f.out.format, result); err != nil {
			return err
		}
	}
	counts := map[Change]int{}
	for _, d := range result.Differences {
		counts[d.Change]++
		switch f.out.format {
		case formatName:
			a.printf("%s\n", d.Ref)
		case formatTable:
			a.printDifference(&d)
		}
	}
	a.ui.Note("%d added, %d removed, %d changed, %d the same", counts[Added], counts[Removed], counts[Changed], result.Same)
	if f.exitCode && len(result.Differences) > 0 {
		return silent(exitPartial)
	}
	return nil
}

func (a *app) printDifference(d *difference) {
	marks := map[Change]string{Added: "+", Removed: "-", Changed: "~"}
	colors := map[Change]term.Color{Added: term.Green, Removed: term.Red, Changed: term.Yellow}
	fmt.Fprintln(a.ui.Out, a.ui.Style(a.ui.ColorOut, colors[d.Change], marks[d.Change]+" "+term.Clean(d.Ref.String())))
	a.printDiff(d.Diff, "    ")
}

// printDiff prints a unified diff without its head, which names the object once more.
func (a *app) printDiff(text, indent string) {
	for line := range strings.Lines(text) {
		line = term.Clean(strings.TrimRight(line, "\n"))
		if strings.HasPrefix(line, "diff ") || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ") {
			continue
		}
		color := term.Color("")
		switch {
		case strings.HasPrefix(line, "+"):
			color = term.Green
		case strings.HasPrefix(line, "-"):
			color = term.Red
		case strings.HasPrefix(line, "@@"):
			color = term.Cyan
		}
		fmt.Fprintln(a.ui.Out, indent+a.ui.Style(a.ui.ColorOut && color != "", color, line))
	}
}
