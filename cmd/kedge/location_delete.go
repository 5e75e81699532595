package main

import (
	"slices"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
)

func (a *app) locationDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"remove", "rm"},
		Short:   "Forget a location; the bucket stays as it is",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("delete location", err)
			}
			if r != nil {
				return r.deleteLocation(cmd.Context(), args[0])
			}
			var spec v1alpha1.BackupStorageLocationSpec
			err = a.updateConfig(func(c *config) error {
				l, err := c.location(args[0])
				if err != nil {
					return err
				}
				spec = l.Spec
				c.Locations = slices.DeleteFunc(c.Locations, func(l v1alpha1.BackupStorageLocation) bool { return l.Name == args[0] })
				return nil
			})
			if err != nil {
				return err
			}
			a.ui.Note("Location %s is forgotten here. %s and its backups are untouched; \"kedge location add\" registers it again.", args[0], where(&spec))
			return nil
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}
