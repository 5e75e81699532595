// Package location opens the places where backups are kept, watches over them, and shows what they hold as Backup objects.
package location

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/plugins/kms"
	"kedge.dev/kedge/plugins/s3"
)

// StoreOptions are what a location does not say about its store.
type StoreOptions struct {
	// Create makes a folder that does not exist.
	Create bool
	// Gate is passed by everything that changes the store. Nil is always open.
	Gate *gate.Gate
	// Observe is told of every operation; nil is not.
	Observe func(ctx context.Context, e decorate.Event)
	Now     func() time.Time
}

// OpenStore opens the bucket or folder of a location.
func OpenStore(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, opts StoreOptions) (plugins.ObjectStore, error) {
	store, err := provider(ctx, spec, opts)
	if err != nil {
		return nil, err
	}
	return decorate.Wrap(store, decorate.Options{ReadOnly: spec.ReadOnly, Gate: opts.Gate, Observe: opts.Observe, Now: opts.Now})
}

func provider(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, opts StoreOptions) (plugins.ObjectStore, error) {
	switch {
	case spec.S3 != nil && spec.File != nil:
		return nil, fmt.Errorf("%w: both s3 and file are set", plugins.ErrConfig)
	case spec.S3 != nil:
		return s3.New(ctx, *spec.S3, s3.Options{Gate: opts.Gate, Now: opts.Now})
	case spec.File != nil:
		return file.New(*spec.File, file.Options{Create: opts.Create, Now: opts.Now})
	}
	return nil, fmt.Errorf("%w: neither s3 nor file is set", plugins.ErrConfig)
}

// KeyWrappers are the KMS keys of a location. They are reached with the credentials of its bucket, and where their id does not say
// otherwise, in its region.
func KeyWrappers(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, now func() time.Time) ([]plugins.KeyWrapper, error) {
	if spec.KMSKeyID == "" {
		return nil, nil
	}
	opts := kms.Options{KeyID: spec.KMSKeyID, Now: now}
	if s := spec.S3; s != nil {
		opts.Profile, opts.CredentialsFile, opts.RoleARN, opts.ExternalID = s.Profile, s.CredentialsFile, s.RoleARN, s.ExternalID
		if s.Endpoint == "" && !strings.HasPrefix(spec.KMSKeyID, "arn:") {
			opts.Region = s.Region
		}
	}
	wrapper, err := kms.New(ctx, opts)
	if err != nil {
		return nil, err
	}
	return []plugins.KeyWrapper{wrapper}, nil
}
