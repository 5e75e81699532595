package plugins

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// VolumeProvider knows the volumes of one storage service: which PersistentVolumes are its own, and what they are made of. What it
// can do beyond that is another interface of this package: VolumeSnapshotter, BlockSnapshots, SnapshotCopier, VolumeReleaser, FolderProvider.
//
// Every method may be called from many goroutines and obeys its context promptly. Errors are *VolumeError: they wrap ErrVolumeGone,
// ErrVolumeQuota, ErrAccess or ErrConfig where one fits, and say which operation on which volume or snapshot failed.
type VolumeProvider interface {
	// Name is what records and reports call the provider: "ebs". It is part of the format and never changes.
	Name() string
	// Handle gives the provider's own name of a PersistentVolume's storage ("vol-0123456789abcdef0"), whatever driver made it
	// (CSI, EKS Auto Mode, in-tree); ok is false where the volume is another provider's.
	Handle(pv *corev1.PersistentVolume) (handle string, ok bool)
	// Describe tells what the service says of volumes, by handle; those that do not exist are left out.
	Describe(ctx context.Context, handles []string) (map[string]Volume, error)
	// Rebind makes pv, in place, the PersistentVolume of another volume: handle, attributes, size and where it can be used.
	Rebind(pv *corev1.PersistentVolume, v Volume) error
}

// AttributeKey names, among the attributes of a volume, the key that it is encrypted with, and AttributeEncrypted that it is.
const (
	AttributeKey       = "kmsKeyId"
	AttributeEncrypted = "encrypted"
)

