package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// groupAnnotation is where a flag says under which heading help texts show it.
const groupAnnotation = "kedge_group"

// The headings, in the order of help texts. Flags without one come first.
const (
	groupSelection = "Selection flags"
	groupRetention = "Retention flags"
	groupChange    = "Flags that change objects on their way"
	groupS3        = "S3 flags"
	groupKeys      = "Key flags"
	groupMovers    = "Flags of the Jobs that move the files of volumes"
	groupCluster   = "Cluster flags (as in kubectl)"
)

var flagGroups = []string{"", groupSelection, groupRetention, groupChange, groupS3, groupKeys, groupMovers, groupCluster}

// usage prints how a command is called, with its flags under headings.
func usage(cmd *cobra.Command) error {
	out := cmd.OutOrStderr()
	fmt.Fprintln(out, "Usage:")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(out, "  %s [command]\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(out, "  %s\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(out, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	printCommands(out, cmd, "Commands", func(c *cobra.Command) bool { return c.IsAvailableCommand() })
	printCommands(out, cmd, "Topics", func(c *cobra.Command) bool { return c.IsAdditionalHelpTopicCommand() && c.Long != "" })
	for _, heading := range flagGroups {
		printFlags(out, orElse(heading, "Flags"), flagsOf(cmd.LocalFlags(), cmd, heading))
	}
	printFlags(out, "Global flags", flagsOf(cmd.Root().PersistentFlags(), nil, ""))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(out, "\n%q tells more about a command.\n", cmd.CommandPath()+" [command] --help")
	}
	return nil
}

func printCommands(out io.Writer, cmd *cobra.Command, heading string, include func(*cobra.Command) bool) {
	first := true
	for _, c := range cmd.Commands() {
		if !include(c) {
			continue
		}
		if first {
			fmt.Fprintf(out, "\n%s:\n", heading)
			first = false
		}
		fmt.Fprintf(out, "  %-*s %s\n", cmd.NamePadding(), c.Name(), c.Short)
	}
}

// flagsOf picks the flags under one heading; those of the root command are left to their own heading unless cmd is nil.
func flagsOf(all *pflag.FlagSet, cmd *cobra.Command, heading string) *pflag.FlagSet {
	picked := pflag.NewFlagSet("", pflag.ContinueOnError)
	picked.SortFlags = false
	all.VisitAll(func(f *pflag.Flag) {
		own := ""
		if names := f.Annotations[groupAnnotation]; len(names) > 0 {
			own = names[0]
		}
		if own != heading || f.Hidden || (cmd != nil && cmd.Root().PersistentFlags().Lookup(f.Name) != nil) {
			return
		}
		picked.AddFlag(f)
	})
	return picked
}

func printFlags(out io.Writer, heading string, flags *pflag.FlagSet) {
	if text := flags.FlagUsages(); text != "" {
		fmt.Fprintf(out, "\n%s:\n%s", heading, text)
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
