//go:build unix

package main

import (
	"context"
	"os"

	"filippo.io/age"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/bench/objects"
)

// frames is the size, in the bucket, of the frames that hold the objects of a namespace, the Namespace itself and the definition of its
// custom resources, with their index shards.
func (b *bench) frames(ctx context.Context, backup, namespace string) (int64, error) {
	if err := b.environment(); err != nil {
		return 0, err
	}
	store, err := s3.New(ctx, v1alpha1.S3Location{Bucket: b.bucket.Name, Region: b.s3.Region, Endpoint: b.s3.Endpoint, PathStyle: true}, s3.Options{})
	if err != nil {
		return 0, err
	}
	location, err := archive.Open(ctx, store)
	if err != nil {
		return 0, err
	}
	file, err := os.Open(b.identity())
	if err != nil {
		return 0, err
	}
	defer file.Close()
	identities, err := age.ParseIdentities(file)
	if err != nil {
		return 0, err
	}
	keys, err := location.Unlock(ctx, archive.UnlockOptions{Identities: identities})
	if err != nil {
		return 0, err
	}
	entry, err := location.Find(ctx, backup)
	if err != nil {
		return 0, err
	}
	reader, err := location.OpenBackup(ctx, entry, keys, archive.ReadOptions{})
	if err != nil {
		return 0, err
	}
	holding := map[int]bool{}
	err = reader.Rows(ctx, nil, func(frame int, row archive.Row) error {
		isNamespace := row.GroupResource() == "namespaces" && row.Name == namespace
		isDefinition := row.GroupResource() == "customresourcedefinitions.apiextensions.k8s.io" && row.Name == objects.DefinitionName
		if row.Namespace == namespace || isNamespace || isDefinition {
			holding[frame] = true
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var size int64
	for i := range holding {
		f := reader.Record().Frames[i]
		size += f.Size + f.Index.Size
	}
	return size, nil
}
