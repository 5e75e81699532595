package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"kedge.dev/kedge/plugins"
)

const (
	// keyDerivation makes the key from the password. The password is 256 random bits, so it needs no expensive one; kopia's default takes
	// 64 MiB of memory whenever the repository is opened.
	keyDerivation = "pbkdf2-sha256-600000"
	// contentHash names chunks. Processors have instructions for SHA-256, amd64 and arm64 alike; for kopia's default, BLAKE2b, arm64 has none, and
	// on amd64 it took half as long again.
	contentHash = "HMAC-SHA256-128"
	// packBytes is how large the objects are that hold many chunks each. Writers hold some of them in memory; see docs/volume-repository.md.
	packBytes = 16 << 20
	// shardsFile tells kopia's folder storage that there are no subfolders.
	shardsFile = Folder + "/.shards"
)

// CreateOptions say how a new repository is.
type CreateOptions struct {
	Layout Layout
	// Retain is how long each blob is protected from removal when it is written, and again at each full maintenance (S3 Object Lock). Zero
	// does not; else it is at least 48 hours, since maintenance extends it once a day.
	Retain time.Duration
}

// minRetain is a full maintenance's interval and the day of margin that kopia asks for.
const minRetain = 48 * time.Hour

// create makes the repository's first two blobs, unless another has: of any number of creators with the same password one wins, and all of
// them can open what it made. The blob that makes it a repository is written last.
func create(ctx context.Context, store plugins.ObjectStore, password string, opts CreateOptions) error {
	if opts.Retain != 0 && opts.Retain < minRetain {
		return fmt.Errorf("create volume repository in %s: retention of %v is shorter than %v", store, opts.Retain, minRetain)
	}
	blobs, err := firstBlobs(ctx, password, opts)
	if err != nil {
		return fmt.Errorf("create volume repository in %s: %w", store, err)
	}
	put := plugins.PutOptions{IfNoneMatch: true}
	if opts.Layout == LayoutFolder {
		blobs[shardsFile] = []byte(`{"default":[],"maxNonShardedLength":20}` + "\n")
	}
	last := opts.Layout.key(format.KopiaRepositoryBlobID)
	order := slices.Sorted(maps.Keys(blobs))
	order = append(slices.DeleteFunc(order, func(key string) bool { return key == last }), last)
	for _, key := range order {
		_, err := store.Put(ctx, key, bytes.NewReader(blobs[key]), put)
		if err != nil && !errors.Is(err, plugins.ErrExists) {
			return fmt.Errorf("create volume repository in %s: %w", store, err)
		}
	}
	return nil
}

// firstBlobs has kopia make the blobs of a new repository in memory, by key. Left to itself it would look first and then write, and two
// creators would overwrite each other's master key.
func firstBlobs(ctx context.Context, password string, opts CreateOptions) (map[string][]byte, error) {
	// The second blob is encrypted with a key made of password and unique id. With the id made of the password, those of two creators fit
	// together, whoever wrote which.
	id := sha256.Sum256([]byte("kedge.dev/kedge volume repository " + password))
	options := &repo.NewRepositoryOptions{UniqueID: id[:], FormatBlockKeyDerivationAlgorithm: keyDerivation}
	options.BlockFormat.MaxPackSize = packBytes
	options.BlockFormat.Hash = contentHash
	if opts.Retain > 0 {
		options.RetentionMode, options.RetentionPeriod = blob.Governance, opts.Retain
	}
	made := &capture{blobs: map[blob.ID][]byte{}}
	if err := repo.Initialize(ctx, made, options, password); err != nil {
		return nil, err
	}
	byKey := map[string][]byte{}
	for id, data := range made.blobs {
		byKey[opts.Layout.key(id)] = data
	}
	return byKey, nil
}

// capture is a storage that is empty, and keeps what is put.
type capture struct {
	blob.DefaultProviderImplementation
	blobs map[blob.ID][]byte
}

func (c *capture) GetBlob(context.Context, blob.ID, int64, int64, blob.OutputBuffer) error {
	return blob.ErrBlobNotFound
}

func (c *capture) GetMetadata(context.Context, blob.ID) (blob.Metadata, error) {
	return blob.Metadata{}, blob.ErrBlobNotFound
}

func (c *capture) ListBlobs(context.Context, blob.ID, func(blob.Metadata) error) error { return nil }

func (c *capture) PutBlob(_ context.Context, id blob.ID, data blob.Bytes, _ blob.PutOptions) error {
	var b bytes.Buffer
	if _, err := data.WriteTo(&b); err != nil {
		return err
	}
	c.blobs[id] = b.Bytes()
	return nil
}

func (c *capture) DeleteBlob(context.Context, blob.ID) error { return blob.ErrBlobNotFound }

func (c *capture) ConnectionInfo() blob.ConnectionInfo { return blob.ConnectionInfo{} }

func (c *capture) DisplayName() string { return "memory" }

// Exists says whether the location has a repository.
func Exists(ctx context.Context, store plugins.ObjectStore) (bool, error) {
	_, err := find(ctx, store)
	if errors.Is(err, ErrNoRepository) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a volume repository in %s: %w", store, err)
	}
	return true, nil
}

// find tells which layout the repository in the store has; the error wraps ErrNoRepository where there is none.
func find(ctx context.Context, store plugins.ObjectStore) (Layout, error) {
	for _, layout := range []Layout{LayoutBucket, LayoutFolder} {
		_, err := store.Stat(ctx, layout.key(format.KopiaRepositoryBlobID))
		if err == nil {
			return layout, nil
		}
		if !errors.Is(err, plugins.ErrNotFound) {
			return 0, err
		}
	}
	return 0, ErrNoRepository
}
