package main

import (
	"github.com/spf13/cobra"

	"kedge.dev/kedge/deploy/render"
)

func (a *app) upgradeCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring the installed server to this version, or change its values",
		Long: `Bring the installed server to the version of this program, or change its values. The values of the installation are kept; those given
are laid over them. The kinds are brought up to date too. Objects that the installation no longer has are deleted; no backup and nothing that
a user has made is among them.`,
		Example: `  kedge upgrade --image registry.example/kedge:v0.2.0
  kedge upgrade --set replicas=1
  kedge upgrade --reset-values --values values.yaml`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			values, err := a.installValues(&f)
			if err != nil {
				return err
			}
			i, err := a.openInstaller(cmd.Context(), &f)
			if err != nil {
				return err
			}
			if err := i.CheckOwner(cmd.Context()); err != nil {
				return err
			}
			saved, _, err := i.Saved(cmd.Context())
			if err != nil {
				return err
			}
			if !f.reset {
				values = render.Merge(saved, values)
			}
			if f.export {
				return a.exportObjects(&f, values, i.APIVersions())
			}
			return a.applyInstall(cmd.Context(), i, &f, values)
		},
	}
	f.bind(cmd)
	cmd.Flags().BoolVar(&f.reset, "reset-values", false, "forget the values of the installation, and use those given now alone")
	a.kube.bind(cmd.Flags())
	return cmd
}
