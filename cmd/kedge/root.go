package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// rootCommand assembles the command tree.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kedge",
		Short: "Back up, restore and move Kubernetes clusters",
		Long: `Kedge backs up the objects of a Kubernetes cluster to a bucket, shows what a backup holds, and restores it into
the same cluster or another one, of the same version or a newer one.

A server in the cluster does the work ("kedge install"); commands write and follow its objects, with the rights of the kubeconfig's user.
With --local everything runs in this process and nothing is installed in the cluster.

Under the name kubectl-kedge on the PATH (a link will do) it is a plugin: kubectl kedge.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              cobra.ArbitraryArgs,
		RunE:              chooseCommand,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.ui.Quiet = a.flags.quiet
			if a.flags.noColor {
				a.ui.ColorOut, a.ui.ColorErr = false, false
			}
			return nil
		},
	}
	root.SetIn(a.env.Stdin)
	root.SetOut(a.env.Stdout)
	root.SetErr(a.env.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(usage)
	flags := root.PersistentFlags()
	flags.StringVar(&a.flags.configFile, "config", "", "file with locations and settings (default $KEDGE_CONFIG, else kedge/config.yaml in the user's configuration folder)")
	flags.Var(&a.flags.local, "local", "run in this process, with nothing installed in the cluster (default $KEDGE_LOCAL, else \"local\" of the config file)")
	flags.Lookup("local").NoOptDefVal = "true"
	flags.StringVar(&a.flags.namespace, "kedge-namespace", "", "`namespace` of the Kedge server's objects (default $KEDGE_NAMESPACE, else \"namespace\" of the config file, else \"kedge\")")
	flags.BoolVarP(&a.flags.quiet, "quiet", "q", false, "print no notes and no progress")
	flags.BoolVar(&a.flags.noColor, "no-color", false, "print no colour (as does the environment variable NO_COLOR)")
	root.AddCommand(
		a.locationCommand(),
		a.backupCommand(),
		a.restoreCommand(),
		a.scheduleCommand(),
		a.volumeCommand(),
		a.doctorCommand(),
		a.moverCommand(),
		a.serverCommand(),
		a.installCommand(),
		a.upgradeCommand(),
		a.uninstallCommand(),
		a.awsCommand(),
		a.versionCommand(),
		exitCodesTopic(),
		environmentTopic(),
	)
	a.registerCompletions(root)
	a.asPlugin(root)
	return root
}

// group makes a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: cobra.ArbitraryArgs,
		RunE: chooseCommand,
	}
	cmd.AddCommand(commands...)
	return cmd
}

// chooseCommand is what a command that only holds others does: it prints its help, or says that it has no such command.
func chooseCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Errorf("%sunknown command %q", prefix(cmd), args[0]), suggest(cmd, args[0]))
	}
	return cmd.Help()
}

// prefix is how messages name a command: "backup create: "; nothing for kedge itself, which every message begins with.
func prefix(cmd *cobra.Command) string {
	path := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().CommandPath())
	if path == "" {
		return ""
	}
	return strings.TrimSpace(path) + ": "
}

// suggest names the commands that a mistyped one may have meant.
func suggest(cmd *cobra.Command, typed string) string {
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		return fmt.Sprintf("did you mean %q?", cmd.CommandPath()+" "+near[0])
	}
	return fmt.Sprintf("%q lists the commands", cmd.CommandPath()+" --help")
}

// exactArgs is cobra.ExactArgs with a message that names what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return argsBetween(len(names), names...)
}

// argsBetween takes at least least and at most all of the named arguments.
func argsBetween(least int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usageError(fmt.Errorf("%s%s is missing", prefix(cmd), names[len(args)]), "usage: "+cmd.UseLine())
		}
		if len(args) > len(names) {
			return usageError(fmt.Errorf("%sunexpected argument %q", prefix(cmd), args[len(names)]), "usage: "+cmd.UseLine())
		}
		if i := slices.Index(args, ""); i >= 0 {
			return usageError(fmt.Errorf("%s%s is empty", prefix(cmd), names[i]), "")
		}
		return nil
	}
}
