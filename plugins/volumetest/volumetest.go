// Package volumetest is the conformance suite of plugins.VolumeSnapshotter, plugins.BlockSnapshots and plugins.SnapshotCopier: what their prose promises, as tests that
// every provider must pass.
package volumetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
)

// World is a provider, and what its volumes are used with. Each test gets a fresh one, in which nothing else makes volumes or snapshots.
type World struct {
	Provider plugins.VolumeSnapshotter
	// Another opens the same service as a process does that has just started.
	Another func(t *testing.T) plugins.VolumeSnapshotter

	// NewVolume makes a volume of at least 1 GiB and less than 2. Volumes of one machine (which is any word) are attached to the same instance,
	// those of "" to none.
	NewVolume func(t *testing.T, machine string) string
	// Write and Read use a volume's bytes.
	Write func(t *testing.T, handle string, offset int64, data []byte)
	Read  func(t *testing.T, handle string, offset int64, n int) []byte
	// Discard makes a range of the volume as if it had never been written. Nil where that cannot be.
	Discard func(t *testing.T, handle string, offset, length int64)

	// Volumes and Snapshots are the ids of all that exist, whatever their state.
	Volumes, Snapshots func() []string
	// Zone is where new volumes can be made, and Attributes are some that they can have.
	Zone       string
	Attributes map[string]string
	// PersistentVolumes are a volume's, in every form that the provider knows.
	PersistentVolumes func(handle string) []*corev1.PersistentVolume
	// Unknown are a volume and a snapshot that never were.
	UnknownVolume, UnknownSnapshot string

	// LoseReplies has the next call of every operation that makes something performed, but its reply lost.
	LoseReplies func()
	// BeforeEachSnapshot has fn called before each call of the service that takes snapshots, of however many volumes. Nil where that cannot be.
	BeforeEachSnapshot func(fn func())
	// Pause lets some time go by, until a snapshot may have become completed.
	Pause func()
	// ExpireTokens makes the tokens of blocks that are known now invalid, and DamageRead changes a byte of the next block on its way. Nil where
	// there is no such thing.
	ExpireTokens, DamageRead func()

	// Places are where snapshots can be copied to: another region, another account.
	Places []Place
	// BadKey is one that no copy can be encrypted with.
	BadKey string
	// NoRoom has the next call that copies refused, because as many copies are under way as there may be.
	NoRoom func()
}

// Place is one that copies go to.
type Place struct {
	plugins.Place

	Zone     string // where volumes can be made there
	KMSKeyID string // of a key there
}

// Open makes a World for one test.
type Open func(t *testing.T) *World

// test is one of a suite.
type test struct {
	name string
	run  func(t *testing.T, w *World)
}

