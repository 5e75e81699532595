package ebs_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/test/aws"
)

// BenchmarkBlocks writes and reads snapshots of 64 MiB, eight blocks at a time.
func BenchmarkBlocks(b *testing.B) {
	const blocks = 128
	cloud := aws.New(b, aws.Options{})
	for name, value := range cloud.Environment() {
		b.Setenv(name, value)
	}
	cfg, err := awsconf.Load(b.Context(), awsconf.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := ebs.New(cfg, ebs.Options{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, plugins.BlockSize)
	source := rand.NewChaCha8([32]byte{})
	written := ""
	b.Run("write", func(b *testing.B) {
		b.SetBytes(blocks * plugins.BlockSize)
		for n := range b.N {
			target, err := p.StartBlocks(b.Context(), plugins.VolumeRequest{Token: fmt.Sprint(b.N, n), SizeBytes: 1 << 30})
			if err != nil {
				b.Fatal(err)
			}
			_, _ = source.Read(data) // never fails
			var group errgroup.Group
			group.SetLimit(8)
			for index := range int64(blocks) {
				group.Go(func() error { return target.WriteBlock(b.Context(), index, data) })
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			if _, err := target.Complete(b.Context(), blocks); err != nil {
				b.Fatal(err)
			}
			written = target.SnapshotID()
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(blocks * plugins.BlockSize)
		for range b.N {
			src, err := p.OpenBlocks(b.Context(), written, "")
			if err != nil {
				b.Fatal(err)
			}
			var group errgroup.Group
			group.SetLimit(8)
			err = src.Blocks(b.Context(), func(block plugins.Block) error {
				group.Go(func() error {
					_, err := src.ReadBlock(b.Context(), block, make([]byte, plugins.BlockSize))
					return err
				})
				return nil
			})
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
