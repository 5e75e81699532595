package restore

import (
	"context"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// FromArchive makes a Source of an opened backup. Its chunks are the backup's frames.
func FromArchive(r *archive.Reader) Source { return archiveSource{r} }

type archiveSource struct{ r *archive.Reader }

func (s archiveSource) Info() Info {
	rec := s.r.Record()
	return Info{Name: rec.Name, UID: rec.UID, Cluster: rec.Cluster, APIs: rec.APIs}
}

func (s archiveSource) Volumes(ctx context.Context) ([]archive.Volume, error) {
	return s.r.Volumes(ctx)
}

func (s archiveSource) Rows(ctx context.Context, match func(Chunk) bool, fn func(int, archive.Row) error) error {
	return s.r.Rows(ctx, func(f *archive.Frame) bool {
		return match(Chunk{Group: f.Group, Version: f.Version, Resource: f.Resource, MayHold: f.MayHold, MayHoldName: f.MayHoldKey})
	}, fn)
}

func (s archiveSource) Read(ctx context.Context, chunk int, fn func(plugins.Ref, []byte) error) error {
	return s.r.Items(ctx, chunk, fn)
}
