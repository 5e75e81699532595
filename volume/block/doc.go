// Package block copies volumes block by block between a provider's snapshots and the repository.
//
// A copy is a tree of small files: a folder for each GiB of the volume and in it a file for each block that is not all zeros. What did not change
// since the base is not read: files and whole folders are taken over by their object ids. docs/volume-repository.md describes the tree for those
// who have kopia only.
package block

import (
	"errors"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/repository"
)

// Kind is the Kind of the copies that this package makes.
const Kind = "blocks"

// Defaults of Options.
const (
	DefaultParallel        = 8
	DefaultCheckpointBytes = 8 << 30
	DefaultCheckpointEvery = 15 * time.Minute
	// DefaultCompression is kopia's name of zstd at its fastest: what a volume's blocks allow it gains nearly as much as "zstd", in half the time.
	DefaultCompression = "zstd-fastest"
)

// Errors that callers test for, with errors.Is.
var (
	// ErrBase means that the base copy is not what the source lists its differences to, or is gone. A copy without a base is always possible.
	ErrBase = errors.New("the base copy does not serve")
	// ErrDamaged means that a copy's bytes are not those that were stored.
	ErrDamaged = errors.New("the copy is damaged")
)

// Options say how bytes are moved. The zero value is good.
type Options struct {
	// Parallel bounds the blocks that are read, or written, at once; each takes 512 KiB, and while its pack is uploaded about 16 MiB.
	Parallel int
	// CheckpointBytes and CheckpointEvery say after how much reading, and after what time, what is done so far becomes safe and resumable.
	CheckpointBytes int64
	CheckpointEvery time.Duration
	// Compression is the name of a compressor of kopia: "zstd-fastest", "zstd", "zstd-better-compression", "none".
	Compression string
	// Progress, if set, is called after each block, by one goroutine at a time; it must be quick.
	Progress func(Progress)
}

// Progress is how far a copy, restore or verification is.
type Progress struct {
	Blocks int64 // done: read, written or verified
	Bytes  int64 // of them
	// TotalBytes are those known to be to do. It grows until Listed, as the source lists its blocks in the order in which they are read.
	TotalBytes int64
	Listed     bool
	// Offset is the volume's byte up to which all is done, SizeBytes the volume's size.
	Offset, SizeBytes int64
	// Elapsed is the time since the start, BytesPerSecond the mean rate over it.
	Elapsed        time.Duration
	BytesPerSecond float64
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = DefaultCheckpointBytes
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = DefaultCheckpointEvery
	}
	if o.Compression == "" {
		o.Compression = DefaultCompression
	}
	return o
}

// Request says what to copy.
type Request struct {
	Volume repository.Volume
	// Snapshot is the provider's id of what the source reads.
	Snapshot string
	// Base is the copy of the snapshot that the source compares with; nil where the source lists all blocks.
	Base *repository.Copy
}

const blockSize = plugins.BlockSize
