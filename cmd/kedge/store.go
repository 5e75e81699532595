package main

import (
	"context"
	"fmt"
	"strings"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/plugins/kms"
	"kedge.dev/kedge/plugins/s3"
)

// openStore opens the bucket or folder of a location. With create a folder that does not exist is made.
func (a *app) openStore(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, create bool) (plugins.ObjectStore, error) {
	store, err := a.provider(ctx, spec, create)
	if err != nil {
		return nil, err
	}
	return decorate.Wrap(store, decorate.Options{ReadOnly: spec.ReadOnly})
}

func (a *app) provider(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, create bool) (plugins.ObjectStore, error) {
	switch {
	case spec.S3 != nil && spec.File != nil:
		return nil, fmt.Errorf("%w: both s3 and file are set", plugins.ErrConfig)
	case spec.S3 != nil:
		return s3.New(ctx, *spec.S3, s3.Options{Now: a.env.Now})
	case spec.File != nil:
		return file.New(*spec.File, file.Options{Create: create, Now: a.env.Now})
	}
	return nil, fmt.Errorf("%w: neither s3 nor file is set", plugins.ErrConfig)
}

// keyWrappers are the KMS keys of a location. They are reached with the credentials of its bucket, and where their id does not say
// otherwise, in its region.
func (a *app) keyWrappers(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec) ([]plugins.KeyWrapper, error) {
	if spec.KMSKeyID == "" {
		return nil, nil
	}
	opts := kms.Options{KeyID: spec.KMSKeyID, Now: a.env.Now}
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
