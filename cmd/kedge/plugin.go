package main

import (
	"regexp"

	"github.com/spf13/cobra"
)

// asPlugin has help texts name the program as it was called: "kubectl kedge", where kubectl runs it under the name kubectl-kedge.
func (a *app) asPlugin(root *cobra.Command) {
	if !a.env.Plugin {
		return
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl kedge"}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Long, cmd.Example = a.called(cmd.Long), a.called(cmd.Example)
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
}

// commandText finds the program with one of its commands in a text, as it begins a line, a quotation, or follows what introduces it.
var commandText = regexp.MustCompile(`(?m)(^ *|"|: |\| )kedge (backup|restore|schedule|location|doctor|server|install|upgrade|uninstall|aws|help|completion|version|--help)`)

// called writes commands in a text as the program was called.
func (a *app) called(text string) string {
	if !a.env.Plugin {
		return text
	}
	return commandText.ReplaceAllString(text, "${1}kubectl kedge ${2}")
}
