package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
)

// worstDay says what each way of protecting a location means when it is needed.
const (
	worstDayKMS = "On the worst day: whoever may use the KMS key by IAM can restore; no file is needed. If the KMS key is deleted, the backups are lost."
	worstDayAge = "On the worst day: whoever has the age identity file can restore, from anywhere. If every copy of that file is lost, so are the backups: keep one away from this machine and from the cluster."
)

// createFlags are what "location create" takes beside the location itself.
type createFlags struct {
	location   locationFlags
	recipients []string
	generate   string
	give       bool
}

func (a *app) locationCreateCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a bucket or folder a location, with a new key pair",
		Long: `Make a bucket or folder a location for backups, and remember it on this machine.

The location gets a key pair of its own. Backups are encrypted to its public half; its private half is kept in the bucket, wrapped
so that only age identities or an AWS KMS key open it. At least one of them must be given:

  --kms-key-id      ` + wrap(worstDayKMS, 20) + `
  --age-recipient   ` + wrap(worstDayAge, 20) + `

Both together: either opens it.

Where the cluster has a Kedge server, the location is made for it: an object in its namespace, which --local=false asks for in any case and
--local prevents. Files that flags name become Secrets beside it: with --credentials-file the credentials, with --age-identity-file the
identity that lets the server restore. The server itself makes the bucket a location.`,
		Example: `  # a bucket, opened by a new age identity
  kedge location create prod --s3-bucket acme-backups --region eu-central-1 --generate-age-identity ~/kedge-identity.txt

  # a bucket, opened by a KMS key
  kedge location create prod --s3-bucket acme-backups --region eu-central-1 --kms-key-id alias/kedge

  # a folder
  kedge location create usb --path /media/usb/backups --age-recipient age1…`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			switch {
			case err != nil:
				return atCommand("create location", err)
			case r != nil:
				return r.createLocation(cmd.Context(), args[0], &f)
			case f.give:
				return usageError(errors.New("create location: --give-identity-to-server is given, and there is no server"), "leave it away, or say --local=false")
			}
			return a.createLocation(cmd.Context(), c, args[0], &f)
		},
	}
	flags := cmd.Flags()
	f.location.bind(flags)
	flags.StringArrayVar(&f.recipients, "age-recipient", nil, "age `recipient` (age1…), or a file of them, whose identity opens the location (repeatable)")
	flags.StringVar(&f.generate, "generate-age-identity", "", "make a new age identity in this new `file` and use it")
	flags.BoolVar(&f.give, "give-identity-to-server", false, "put the new age identity into a Secret too, with which the server can restore")
	annotate(flags, groupKeys, "age-recipient", "generate-age-identity", "give-identity-to-server")
	a.kube.bind(flags)
	a.keys.bindIdentities(flags)
	return cmd
}

