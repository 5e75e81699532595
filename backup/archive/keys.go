package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"kedge.dev/kedge/plugins"
)

// stanzaKMS is the type of the age stanza whose body a KeyWrapper made; its argument is the key's id.
const stanzaKMS = "kedge.dev/kms"

// Keys is the opened key pair of a location. It prints as its public half.
type Keys struct {
	identity *age.X25519Identity
}

// PublicKey is the public half, "age1…".
func (k *Keys) PublicKey() string { return k.identity.Recipient().String() }

// String is the public half, so that no log or error shows the private one.
func (k *Keys) String() string { return k.PublicKey() }

// GoString is the public half.
func (k *Keys) GoString() string { return k.PublicKey() }

// Identity opens the location's files with age. It is the private key: show it to nobody who may not read every backup.
func (k *Keys) Identity() *age.X25519Identity { return k.identity }

// Seal encrypts a small secret to the location: what has its private key can open it, as it can the backups.
func (k *Keys) Seal(plain []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, k.identity.Recipient())
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", k, err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal for %s: %w", k, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal for %s: %w", k, err)
	}
	return sealed.Bytes(), nil
}

// Open is the reverse of Seal, for what has at most 64 KiB.
func (k *Keys) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.identity)
	if err != nil {
		return nil, fmt.Errorf("open with %s: %w", k, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err == nil && len(plain) > maxSmall {
		err = ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("open with %s: %w", k, err)
	}
	return plain, nil
}

func generateKeys() (*Keys, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	return &Keys{id}, nil
}

// UnlockOptions are keys of which one may open a location.
type UnlockOptions struct {
	Identities []age.Identity
	Wrappers   []plugins.KeyWrapper
}

// Unlock opens the newest key file that one of the given keys opens and that belongs to the location's public key.
// The error is a *NoKeyError, an ErrNoKey, where none does.
func (l *Location) Unlock(ctx context.Context, opts UnlockOptions) (*Keys, error) {
	files, err := l.series(ctx, keysPrefix, ".age")
	if err != nil {
		return nil, fmt.Errorf("unlock %s: %w", l.store, err)
	}
	refused := &NoKeyError{Store: l.store.String()}
	var damaged error
	var others []string
	for _, f := range slices.Backward(files) {
		doc, err := readAll(ctx, l.store, f.key, maxSmall)
		if err != nil {
			return nil, fmt.Errorf("unlock %s: %w", l.store, err)
		}
		keys, err := unwrapKeys(ctx, doc, opts, refused)
		switch {
		case err == nil && keys.PublicKey() == l.info.PublicKey:
			return keys, nil
		case err == nil:
			// It opens, and holds another key: of an Init that did not finish, or of an intruder.
			others = append(others, keys.PublicKey())
		case errors.Is(err, ErrNoKey):
		default:
			damaged = cmp.Or(damaged, error(&DamageError{
				File: f.key, Offset: -1, Detail: "it cannot be read", Err: err,
				Remedy: "bring back an undamaged copy of it; another file below keys/ may open too",
			}))
		}
	}
	if len(others) > 0 {
		err := fmt.Errorf("unlock %s: %w: kedge.json says %s, the key files that open hold %s (find out who changed the bucket)",
			l.store, ErrKeyMismatch, l.info.PublicKey, strings.Join(others, ", "))
		return nil, errors.Join(err, damaged)
	}
	if damaged != nil {
		return nil, fmt.Errorf("unlock %s: %w", l.store, damaged)
	}
	slices.Sort(refused.Wanted)
	refused.Wanted = slices.Compact(refused.Wanted)
	return nil, refused
}

// unwrapKeys opens one key file; an ErrNoKey means that it is not for any of the given keys.
func unwrapKeys(ctx context.Context, doc []byte, opts UnlockOptions, refused *NoKeyError) (*Keys, error) {
	identities := slices.Clone(opts.Identities)
	spy := &stanzaSpy{refused: refused}
	identities = append(identities, spy)
	for _, w := range opts.Wrappers {
		identities = append(identities, kmsIdentity{keyID: w.KeyID(), unwrap: func(b []byte) ([]byte, error) {
			plain, err := w.Unwrap(ctx, b)
			if err != nil {
				refused.Err = err
			}
			return plain, err
		}})
	}
	r, err := age.Decrypt(bytes.NewReader(doc), identities...)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	return parseKeys(r)
}

func parseKeys(r io.Reader) (*Keys, error) {
	plain, err := io.ReadAll(io.LimitReader(r, maxSmall))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(plain)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			return nil, errors.New("it holds no age identity") // the cause may quote the line
		}
		return &Keys{id}, nil
	}
	return nil, errors.New("it holds no age identity")
}

