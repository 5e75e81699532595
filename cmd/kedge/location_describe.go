package main

import (
	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
)

func (a *app) locationDescribeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Say everything about a location",
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("describe location", err)
			}
			if r != nil {
				return r.describeLocation(cmd.Context(), args[0])
			}
			l, err := c.location(args[0])
			if err != nil {
				return err
			}
			a.describeLocation(c, l)
			return nil
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) describeLocation(c *config, l *v1alpha1.BackupStorageLocation) {
	d := a.describe()
	d.field("Name", l.Name)
	d.field("Where", where(&l.Spec))
	if s := l.Spec.S3; s != nil {
		d.field("Region", s.Region)
		d.field("Endpoint", s.Endpoint)
		d.field("Credentials file", s.CredentialsFile)
		d.field("Profile", s.Profile)
		d.field("Role", s.RoleARN)
		d.field("Server-side encryption", s.ServerSideEncryption)
		d.flag("Path style", s.PathStyle)
		d.flag("Private CA", s.CABundle != "")
	}
	d.flag("Default", l.Spec.Default)
	d.flag("Read-only", l.Spec.ReadOnly)
	d.flag("Object lock", l.Spec.ObjectLock)
	d.field("Public key", l.Spec.PublicKey)
	d.field("KMS key", l.Spec.KMSKeyID)
	if n := len(l.Spec.TrustedKeys); n > 0 {
		d.field("Trusted keys", plural(n, "key"))
	}
	for _, file := range c.AgeIdentityFiles {
		d.field("Age identity file", file)
	}
}