func run(t *testing.T, open Open, suite []test) {
	t.Helper()
	for _, test := range suite {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// TestSnapshotter runs what every plugins.VolumeSnapshotter must pass.
func TestSnapshotter(t *testing.T, open Open) {
	t.Helper()
	run(t, open, []test{
		{"Handle", testHandle},
		{"Describe", testDescribe},
		{"SnapshotAndRestore", testSnapshotAndRestore},
		{"Moment", testMoment},
		{"SameToken", testSameToken},
		{"SameTokenAtOnce", testSameTokenAtOnce},
		{"TokenOfOthers", testTokenOfOthers},
		{"Tags", testTags},
		{"FindByAllTags", testFindByAllTags},
		{"OneMachine", testOneMachine},
		{"OneMoment", testOneMoment},
		{"LostReplyOfOne", testLostReplyOfOne},
		{"LostReplyOfMachine", testLostReplyOfMachine},
		{"NewProcess", testNewProcess},
		{"VolumeGone", testVolumeGone},
		{"BadRequests", testBadRequests},
		{"DeleteSnapshot", testDeleteSnapshot},
		{"CreateVolume", testCreateVolume},
		{"EmptyVolume", testEmptyVolume},
		{"LostReplyOfVolume", testLostReplyOfVolume},
		{"CreateVolumeOfNothing", testCreateVolumeOfNothing},
		{"FindVolumes", testFindVolumes},
		{"DeleteVolume", testDeleteVolume},
		{"Cancel", testCancel},
	})
}

// TestBlocks runs what every plugins.BlockSnapshots must pass beyond TestSnapshotter.
func TestBlocks(t *testing.T, open Open) {
	t.Helper()
	run(t, open, []test{
		{"ReadAll", testReadAll},
		{"ReadChanges", testReadChanges},
		{"ReadDiscarded", testReadDiscarded},
		{"NoBase", testNoBase},
		{"OpenNothing", testOpenNothing},
		{"StopListing", testStopListing},
		{"ExpiredTokens", testExpiredTokens},
		{"DamagedRead", testDamagedRead},
		{"Write", testWrite},
		{"WriteChild", testWriteChild},
		{"ResumeWriting", testResumeWriting},
		{"ResumeCompleted", testResumeCompleted},
		{"LostReplyOfCompletion", testLostReplyOfCompletion},
		{"WrongCount", testWrongCount},
		{"BadBlocks", testBadBlocks},
	})
}

// TestCopier runs what every plugins.SnapshotCopier must pass beyond TestSnapshotter.
func TestCopier(t *testing.T, open Open) {
	t.Helper()
	run(t, open, []test{
		{"CopyAndRestore", testCopyAndRestore},
		{"CopyAgain", testCopyAgain},
		{"CopyTokenOfOthers", testCopyTokenOfOthers},
		{"LostReplyOfCopy", testLostReplyOfCopy},
		{"NoRoomForCopy", testNoRoomForCopy},
		{"CopyFails", testCopyFails},
		{"CopyOfNothing", testCopyOfNothing},
		{"CopyToNowhere", testCopyToNowhere},
		{"CancelCopy", testCancelCopy},
	})
}

// snap takes one snapshot of each handle and fails the test where that fails.
func snap(t *testing.T, w *World, token string, handles ...string) []plugins.Snapshot {
	t.Helper()
	taken, err := w.Provider.Snapshot(t.Context(), plugins.SnapshotRequest{Token: token, Handles: handles, Tags: map[string]string{"suite": "volumetest"}})
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	checkOrder(t, taken, handles)
	return taken
}

func checkOrder(t *testing.T, taken []plugins.Snapshot, handles []string) {
	t.Helper()
	if len(taken) != len(handles) {
		t.Fatalf("%d snapshots of %d volumes", len(taken), len(handles))
	}
	for i, s := range taken {
		if s.Handle != handles[i] || s.ID == "" {
			t.Errorf("snapshot %d is %q of %s, want one of %s", i, s.ID, s.Handle, handles[i])
		}
	}
}

// completed waits until a snapshot is usable.
func completed(t *testing.T, w *World, id string) plugins.Snapshot {
	t.Helper()
	for range 100 {
		found, err := w.Provider.DescribeSnapshots(t.Context(), []string{id})
		if err != nil {
			t.Fatalf("DescribeSnapshots: %v", err)
		}
		switch s, ok := found[id]; {
		case ok && s.State == plugins.SnapshotCompleted:
			return s
		case ok && s.State == plugins.SnapshotFailed:
			t.Fatalf("snapshot %s failed: %s", id, s.Message)
		}
		w.Pause()
	}
	t.Fatalf("snapshot %s is not completed after 100 looks", id)
	return plugins.Snapshot{}
}

// want fails the test unless err wraps the sentinel and says of the operation what its reader needs.
func want(t *testing.T, what string, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("%s gives %v, want an error that wraps %q", what, err, sentinel)
		return
	}
	var known *plugins.VolumeError
	if !errors.As(err, &known) || known.Op == "" || known.Provider == "" {
		t.Errorf("%s gives %v, which is no whole *plugins.VolumeError", what, err)
	}
}

// count fails the test unless so many volumes and snapshots exist.
func count(t *testing.T, what string, ids []string, want int) {
	t.Helper()
	if len(ids) != want {
		t.Errorf("%d %s exist, want %d: %v", len(ids), what, want, ids)
	}
}

// noise is n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = source.Read(data) // never fails
	return data
}

// sameBytes fails the test unless the volume has the bytes.
func sameBytes(t *testing.T, w *World, handle string, offset int64, want []byte) {
	t.Helper()
	if got := w.Read(t, handle, offset, len(want)); !bytes.Equal(got, want) {
		t.Errorf("volume %s has other bytes at %d", handle, offset)
	}
}

// contents are the bytes of the blocks that a source lists, by index; nil for those that are gone.
func contents(t *testing.T, src plugins.BlockSource) map[int64][]byte {
	t.Helper()
	found := map[int64][]byte{}
	last := int64(-1)
	err := src.Blocks(t.Context(), func(b plugins.Block) error {
		if b.Index <= last {
			return fmt.Errorf("block %d after %d", b.Index, last)
		}
		last = b.Index
		if b.Gone {
			found[b.Index] = nil
			return nil
		}
		buf := make([]byte, plugins.BlockSize)
		n, err := readBlock(t.Context(), src, b, buf)
		found[b.Index] = buf[:n]
		return err
	})
	if err != nil {
		t.Fatalf("read blocks: %v", err)
	}
	return found
}

// readBlock reads a block, and where the source gives its sum, checks that it is that of the bytes.
func readBlock(ctx context.Context, src plugins.BlockSource, b plugins.Block, buf []byte) (int, error) {
	summed, ok := src.(plugins.SummedBlocks)
	if !ok {
		return src.ReadBlock(ctx, b, buf)
	}
	n, sum, err := summed.ReadSummedBlock(ctx, b, buf)
	if want := sha256.Sum256(buf[:n]); err == nil && sum != want {
		err = fmt.Errorf("block %d has the SHA-256 %x, the source says %x", b.Index, want, sum)
	}
	return n, err
}

// cancelled is a context that has ended.
func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// indexes are the keys in order.
func indexes(m map[int64][]byte) []int64 { return slices.Sorted(maps.Keys(m)) }
