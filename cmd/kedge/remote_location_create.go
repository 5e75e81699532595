package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

// identityWarning says what it means that the server has an age identity.
const identityWarning = "the age identity goes into Secret %s: whoever may read Secrets in namespace %s, or etcd, can read every backup of this location; the server needs it for restores"

// Labels and keys of the Secrets that are made for a location.
const (
	locationLabel  = "kedge.dev/location"
	identityKey    = "identity.txt"
	credentialsKey = "credentials"
)

// createLocation makes a location for the server, which makes the empty bucket one.
func (r *remote) createLocation(ctx context.Context, name string, f *createFlags) error {
	const command = "create location"
	object, err := f.location.object(command, name)
	if err != nil {
		return err
	}
	if err := serverPath(object); err != nil {
		return usageError(fmt.Errorf("%s: %w", command, err), "")
	}
	if len(f.recipients) == 0 && f.generate == "" && object.Spec.KMSKeyID == "" {
		return usageError(fmt.Errorf("%s %s: nothing is given that could open it again", command, name),
			"give --kms-key-id (IAM alone restores), or --age-recipient or --generate-age-identity (the identity file restores); see kedge location create --help")
	}
	if f.give && f.generate == "" {
		return usageError(fmt.Errorf("%s: --give-identity-to-server is given without --generate-age-identity", command), "name an identity that exists with --age-identity-file: it is given to the server")
	}
	if err := r.unusedLocation(ctx, name); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	recipients, err := readRecipients(f.recipients)
	if err != nil {
		return err
	}
	identity, err := r.serverIdentity(recipients)
	if err != nil {
		return err
	}
	for _, recipient := range recipients {
		text, ok := recipient.(fmt.Stringer)
		if !ok {
			return usageError(fmt.Errorf("%s: --age-recipient: a recipient cannot be written into the location", command), "use one that begins with age1")
		}
		object.Spec.AgeRecipients = append(object.Spec.AgeRecipients, text.String())
	}
	if f.generate != "" {
		made, path, err := r.app.generateIdentity(f.generate)
		if err != nil {
			return err
		}
		r.app.ui.Note("The new age identity is in %s.", path)
		object.Spec.AgeRecipients = append(object.Spec.AgeRecipients, made.Recipient().String())
		if f.give {
			identity = append(identity, made.String()+"\n"...)
		}
	}
	if err := r.makeLocation(ctx, object, identity); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	r.describeOpeners(object, identity)
	if err := r.awaitLocation(ctx, object); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	return nil
}

// describeOpeners says what opens a location on the worst day, and what its server cannot do.
func (r *remote) describeOpeners(object *v1alpha1.BackupStorageLocation, identity []byte) {
	if object.Spec.KMSKeyID != "" {
		r.app.ui.Note("%s", worstDayKMS)
	}
	if len(object.Spec.AgeRecipients) > 0 {
		r.app.ui.Note("%s", worstDayAge)
	}
	if object.Spec.KMSKeyID == "" && len(identity) == 0 {
		r.app.ui.Warn("the server can make backups here, and neither restore them nor show what they hold: it has no key that opens them (--age-identity-file, --give-identity-to-server, --kms-key-id)")
	}
}

// addLocation registers a bucket that is a location already.
func (r *remote) addLocation(ctx context.Context, name string, l *locationFlags, publicKey string) error {
	const command = "add location"
	object, err := l.object(command, name)
	if err != nil {
		return err
	}
	if err := serverPath(object); err != nil {
		return usageError(fmt.Errorf("%s: %w", command, err), "")
	}
	object.Spec.PublicKey = publicKey
	if err := r.unusedLocation(ctx, name); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	identity, err := r.serverIdentity(nil)
	if err != nil {
		return err
	}
	if err := r.makeLocation(ctx, object, identity); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	if err := r.awaitLocation(ctx, object); err != nil {
		return fmt.Errorf("%s %s: %w", command, name, err)
	}
	return nil
}

