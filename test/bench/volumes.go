//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"filippo.io/age"

	"kedge.dev/kedge/test/testbed"
	"kedge.dev/kedge/volume/mover"
)

// volumeSizes are what volumes are measured with.
type volumeSizes struct {
	small, large treeSpec
	blocks       int64 // of the block volume that are written to
	repeat       int   // of each first copy and the one after it
}

const mib = 1 << 20

var volumeSets = map[string]volumeSizes{
	"small":   {small: treeSpec{20_000, 100, 512, 16 << 10}, large: treeSpec{4, 100, 128 * mib, 128 * mib}, blocks: 1024, repeat: 3},
	"large":   {small: treeSpec{100_000, 100, 512, 16 << 10}, large: treeSpec{8, 100, 512 * mib, 512 * mib}, blocks: 8192, repeat: 2},
	"million": {small: treeSpec{1_000_000, 100, 64, 512}, repeat: 1},
}

// volumes measures copies of files beside kopia's own command, and copies of blocks beside plain reads and PUTs of the same blocks.
func (b *bench) volumes(ctx context.Context, set string, files, blocks bool) (err error) {
	sizes := volumeSets[set]
	if b.s3, err = testbed.StartS3(ctx, false); err != nil {
		return err
	}
	defer b.s3.Stop()
	if err := b.makeIdentity(); err != nil {
		return err
	}
	if files {
		program, err := testbed.Kopia(ctx)
		if err != nil {
			return err
		}
		if err := b.volumeFiles(ctx, program, "files", sizes.small, sizes.repeat); err != nil {
			return err
		}
		if sizes.large.files > 0 {
			if err := b.volumeFiles(ctx, program, "large", sizes.large, sizes.repeat); err != nil {
				return err
			}
		}
	}
	if blocks && sizes.blocks > 0 {
		return b.volumeBlocks(ctx, sizes.blocks, sizes.repeat)
	}
	return nil
}

// makeIdentity makes the age identity of all locations, unless there is one.
func (b *bench) makeIdentity() error {
	if _, err := os.Stat(b.identity()); err == nil {
		return nil
	}
	made, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	return os.WriteFile(b.identity(), []byte(made.String()+"\n"), 0o600)
}

// recipient is who seals for the identity.
func (b *bench) recipient() (string, error) {
	file, err := os.Open(b.identity())
	if err != nil {
		return "", err
	}
	defer file.Close()
	identities, err := age.ParseIdentities(file)
	if err != nil {
		return "", err
	}
	one, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return "", errors.New("the identity is not of the kind that kedge makes")
	}
	return one.Recipient().String(), nil
}

// makeLocation makes a location of that name in b.bucket.
func (b *bench) makeLocation(ctx context.Context, name string, flags ...string) error {
	recipient, err := b.recipient()
	if err != nil {
		return err
	}
	_, err = b.runKedge(ctx, nil, append([]string{
		"location", "create", name, "--s3-bucket", b.bucket.Name, "--region", b.s3.Region, "--path-style", "--endpoint", b.s3.Endpoint, "--prefix", name, "--age-recipient", recipient,
	}, flags...)...)
	return err
}

// best are the fastest runs of one program, and the largest memory.
type best struct {
	first, again, memory float64
}

func (t *best) add(first, again usage) {
	if t.first == 0 || first.seconds < t.first {
		t.first = first.seconds
	}
	if t.again == 0 || again.seconds < t.again {
		t.again = again.seconds
	}
	t.memory = max(t.memory, first.memory, again.memory)
}

// volumeFiles copies one tree again and again into fresh repositories, ours and kopia's in turn.
func (b *bench) volumeFiles(ctx context.Context, program, name string, spec treeSpec, repeat int) error {
	tree := filepath.Join(b.dir, "tree-"+name)
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }() // with the folder of all else, if not now
	size, err := spec.make(tree)
	if err != nil {
		return fmt.Errorf("make a tree of %d files: %w", spec.files, err)
	}
	syscall.Sync() // what is still to be written to the disk would slow down whoever comes first
	fmt.Fprintf(b.out, "# volume %s: %d files, %d MiB\n", name, spec.files, size/mib)
	var ours, theirs best
	for i := range repeat {
		if err := b.volumeFilesOnce(ctx, program, tree, fmt.Sprintf("%s-%d", name, i), spec.files, &ours, &theirs); err != nil {
			return err
		}
	}
	amount, unit := float64(spec.files), "files/s"
	if name == "large" {
		amount, unit = float64(size)/mib, "MiB/s"
	}
	b.figure("volume-"+name+"-first", amount/ours.first, amount/theirs.first, unit)
	b.figure("volume-"+name+"-unchanged", amount/ours.again, amount/theirs.again, unit)
	b.figure("volume-"+name+"-memory", ours.memory, theirs.memory, "MiB")
	return nil
}

// volumeFilesOnce makes two copies of the tree by each program, into a bucket that is removed afterwards.
func (b *bench) volumeFilesOnce(ctx context.Context, program, tree, name string, files int, ours, theirs *best) (err error) {
	if b.bucket, err = b.s3.MakeBucket(ctx, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bucket.Remove()) }()
	if err := b.makeLocation(ctx, name); err != nil {
		return err
	}
	k, err := b.newKopia(ctx, program, name)
	if err != nil {
		return err
	}
	var took [4]usage
	for i := range 2 {
		first := i == 0
		if took[i], err = b.moverCopy(ctx, tree, name, files, first); err != nil {
			return err
		}
		if took[2+i], err = k.snapshot(ctx, tree, files, first); err != nil {
			return err
		}
		what := map[bool]string{true: "first", false: "unchanged"}[first]
		for who, u := range map[string]usage{"kedge": took[i], "kopia": took[2+i]} {
			fmt.Fprintf(b.out, "%s volume %s %s seconds=%.3f memory=%.0fMiB cpu=%.2fs\n", who, name, what, u.seconds, u.memory, u.cpu)
		}
	}
	ours.add(took[0], took[1])
	theirs.add(took[2], took[3])
	return os.RemoveAll(k.dir)
}

// moverCopy copies a tree with kedge, with a cache that stays for the next copy, as kopia's does.
func (b *bench) moverCopy(ctx context.Context, tree, location string, files int, first bool) (usage, error) {
	cache := filepath.Join(b.dir, "cache-"+location)
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return usage{}, err
	}
	var made mover.Result
	took, err := b.runKedge(ctx, &made, "mover", "copy", "--quiet", "--path", tree, "--volume", "bench/tree", "--cluster", "bench", "--storage-location", location, "--cache-dir", cache)
	if err != nil {
		return usage{}, err
	}
	return took, checkRead("kedge", int(made.Files), int(made.ReadFiles), files, first)
}
