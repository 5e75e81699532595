package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/pflag"

	"kedge.dev/kedge/backup/archive"
)

// keyFlags name the keys that open backups and prove who wrote them.
type keyFlags struct {
	identityFiles []string
	trustedFiles  []string
	require       bool
}

// bindIdentities adds the flag of commands that read encrypted data.
func (k *keyFlags) bindIdentities(flags *pflag.FlagSet) {
	flags.StringArrayVar(&k.identityFiles, "age-identity-file", nil, "`file` with the age identity that opens the location (repeatable; default $KEDGE_AGE_IDENTITY_FILE, else the configuration's)")
	annotate(flags, groupKeys, "age-identity-file")
}

// bindTrust adds the flags of commands that check signatures.
func (k *keyFlags) bindTrust(flags *pflag.FlagSet) {
	flags.StringArrayVar(&k.trustedFiles, "trusted-key-file", nil, "`file` with an Ed25519 public key (PEM) whose signatures are accepted, beside the location's (repeatable)")
	flags.BoolVar(&k.require, "require-signature", false, "refuse a backup that no trusted key signed")
	annotate(flags, groupKeys, "trusted-key-file", "require-signature")
}

// annotate puts flags under a heading of the help text.
func annotate(flags *pflag.FlagSet, heading string, names ...string) {
	for _, name := range names {
		flags.Lookup(name).Annotations = map[string][]string{groupAnnotation: {heading}}
	}
}

// identities reads the age identities in use: those named on the command line, else in the environment, else in the configuration.
// Files of the configuration that are not there (a stick that is not plugged in) are left out.
func (a *app) identities(c *config) ([]age.Identity, error) {
	files, optional := a.keys.identityFiles, false
	if len(files) == 0 {
		if path := a.env.Getenv("KEDGE_AGE_IDENTITY_FILE"); path != "" {
			files = []string{path}
		}
	}
	if len(files) == 0 {
		files, optional = c.AgeIdentityFiles, true
	}
	var all []age.Identity
	for _, file := range files {
		found, err := readIdentities(file)
		if optional && errors.Is(err, os.ErrNotExist) {
			a.ui.Warn("the age identity file %s of the configuration is not there", file)
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// readIdentities reads a file as age-keygen writes it.
func readIdentities(file string) ([]age.Identity, error) {
	data, err := readSmallFile(file)
	if err != nil {
		return nil, usageError(fmt.Errorf("read the age identity file: %w", err), "")
	}
	const hint = "it is a file as age-keygen or \"kedge location create --generate-age-identity\" writes it, with a line AGE-SECRET-KEY-1…"
	if bytes.HasPrefix(data, []byte("age-encryption.org/")) || bytes.HasPrefix(data, []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
		return nil, usageError(fmt.Errorf("read the age identity file: %s is encrypted with a passphrase", file), "decrypt it first: age -d -o FILE "+file)
	}
	found, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		// The library's text may quote the line, which may be a damaged secret key.
		return nil, usageError(fmt.Errorf("read the age identity file: %s holds no age identity that can be read", file), hint)
	}
	return found, nil
}

// readRecipients reads recipients given as text ("age1…") or as files of one per line.
func readRecipients(values []string) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, value := range values {
		if strings.HasPrefix(value, "AGE-SECRET-KEY-") {
			return nil, usageError(errors.New("read --age-recipient: a secret key was given"), "give its public half, which begins with age1, and keep the secret key off command lines")
		}
		text := value
		if !strings.HasPrefix(value, "age1") {
			data, err := readSmallFile(value)
			if err != nil {
				return nil, usageError(fmt.Errorf("read --age-recipient: %q is neither an age recipient nor a file: %w", value, err), "a recipient begins with age1; age-keygen prints it")
			}
			text = string(data)
		}
		found, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, usageError(fmt.Errorf("read --age-recipient: %q is no age recipient that can be read", value), "a recipient begins with age1; age-keygen prints it")
		}
		all = append(all, found...)
	}
	return all, nil
}

// generateIdentity makes a new age identity in a new file that only its owner can read.
func (a *app) generateIdentity(file string) (*age.X25519Identity, string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, "", fmt.Errorf("make the age identity: %w", err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", fmt.Errorf("make the age identity: %w", err)
	}
	text := fmt.Sprintf("# Kedge age identity, made %s. Whoever has this file can read the backups; without it they cannot be read.\n# public key: %s\n%s\n",
		a.env.Now().UTC().Format("2006-01-02"), identity.Recipient(), identity)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, "", usageError(fmt.Errorf("make the age identity: %s exists already", path), "use it with --age-identity-file, or name another file")
	}
	if err != nil {
		return nil, "", usageError(fmt.Errorf("make the age identity: %w", err), "")
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, "", fmt.Errorf("make the age identity: %w", err)
	}
	return identity, path, nil
}

// readSigner reads an Ed25519 private key in PKCS #8 PEM (RFC 8410).
func readSigner(file string) (ed25519.PrivateKey, error) {
	data, err := readSmallFile(file)
	if err != nil {
		return nil, usageError(fmt.Errorf("read the signing key: %w", err), "")
	}
	key, err := archive.ParsePrivateKey(data)
	if err != nil {
		return nil, usageError(fmt.Errorf("read the signing key: %s: %w", file, err), "make one with: openssl genpkey -algorithm ed25519 -out sign.pem")
	}
	return key, nil
}

// parseTrusted reads Ed25519 public keys in PEM (SPKI).
func parseTrusted(name string, data []byte) ([]ed25519.PublicKey, error) {
	keys, err := archive.ParsePublicKeys(data)
	if err == nil && len(keys) == 0 {
		err = errors.New("it holds no PEM block PUBLIC KEY")
	}
	if err != nil {
		return nil, usageError(fmt.Errorf("read the trusted key: %s: %w", name, err), "make it from the signing key with: openssl pkey -in sign.pem -pubout -out sign.pub")
	}
	return keys, nil
}

// trusted gathers the keys whose signatures count: the location's and those named on the command line.
func (k *keyFlags) trusted(pinned []string) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for i, text := range pinned {
		keys, err := parseTrusted(fmt.Sprintf("spec.trustedKeys[%d] of the location", i), []byte(text))
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	for _, file := range k.trustedFiles {
		data, err := readSmallFile(file)
		if err != nil {
			return nil, usageError(fmt.Errorf("read the trusted key: %w", err), "")
		}
		keys, err := parseTrusted(file, data)
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return all, nil
}
