package main

import (
	"context"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/plugins/s3"
)

// openStore opens the bucket or folder of a location. With create a folder that does not exist is made.
func (a *app) openStore(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, create bool) (plugins.ObjectStore, error) {
	if spec.S3 != nil {
		return s3.New(ctx, *spec.S3, s3.Options{Now: a.env.Now})
	}
	folder := v1alpha1.FileLocation{}
	if spec.File != nil {
		folder = *spec.File
	}
	return file.New(folder, file.Options{Create: create, Now: a.env.Now})
}

// keyWrappers are the KMS keys of a location.
func (a *app) keyWrappers(_ context.Context, spec *v1alpha1.BackupStorageLocationSpec) ([]plugins.KeyWrapper, error) {
	if spec.KMSKeyID != "" {
		return nil, fmt.Errorf("open KMS key %s: %w", spec.KMSKeyID, plugins.ErrUnsupported)
	}
	return nil, nil
}
