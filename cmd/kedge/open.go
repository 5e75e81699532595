package main

import (
	"context"
	"errors"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/volume/repository"
)

// place is a configured location whose bucket is open.
type place struct {
	config   *config
	object   *v1alpha1.BackupStorageLocation
	store    plugins.ObjectStore
	location *archive.Location
}

// openPlace opens the bucket of a configured location and checks that its key is the pinned one.
func (a *app) openPlace(ctx context.Context, c *config, name string) (*place, error) {
	object, err := c.location(name)
	if err != nil {
		return nil, err
	}
	store, err := location.OpenStore(ctx, &object.Spec, location.StoreOptions{Now: a.env.Now})
	if err != nil {
		return nil, fmt.Errorf("open location %s: %w", object.Name, err)
	}
	opened, err := archive.Open(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("open location %s: %w", object.Name, err)
	}
	if pinned := object.Spec.PublicKey; pinned != "" && pinned != opened.PublicKey() {
		return nil, codeError(exitRefused, fmt.Errorf("open location %s: the bucket says that its key is %s, the configuration says %s", object.Name, opened.PublicKey(), pinned),
			"somebody replaced what is in the bucket, or it is another bucket; if that is meant, delete the location here and add it again")
	}
	opened = opened.WithElsewhere(location.RemoveSnapshots(&object.Spec, nil, opened.ID(), func() (*kube.Client, error) {
		client, _, err := a.cluster(0)
		return client, err
	}, func(_ context.Context, left error) { a.ui.Warn("%v", left) }))
	return &place{config: c, object: object, store: store, location: opened}, nil
}

// unlock opens the location's private key with the identities or the KMS key at hand.
func (a *app) unlock(ctx context.Context, p *place) (*archive.Keys, error) {
	identities, err := a.identities(p.config)
	if err != nil {
		return nil, err
	}
	wrappers, err := location.KeyWrappers(ctx, &p.object.Spec, a.env.Now)
	if err != nil {
		return nil, err
	}
	keys, err := p.location.Unlock(ctx, archive.UnlockOptions{Identities: identities, Wrappers: wrappers})
	if err != nil {
		return nil, fmt.Errorf("unlock location %s: %w", p.object.Name, err)
	}
	return keys, nil
}

// openRepository opens the repository of volume copies of a location, and makes it where there is none, without a cache: a command uses it once.
func (a *app) openRepository(ctx context.Context, p *place) (*repository.Repository, error) {
	return a.repository(ctx, p, p.object.Spec.ReadOnly)
}

// readRepository opens the repository of volume copies of a location for reading.
func (a *app) readRepository(ctx context.Context, p *place) (*repository.Repository, error) {
	return a.repository(ctx, p, true)
}

func (a *app) repository(ctx context.Context, p *place, readOnly bool) (*repository.Repository, error) {
	keys, err := a.unlock(ctx, p)
	if err != nil {
		return nil, err
	}
	return location.Repository(ctx, p.store, keys, repository.Options{Now: a.env.Now, ReadOnly: readOnly})
}

// unlockIfPossible is unlock for commands that can do a part of their work without keys; it gives nil where there are none.
func (a *app) unlockIfPossible(ctx context.Context, p *place) (*archive.Keys, error) {
	keys, err := a.unlock(ctx, p)
	if errors.Is(err, archive.ErrNoKey) {
		return nil, nil
	}
	return keys, err
}

// found is a backup in an open location.
type found struct {
	*place
	entry archive.Entry
}

// findBackup opens the location and finds a backup by name or uid.
func (a *app) findBackup(ctx context.Context, c *config, location, name string) (*found, error) {
	p, err := a.openPlace(ctx, c, location)
	if err != nil {
		return nil, err
	}
	entry, err := p.location.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	return &found{place: p, entry: entry}, nil
}

// read opens a backup for reading its objects.
func (a *app) read(ctx context.Context, f *found) (*archive.Reader, error) {
	keys, err := a.unlock(ctx, f.place)
	if err != nil {
		return nil, err
	}
	trusted, err := a.keys.trusted(f.object.Spec.TrustedKeys)
	if err != nil {
		return nil, err
	}
	reader, err := f.location.OpenBackup(ctx, f.entry, keys, archive.ReadOptions{TrustedKeys: trusted, RequireSignature: a.keys.require})
	if err != nil {
		return nil, fmt.Errorf("open backup %s: %w", f.entry.Name, err)
	}
	return reader, nil
}