// Volume is one volume as its service describes it.
type Volume struct {
	Handle    string `json:"handle"`
	SizeBytes int64  `json:"sizeBytes"`
	// Region and Zone are where it is: "eu-west-1", "eu-west-1a". Empty where the service has no such thing.
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// AttachedTo is the instance that uses it, if exactly one does.
	AttachedTo string `json:"attachedTo,omitempty"`
	// Attributes are what a new volume needs to be like this one, in the provider's words: type, iops, throughput, kmsKeyId, encrypted.
	Attributes map[string]string `json:"attributes,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	// Created is when it was made, by the service's clock; zero where the service does not say. Archives do not hold it.
	Created time.Time `json:"-"`
}

// SnapshotState is how far a snapshot is.
type SnapshotState string

// The states of a snapshot.
const (
	SnapshotPending   SnapshotState = "pending"   // its moment is fixed; its data is still being stored
	SnapshotCompleted SnapshotState = "completed" // usable
	SnapshotFailed    SnapshotState = "failed"    // never usable
)

// Snapshot is one volume's state at one moment, kept by the provider.
type Snapshot struct {
	ID        string        `json:"id"`
	Handle    string        `json:"handle"` // of the volume that it was taken of
	SizeBytes int64         `json:"sizeBytes"`
	State     SnapshotState `json:"state"`
	// Started is the moment that the data is of, by the service's clock.
	Started time.Time `json:"started"`
	// Progress is percent stored, 0 to 100; -1 where the service does not say.
	Progress int               `json:"progress"`
	Message  string            `json:"message,omitempty"` // why it failed
	Tags     map[string]string `json:"tags,omitempty"`
	// Account is whose snapshot it is, and KMSKeyID what it is encrypted with. Empty where the service has no such thing.
	Account  string `json:"account,omitempty"`
	KMSKeyID string `json:"kmsKeyID,omitempty"`
}

// SnapshotRequest asks for snapshots of volumes.
type SnapshotRequest struct {
	// Token makes the request repeatable: it is written to each snapshot as it is made, so that a request whose reply was lost
	// finds its snapshots and makes none twice. One token is for one set of handles; with another it is refused (ErrConfig), and what it
	// made stays. Calls of one process may be at once; that no two processes ask with one token at once is the caller's to see to.
	Token   string
	Handles []string
	// Retry says that the token may have been used before, by a process that did not live to see the answer. What cannot be found at once is
	// then looked for until the service is sure to show it, before it is asked for. (Within one call a lost reply is always treated so.)
	Retry bool
	// Tags are set on each snapshot as it is made. ByHandle adds some for one volume's snapshot where the service can make them
	// differ within one call; else they are set right after.
	Tags     map[string]string
	ByHandle map[string]map[string]string
}

// VolumeRequest asks for a new volume.
type VolumeRequest struct {
	// Token makes the request repeatable, as in SnapshotRequest. One token is for one request: the same with other values is refused.
	Token string
	// SnapshotID is what the volume is made from; empty for an empty volume. For StartBlocks it is the parent, whose blocks the new snapshot
	// has where none are written.
	SnapshotID string
	SizeBytes  int64 // zero means the snapshot's
	Zone       string
	Attributes map[string]string // as in Volume
	Tags       map[string]string
	// For is the PersistentVolume that will name the volume, as far as it is known, and Namespace where its claim is or will be. They are for
	// providers that have volumes made by the cluster; others need neither.
	For       *corev1.PersistentVolume
	Namespace string
}

// VolumeExplainer is a VolumeProvider that can say why it has to do with no volumes like pv.
type VolumeExplainer interface {
	// Why is half a sentence; "" where there is nothing to say.
	Why(pv *corev1.PersistentVolume) string
}

// VolumeReleaser is a VolumeSnapshotter whose volumes have something of their own in the cluster until PersistentVolumes name them.
type VolumeReleaser interface {
	// Release removes that of the volumes with all of the tags which a PersistentVolume names. The volumes stay.
	Release(ctx context.Context, tags map[string]string) error
}

// VolumeSnapshotter is a VolumeProvider that takes snapshots and makes volumes from them.
type VolumeSnapshotter interface {
	VolumeProvider
	// Snapshot fixes the state of the volumes and returns once each one's moment is fixed, in general before the snapshots are
	// completed: one snapshot per handle, in the order of the handles. Volumes of one instance have one common moment where the
	// service can do that. With an error nothing that was made is lost: a call with the same token finds it.
	Snapshot(ctx context.Context, req SnapshotRequest) ([]Snapshot, error)
	// FindSnapshots gives the snapshots that have all of the tags; at least one tag is needed.
	FindSnapshots(ctx context.Context, tags map[string]string) ([]Snapshot, error)
	// DescribeSnapshots tells the state of snapshots by id; those that do not exist are left out. With an error those are there that something can be
	// said of.
	DescribeSnapshots(ctx context.Context, ids []string) (map[string]Snapshot, error)
	// DeleteSnapshot removes a snapshot. Removing what is not there succeeds.
	DeleteSnapshot(ctx context.Context, id string) error
	// CreateVolume makes a volume and returns when it can be used.
	CreateVolume(ctx context.Context, req VolumeRequest) (Volume, error)
	// FindVolumes gives the volumes that have all of the tags; at least one tag is needed.
	FindVolumes(ctx context.Context, tags map[string]string) ([]Volume, error)
	// DeleteVolume removes a volume that CreateVolume made and nobody uses; it refuses any other. Removing what is not there succeeds.
	DeleteVolume(ctx context.Context, handle string) error
}

// BlockSize is how many bytes a block of BlockSource and BlockTarget has: 512 KiB, as in the EBS direct APIs. The last block of a
// volume may be shorter.
const BlockSize = 512 << 10

// Block names one block of a snapshot.
type Block struct {
	Index int64 // its offset is Index * BlockSize
	// Token is what the service wants to see when the block is read. It expires; BlockSource renews it by itself.
	Token string
	// Gone means that the block was in the base and is not in the snapshot: it reads as zeros, and ReadBlock is not for it.
	Gone bool
}

// BlockSource reads the blocks of one completed snapshot.
type BlockSource interface {
	// SizeBytes is the volume's size.
	SizeBytes() int64
	// Base is the snapshot whose difference to this one Blocks lists; empty where Blocks lists all that is allocated.
	Base() string
	// Blocks calls fn for each block, in ascending order of Index, and stops at its first error, which it returns as it is. Blocks that
	// are not listed are as in the base; without one they are zeros.
	Blocks(ctx context.Context, fn func(Block) error) error
	// ReadBlock reads a block into buf, which has BlockSize bytes, and checks its checksum. It returns the block's length.
	ReadBlock(ctx context.Context, b Block, buf []byte) (int, error)
}

// SummedBlocks is a BlockSource that checks its blocks by their SHA-256, and gives it to who would compute it once more.
type SummedBlocks interface {
	BlockSource
	// ReadSummedBlock is ReadBlock, with the sum of the bytes that are in buf.
	ReadSummedBlock(ctx context.Context, b Block, buf []byte) (n int, sum [sha256.Size]byte, err error)
}

// BlockTarget takes the blocks of a new snapshot, in any order, from many goroutines. Where its token's snapshot is sealed already, by a process that
// did not live to see it, blocks are taken and thrown away, and Complete returns that snapshot.
type BlockTarget interface {
	// SnapshotID is the new snapshot's; who gives up deletes it.
	SnapshotID() string
	// WriteBlock stores one block. Repeating it with the same bytes is harmless.
	WriteBlock(ctx context.Context, index int64, data []byte) error
	// Complete seals the snapshot, into which so many different blocks were written (by all processes that had the token), and returns it
	// when it is completed.
	Complete(ctx context.Context, blocks int64) (Snapshot, error)
}

// BlockSnapshots is a VolumeSnapshotter whose snapshots' bytes can be read and written without a machine that mounts them.
type BlockSnapshots interface {
	VolumeSnapshotter
	// OpenBlocks opens a completed snapshot; with a base, only what differs from it is listed. Where the service cannot compare the two (the
	// base is gone, of another volume, of another size) the error wraps ErrNoBase, and the caller reads all.
	OpenBlocks(ctx context.Context, snapshotID, base string) (BlockSource, error)
	// StartBlocks begins a new snapshot, or goes on with the one of the same token. Attributes (kmsKeyId) and Tags are of the snapshot.
	StartBlocks(ctx context.Context, req VolumeRequest) (BlockTarget, error)
}

// FolderProvider is a VolumeProvider whose volumes are folders of file systems that outlive clusters (EFS). Movers copy and restore their files; the
// provider knows what the folder is reached by, and Describe gives what that needs to be made again.
type FolderProvider interface {
	VolumeProvider
	// FileSystem is the id of the file system of a handle; "" where it has none.
	FileSystem(handle string) string
	// Within gives those of the other handles whose folder is that of handle or lies below it, by whatever way they reach it.
	Within(ctx context.Context, handle string, others []string) ([]string, error)
	// Ensure gives a way to a folder: the source itself where it is there still, else a new one to the same folder. Of a file system that is gone
	// the error wraps ErrVolumeGone.
	Ensure(ctx context.Context, req FolderRequest) (Volume, error)
}

// FolderRequest asks for a way to a folder.
type FolderRequest struct {
	// Token makes the request repeatable, as in SnapshotRequest.
	Token string
	// Source is the folder as Describe gave it.
	Source Volume
	// FileSystem is another one to take the folder of; empty is the source's own.
	FileSystem string
	Tags       map[string]string // of what is made
}

// Errors that callers of a VolumeProvider test for, with errors.Is.
var (
	// ErrVolumeGone means that a volume or snapshot does not exist, or is one that failed and will never be usable.
	ErrVolumeGone  = errors.New("no such volume or snapshot")
	ErrVolumeQuota = errors.New("the account's quota does not allow it")
	ErrNoBase      = errors.New("the snapshots cannot be compared")
)

// VolumeError is a refusal or failure of a VolumeProvider, with what its reader can do about it.
type VolumeError struct {
	Op       string // "snapshot", "create volume", "read block", …
	Provider string // VolumeProvider.Name()
	Object   string // the volume or snapshot; empty where there is none yet
	Err      error  // wraps one of the sentinels where one fits
	Remedy   string // one sentence in the imperative; empty where nothing better than trying again is known
}

// Error says what failed, on what, why, and what to do.
func (e *VolumeError) Error() string {
	msg := e.Provider + ": " + e.Op
	if e.Object != "" {
		msg += " " + e.Object
	}
	msg += fmt.Sprintf(": %v", e.Err)
	if e.Remedy != "" {
		msg += " (" + e.Remedy + ")"
	}
	return msg
}

// Unwrap gives the cause.
func (e *VolumeError) Unwrap() error { return e.Err }