func (a *app) createLocation(ctx context.Context, c *config, name string, f *createFlags) error {
	const command = "create location"
	object, err := f.location.object(command, name)
	if err != nil {
		return err
	}
	if _, err := c.location(name); err == nil {
		return usageError(fmt.Errorf("%s %s: there is one of that name already", command, name), "choose another name, or remove it from the configuration: kedge location delete "+name)
	}
	if len(f.recipients) == 0 && f.generate == "" && object.Spec.KMSKeyID == "" {
		return usageError(fmt.Errorf("%s %s: nothing is given that could open it again", command, name),
			"give --kms-key-id (IAM alone restores), or --age-recipient or --generate-age-identity (the identity file restores); see kedge location create --help")
	}
	store, err := location.OpenStore(ctx, &object.Spec, location.StoreOptions{Create: true, Now: a.env.Now})
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	if _, err := archive.Open(ctx, store); err == nil {
		return codeError(exitRefused, fmt.Errorf("%s %s: %s is a location already", command, name, store), "register it with: kedge location add "+name)
	}
	if err := suitable(ctx, store, object); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	keys, err := a.locationKeys(f, c)
	if err != nil {
		return err
	}
	wrappers, err := location.KeyWrappers(ctx, &object.Spec, a.env.Now)
	if err != nil {
		return err
	}
	location, _, err := archive.Init(ctx, store, archive.InitOptions{Recipients: keys.recipients, Wrappers: wrappers, Now: a.env.Now, Rand: rand.Reader})
	if err != nil {
		a.dropUselessIdentity(ctx, store, keys.generated)
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	object.Spec.PublicKey = location.PublicKey()
	// What was just written is opened again by what will open it on the worst day.
	if len(wrappers) > 0 || len(keys.identities) > 0 {
		if _, err := location.Unlock(ctx, archive.UnlockOptions{Identities: keys.identities, Wrappers: wrappers}); err != nil {
			return fmt.Errorf("%s %s: open it again: %w", command, name, err)
		}
	}
	if err := a.remember(object, keys.files...); err != nil {
		return err
	}
	a.describeCreated(object, store.String(), keys)
	return nil
}

// suitable tries what a location needs of a store, before anything is made: above all that it refuses to overwrite.
func suitable(ctx context.Context, store plugins.ObjectStore, object *v1alpha1.BackupStorageLocation) error {
	checker, ok := plugins.As[plugins.Checker](store)
	if !ok {
		return nil
	}
	for _, f := range checker.Check(ctx, plugins.CheckOptions{ObjectLock: object.Spec.ObjectLock}) {
		if f.Level == plugins.LevelFailed {
			return codeError(exitUsage, fmt.Errorf("check %s: %s: %s", store, f.Name, f.Detail), f.Remedy)
		}
	}
	return ctx.Err()
}

// wrappingKeys are the age keys of a new location.
type wrappingKeys struct {
	recipients []age.Recipient
	identities []age.Identity
	files      []string // the identities' files
	generated  string
}

// locationKeys reads or makes the age keys, and checks that the identities given open what is encrypted to the recipients before
// anything is written to the bucket.
func (a *app) locationKeys(f *createFlags, c *config) (*wrappingKeys, error) {
	recipients, err := readRecipients(f.recipients)
	if err != nil {
		return nil, err
	}
	k := &wrappingKeys{recipients: recipients}
	if len(a.keys.identityFiles) > 0 || a.env.Getenv("KEDGE_AGE_IDENTITY_FILE") != "" {
		if k.identities, err = a.identities(c); err != nil {
			return nil, err
		}
		k.files = a.keys.identityFiles
	}
	if len(recipients) > 0 && len(k.identities) > 0 {
		if err := opens(recipients, k.identities); err != nil {
			return nil, err
		}
	}
	if f.generate != "" {
		identity, path, err := a.generateIdentity(f.generate)
		if err != nil {
			return nil, err
		}
		k.recipients = append(k.recipients, identity.Recipient())
		k.identities = append(k.identities, identity)
		k.files = append(k.files, path)
		k.generated = path
	}
	return k, nil
}

// dropUselessIdentity removes a new identity where no location was made that it could open.
func (a *app) dropUselessIdentity(ctx context.Context, store plugins.ObjectStore, file string) {
	if file == "" {
		return
	}
	if _, err := archive.Open(ctx, store); errors.Is(err, archive.ErrNotALocation) {
		_ = os.Remove(file)
	}
}

// opens checks by trying that one of the identities opens what is encrypted to the recipients.
func opens(recipients []age.Recipient, identities []age.Identity) error {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipients...)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("check the age identity: %w", err)
	}
	r, err := age.Decrypt(&sealed, identities...)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return codeError(exitRefused, errors.New("check the age identity: no identity given with --age-identity-file opens what is encrypted to the recipients"),
			"give the identity file that belongs to one of the recipients, or leave --age-identity-file away")
	}
	return err
}

// describeCreated says what was made, and what it needs on the worst day.
func (a *app) describeCreated(object *v1alpha1.BackupStorageLocation, store string, keys *wrappingKeys) {
	a.ui.Note("Location %s is ready: %s", object.Name, store)
	if keys.generated != "" {
		a.ui.Note("The new age identity is in %s.", keys.generated)
	}
	if object.Spec.KMSKeyID != "" {
		a.ui.Note("%s", worstDayKMS)
	}
	if len(keys.recipients) > 0 {
		a.ui.Note("%s", worstDayAge)
		if len(keys.identities) == 0 {
			a.ui.Warn("no --age-identity-file was given, so it was not checked that one opens this location; \"kedge location check %s --age-identity-file FILE\" does", object.Name)
		}
	}
}

// wrap breaks text into lines of at most 130 columns, indented but for the first.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > 130:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