// serverPath refuses a folder that only this machine could mean.
func serverPath(object *v1alpha1.BackupStorageLocation) error {
	if f := object.Spec.File; f != nil && !strings.HasPrefix(f.Path, "/") {
		return errors.New("--path: name the folder as the server sees it, beginning with /")
	}
	return nil
}

func (r *remote) unusedLocation(ctx context.Context, name string) error {
	var l v1alpha1.BackupStorageLocation
	err := r.get(ctx, name, &l)
	switch {
	case err == nil:
		return usageError(errors.New("there is one of that name already"), "choose another name, or remove it: kedge location delete "+name)
	case isNotFound(err):
		return nil
	}
	return err
}

// serverIdentity reads the identity files that are named on the command line: the server gets them. It checks that they open what is
// encrypted to the recipients.
func (r *remote) serverIdentity(recipients []age.Recipient) ([]byte, error) {
	var all []byte
	var identities []age.Identity
	for _, file := range r.app.keys.identityFiles {
		found, err := readIdentities(file)
		if err != nil {
			return nil, err
		}
		data, err := readSmallFile(file)
		if err != nil {
			return nil, usageError(fmt.Errorf("read the age identity file: %w", err), "")
		}
		identities = append(identities, found...)
		all = append(all, append(bytes.TrimSpace(data), '\n')...)
	}
	if len(recipients) > 0 && len(identities) > 0 {
		if err := opens(recipients, identities); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// makeLocation writes the Secrets and then the location, so that the server finds all when it looks. Where the location is refused, what was
// made for it is taken away.
func (r *remote) makeLocation(ctx context.Context, object *v1alpha1.BackupStorageLocation, identity []byte) error {
	var secrets []*corev1.Secret
	if s := object.Spec.S3; s != nil && s.CredentialsFile != "" {
		data, err := readSmallFile(s.CredentialsFile)
		if err != nil {
			return usageError(fmt.Errorf("read the credentials file: %w", err), "")
		}
		secret := r.locationSecret(object.Name, "credentials", credentialsKey, data)
		s.CredentialsFile, s.CredentialsSecret = "", &v1alpha1.SecretKeyReference{Name: secret.Name, Key: credentialsKey}
		secrets = append(secrets, secret)
	}
	if len(identity) > 0 {
		secret := r.locationSecret(object.Name, "age-identity", identityKey, identity)
		object.Spec.AgeIdentitySecret = &v1alpha1.SecretKeyReference{Name: secret.Name, Key: identityKey}
		r.app.ui.Warn(identityWarning, secret.Name, r.namespace)
		secrets = append(secrets, secret)
	}
	var made []*corev1.Secret
	err := func() error {
		for _, secret := range secrets {
			isNew, err := r.makeSecret(ctx, secret)
			if err != nil {
				return err
			}
			if isNew {
				made = append(made, secret)
			}
		}
		return r.create(ctx, object)
	}()
	if err != nil {
		for _, secret := range made {
			err = errors.Join(err, r.delete(context.WithoutCancel(ctx), secret))
		}
	}
	return err
}

func (r *remote) locationSecret(location, what, key string, data []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: location + "-" + what, Labels: map[string]string{locationLabel: location}},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{key: data},
	}
}

// makeSecret creates a Secret. One of that name with the same content is used as it is; another content is never overwritten.
func (r *remote) makeSecret(ctx context.Context, secret *corev1.Secret) (isNew bool, err error) {
	data := secret.Data
	err = r.create(ctx, secret)
	if err == nil {
		return true, nil
	}
	if !isAlreadyExists(err) {
		return false, fmt.Errorf("make Secret %s: %w", secret.Name, err)
	}
	var there corev1.Secret
	if err := r.get(ctx, secret.Name, &there); err != nil {
		return false, fmt.Errorf("compare Secret %s, which exists already: %w", secret.Name, err)
	}
	for key, value := range data {
		if !bytes.Equal(there.Data[key], value) {
			return false, usageError(fmt.Errorf("make Secret %s: there is one of that name already, with another content", secret.Name), fmt.Sprintf("choose another name for the location, or remove it: kubectl delete secret -n %s %s", r.namespace, secret.Name))
		}
	}
	return false, nil
}
