package location

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/outcome"
)

// initialize makes an empty store a location that the spec's recipients and KMS key open. Of several servers one wins, and all open
// what it made.
func (r *Registry) initialize(ctx context.Context, store plugins.ObjectStore, name string, spec *v1alpha1.BackupStorageLocationSpec) (*archive.Location, error) {
	switch {
	case spec.PublicKey != "":
		return nil, outcome.Waiting("NotALocation", time.Minute, fmt.Errorf("%s is no location, though spec.publicKey says that it was one: check bucket and prefix", store))
	case spec.ReadOnly:
		return nil, outcome.Waiting("NotALocation", time.Minute, fmt.Errorf("%s is no location, and spec.readOnly forbids to make it one: check bucket and prefix", store))
	case len(spec.AgeRecipients) == 0 && spec.KMSKeyID == "":
		return nil, outcome.Stalled("NothingOpensIt", fmt.Errorf("%s is no location yet, and nothing is given that could open it again: set spec.kmsKeyID or spec.ageRecipients, or make it one with kedge location create", store))
	}
	recipients, err := age.ParseRecipients(strings.NewReader(strings.Join(spec.AgeRecipients, "\n")))
	if len(spec.AgeRecipients) == 0 {
		recipients, err = nil, nil
	}
	if err != nil {
		return nil, outcome.Stalled("InvalidAgeRecipient", errors.New("read spec.ageRecipients: one of them is no age recipient that can be read: a recipient begins with age1; age-keygen prints it"))
	}
	if err := suitable(ctx, store, spec); err != nil {
		return nil, err
	}
	wrappers, err := KeyWrappers(ctx, spec, r.Now)
	if err != nil {
		return nil, err
	}
	located, _, err := archive.Init(ctx, store, archive.InitOptions{Recipients: recipients, Wrappers: wrappers, Now: r.Now, Rand: rand.Reader})
	if err != nil {
		if again, openErr := archive.Open(ctx, store); openErr == nil {
			return again, nil
		}
		return nil, fmt.Errorf("make %s a location: %w", name, err)
	}
	return located, nil
}

// suitable tries what a location needs of a store, before anything is made: above all that it refuses to overwrite.
func suitable(ctx context.Context, store plugins.ObjectStore, spec *v1alpha1.BackupStorageLocationSpec) error {
	checker, ok := plugins.As[plugins.Checker](store)
	if !ok {
		return nil
	}
	for _, f := range checker.Check(ctx, plugins.CheckOptions{ObjectLock: spec.ObjectLock}) {
		if f.Level == plugins.LevelFailed {
			return outcome.Waiting("Unsuitable", time.Minute, fmt.Errorf("check %s: %s: %s: %s", store, f.Name, f.Detail, f.Remedy))
		}
	}
	return ctx.Err()
}

// Keys opens the location's private key with the age identity or the KMS key that the location names. It stays open.
func (p *Place) Keys(ctx context.Context) (*archive.Keys, error) {
	p.keysMu.Lock()
	defer p.keysMu.Unlock()
	if p.keys != nil {
		return p.keys, nil
	}
	var opts archive.UnlockOptions
	if ref := p.Object.Spec.AgeIdentitySecret; ref != nil {
		data, err := p.registry.secret(ctx, p.Object, "spec.ageIdentitySecret", ref)
		if err != nil {
			return nil, err
		}
		identities, err := age.ParseIdentities(bytes.NewReader(data))
		if err != nil { // the library's text may quote the line, which may be a damaged secret key
			return nil, outcome.Waiting("InvalidAgeIdentity", time.Minute, fmt.Errorf("read spec.ageIdentitySecret of location %s: key %q of Secret %s holds no age identity that can be read: it is a line AGE-SECRET-KEY-1…, as age-keygen writes it", p.Object.Name, ref.Key, ref.Name))
		}
		opts.Identities = identities
	}
	wrappers, err := KeyWrappers(ctx, &p.Object.Spec, p.registry.Now)
	if err != nil {
		return nil, err
	}
	opts.Wrappers = wrappers
	keys, err := p.Archive.Unlock(ctx, opts)
	if errors.Is(err, archive.ErrNoKey) {
		return nil, outcome.Waiting("NoKey", time.Minute, fmt.Errorf("unlock location %s: %w: name the Secret with the age identity in spec.ageIdentitySecret, or let the server use the KMS key", p.Object.Name, err))
	}
	if err != nil {
		return nil, fmt.Errorf("unlock location %s: %w", p.Object.Name, err)
	}
	p.keys = keys
	return keys, nil
}