// stanzaSpy opens nothing; it notes what would.
type stanzaSpy struct{ refused *NoKeyError }

// Unwrap implements age.Identity.
func (s *stanzaSpy) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, st := range stanzas {
		what := fmt.Sprintf("an age key of type %q", st.Type)
		switch {
		case st.Type == stanzaKMS && len(st.Args) == 1:
			what = fmt.Sprintf("KMS key %q", st.Args[0])
		case st.Type == "X25519":
			what = "an age key (AGE-SECRET-KEY-1…)"
		}
		if len(s.refused.Wanted) < 32 {
			s.refused.Wanted = append(s.refused.Wanted, what)
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// kmsIdentity opens stanzas with a key service. A call of the service that fails leaves the others their chance.
type kmsIdentity struct {
	keyID  string
	unwrap func([]byte) ([]byte, error)
}

// Unwrap implements age.Identity.
func (k kmsIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, st := range stanzas {
		if st.Type != stanzaKMS || len(st.Args) != 1 {
			continue
		}
		// Any wrapper may try: an alias and an ARN can name the same key.
		if key, err := k.unwrap(st.Body); err == nil && len(key) == 16 {
			return key, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// kmsRecipient makes such stanzas.
type kmsRecipient struct {
	keyID string
	wrap  func([]byte) ([]byte, error)
}

// Wrap implements age.Recipient.
func (k kmsRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	body, err := k.wrap(fileKey)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanzaKMS, Args: []string{k.keyID}, Body: body}}, nil
}

// wrap encrypts the private key to everyone who shall open the location, and tries the key services at once: a key
// that can wrap but not unwrap would be found out on the worst day.
func (l *Location) wrap(ctx context.Context, keys *Keys, recipients []age.Recipient, wrappers []plugins.KeyWrapper) ([]byte, error) {
	if len(recipients)+len(wrappers) == 0 {
		return nil, fmt.Errorf("wrap the location's key: %w: name at least one age recipient or KMS key; without one nobody could ever read a backup", ErrInvalid)
	}
	all := slices.Clone(recipients)
	for _, w := range wrappers {
		if id := w.KeyID(); id == "" || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, fmt.Errorf("wrap the location's key: %w: KMS key id %q", ErrInvalid, id)
		}
		all = append(all, kmsRecipient{w.KeyID(), func(b []byte) ([]byte, error) { return w.Wrap(ctx, b) }})
	}
	var buf bytes.Buffer
	out, err := age.Encrypt(&buf, all...)
	if err != nil {
		return nil, fmt.Errorf("wrap the location's key: %w", err)
	}
	if _, err := fmt.Fprintf(out, "# private key of the backup location %s\n# public key: %s\n%s\n", l.info.ID, keys.PublicKey(), keys.identity.String()); err != nil {
		return nil, fmt.Errorf("wrap the location's key: %w", err)
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("wrap the location's key: %w", err)
	}
	for _, w := range wrappers {
		refused := &NoKeyError{Store: l.store.String()}
		got, err := unwrapKeys(ctx, buf.Bytes(), UnlockOptions{Wrappers: []plugins.KeyWrapper{w}}, refused)
		if err != nil || got.PublicKey() != keys.PublicKey() {
			return nil, fmt.Errorf("try the key %s: it wraps, but does not unwrap: %w", w.KeyID(), errors.Join(err, refused.Err))
		}
	}
	return buf.Bytes(), nil
}

// RewrapOptions is the complete new list of who opens the location.
type RewrapOptions struct {
	Recipients []age.Recipient
	Wrappers   []plugins.KeyWrapper
}

// Rewrap adds a key file with the same private key for new recipients. Older key files stay, and who could open them
// still can, until they are deleted from the bucket; what a recipient has read before cannot be taken back.
func (l *Location) Rewrap(ctx context.Context, keys *Keys, opts RewrapOptions) error {
	if keys.PublicKey() != l.info.PublicKey {
		return fmt.Errorf("rewrap the key of %s: %w: the location has %s, the given key is %s", l.store, ErrKeyMismatch, l.info.PublicKey, keys)
	}
	wrapped, err := l.wrap(ctx, keys, opts.Recipients, opts.Wrappers)
	if err != nil {
		return fmt.Errorf("rewrap the key of %s: %w", l.store, err)
	}
	if _, err := l.addNumbered(ctx, keysPrefix, ".age", wrapped); err != nil {
		return fmt.Errorf("rewrap the key of %s: %w", l.store, err)
	}
	return nil
}

func sortNumbered(s []numbered) {
	slices.SortFunc(s, func(a, b numbered) int { return cmp.Compare(a.n, b.n) })
}
