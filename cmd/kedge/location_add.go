package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/server/location"
)

func (a *app) locationAddCommand() *cobra.Command {
	var l locationFlags
	var publicKey string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Register a bucket or folder that is a location already",
		Long: `Register a bucket or folder that holds backups already: on a new machine, on the worst day.

The location's key is pinned here, so that whoever can write the bucket cannot replace it later. It is taken from the bucket after an
age identity or the KMS key has opened it; a machine that only writes backups can name it with --public-key instead.

Where the cluster has a Kedge server, the location is registered there, as with "kedge location create"; its backups are then shown.`,
		Example: `  kedge location add prod --s3-bucket acme-backups --region eu-central-1 --age-identity-file ~/kedge-identity.txt
  kedge location add prod --s3-bucket acme-backups --region eu-central-1 --kms-key-id alias/kedge --read-only`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("add location", err)
			}
			if r != nil {
				return r.addLocation(cmd.Context(), args[0], &l, publicKey)
			}
			return a.addLocation(cmd.Context(), c, args[0], &l, publicKey)
		},
	}
	flags := cmd.Flags()
	l.bind(flags)
	flags.BoolVar(&l.spec.ReadOnly, "read-only", false, "never write to it: restores only")
	flags.StringVar(&publicKey, "public-key", "", "the location's public `key` (age1…), for machines that only write backups")
	annotate(flags, groupKeys, "public-key")
	a.keys.bindIdentities(flags)
	a.kube.bind(flags)
	return cmd
}

func (a *app) addLocation(ctx context.Context, c *config, name string, l *locationFlags, publicKey string) error {
	const command = "add location"
	object, err := l.object(command, name)
	if err != nil {
		return err
	}
	if _, err := c.location(name); err == nil {
		return usageError(fmt.Errorf("%s %s: there is one of that name already", command, name), "choose another name, or remove it from the configuration: kedge location delete "+name)
	}
	store, err := location.OpenStore(ctx, &object.Spec, location.StoreOptions{Now: a.env.Now})
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	location, err := archive.Open(ctx, store)
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	if publicKey != "" && publicKey != location.PublicKey() {
		return codeError(exitRefused, fmt.Errorf("%s %s: the bucket says that its key is %s, not %s", command, name, location.PublicKey(), publicKey), "it is another location, or somebody replaced its key")
	}
	object.Spec.PublicKey = location.PublicKey()
	if publicKey == "" {
		if _, err := a.unlock(ctx, &place{config: c, object: object, store: store, location: location}); err != nil {
			return err
		}
	}
	if err := a.remember(object, a.keys.identityFiles...); err != nil {
		return err
	}
	count := 0
	if err := location.Backups(ctx, func(archive.Entry) error { count++; return nil }); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	a.ui.Note("Location %s is registered: %s holds %s.", name, store, plural(count, "backup"))
	return nil
}

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// where names the bucket or folder of a location for people.
func where(spec *v1alpha1.BackupStorageLocationSpec) string {
	switch {
	case spec.S3 != nil && spec.S3.Prefix != "":
		return "s3://" + spec.S3.Bucket + "/" + spec.S3.Prefix
	case spec.S3 != nil:
		return "s3://" + spec.S3.Bucket
	case spec.File != nil:
		return "file://" + spec.File.Path
	}
	return ""
}
