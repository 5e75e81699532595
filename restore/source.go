package restore

import (
	"context"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// Source is where objects come from: a backup, or another cluster. Its objects lie in chunks that are read as a whole, and
// do not change while a Source is in use.
type Source interface {
	// Info says what the source is.
	Info() Info
	// Rows calls fn, from one goroutine at a time, with a row for each object of each chunk that match accepts, and with the number
	// of its chunk. Rows of a chunk come together. It stops at fn's first error, which it returns.
	Rows(ctx context.Context, match func(Chunk) bool, fn func(chunk int, row archive.Row) error) error
	// Read calls fn with each object of one chunk as JSON, which is valid during the call only. Several chunks may be read at
	// once. What is damaged is an error, before fn has seen anything of it.
	Read(ctx context.Context, chunk int, fn func(ref plugins.Ref, raw []byte) error) error
}

// Chunk says what may be in a chunk.
type Chunk struct {
	Group, Version, Resource string
	// MayHold says whether objects of the namespace may be in it.
	MayHold func(namespace string) bool
	// MayHoldName says whether the cluster-scoped object of that name may be in it.
	MayHoldName func(name string) bool
}

// Info describes a source.
type Info struct {
	// Name and UID are those of the backup.
	Name, UID string
	// Cluster is where the objects were.
	Cluster v1alpha1.ClusterInfo
	// APIs are the resources of that cluster, with all the versions that it served.
	APIs []archive.API
}
