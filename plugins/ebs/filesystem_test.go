package ebs_test

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

// TestFileSystem carries a real file system through a snapshot's blocks: what is listed and read is written as another snapshot, and a volume of that
// has every byte.
func TestFileSystem(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("no mkfs.ext4 here")
	}
	cloud, clock := aws.New(t, aws.Options{}), newClock()
	p := open(t, cloud, clock)
	volume := cloud.CreateVolume(aws.VolumeSpec{})
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "data"), bytes.Repeat([]byte("kedge "), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-d", files, cloud.VolumeFile(volume)).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v\n%s", err, out)
	}
	src := snapshotOf(t, p, volume)
	done, blocks := copyBlocks(t, p, src)
	made, err := p.CreateVolume(t.Context(), plugins.VolumeRequest{Token: "c", SnapshotID: done.ID, Zone: cloud.Region() + "a"})
	if err != nil {
		t.Fatal(err)
	}
	if blocks == 0 || blocks > src.SizeBytes()/plugins.BlockSize/4 {
		t.Errorf("%d blocks of %d bytes are listed", blocks, src.SizeBytes())
	}
	if !maps.Equal(sums(t, p, volume), sums(t, p, made.Handle)) {
		t.Error("the volumes differ")
	}
}

// copyBlocks writes all blocks of a source to another snapshot.
func copyBlocks(t *testing.T, p *ebs.Provider, src plugins.BlockSource) (done plugins.Snapshot, blocks int64) {
	t.Helper()
	target, err := p.StartBlocks(t.Context(), plugins.VolumeRequest{Token: "b", SizeBytes: src.SizeBytes()})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, plugins.BlockSize)
	err = src.Blocks(t.Context(), func(b plugins.Block) error {
		blocks++
		n, err := src.ReadBlock(t.Context(), b, buf)
		if err != nil {
			return err
		}
		return target.WriteBlock(t.Context(), b.Index, buf[:n])
	})
	if err != nil {
		t.Fatal(err)
	}
	if done, err = target.Complete(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	return done, blocks
}

// sums are the hashes of a volume's blocks, as a snapshot of it has them.
func sums(t *testing.T, p *ebs.Provider, volume string) map[int64][sha256.Size]byte {
	t.Helper()
	found := map[int64][sha256.Size]byte{}
	src := snapshotOf(t, p, volume)
	buf := make([]byte, plugins.BlockSize)
	err := src.Blocks(t.Context(), func(b plugins.Block) error {
		n, err := src.ReadBlock(t.Context(), b, buf)
		found[b.Index] = sha256.Sum256(buf[:n])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func snapshotOf(t *testing.T, p *ebs.Provider, volume string) plugins.BlockSource {
	t.Helper()
	taken, err := p.Snapshot(t.Context(), plugins.SnapshotRequest{Token: "of " + volume, Handles: []string{volume}})
	if err != nil {
		t.Fatal(err)
	}
	src, err := p.OpenBlocks(t.Context(), taken[0].ID, "")
	if err != nil {
		t.Fatal(err)
	}
	return src
}
