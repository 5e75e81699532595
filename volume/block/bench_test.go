package block_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
	"kedge.dev/kedge/volume/repositorytest"
)

// benchBlocks is 128 MiB.
const benchBlocks = 256

// benchDisk is half text-like and half random bytes, about what a database's volume compresses to.
func benchDisk(compressible bool) *disk {
	rng := rand.New(rand.NewPCG(1, 1))
	d := newDisk(8 << 30)
	for i := range int64(benchBlocks) {
		b := random(rng, plugins.BlockSize)
		if compressible {
			for at := range b {
				if at%64 >= 32 {
					b[at] = byte('a' + at%13)
				}
			}
		}
		d.blocks[i*60] = b // over 8 folders
	}
	return d
}

func benchRepository(b *testing.B) (*repository.Repository, *repositorytest.Store) {
	b.Helper()
	store := repositorytest.NewStore(time.Now)
	r, err := repository.OpenOrCreate(b.Context(), store, password, repository.CreateOptions{}, repository.Options{CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close(context.WithoutCancel(b.Context())) })
	return r, store
}

func BenchmarkCopy(b *testing.B) {
	for _, compression := range []string{"zstd", "zstd-fastest", "none"} {
		for name, d := range map[string]*disk{"random": benchDisk(false), "half": benchDisk(true)} {
			b.Run(compression+"/"+name, func(b *testing.B) {
				b.SetBytes(benchBlocks * plugins.BlockSize)
				for b.Loop() {
					b.StopTimer()
					r, store := benchRepository(b)
					b.StartTimer()
					req := block.Request{Volume: volume, Snapshot: "snap"}
					if _, err := block.Copy(b.Context(), r, &source{disk: d}, req, block.Options{Compression: compression}); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					written, _ := store.Written()
					b.ReportMetric(float64(written)/(benchBlocks*plugins.BlockSize), "stored/byte")
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkReference reads the same blocks and puts them in objects of 8 MiB, with the same concurrency: what a copy is measured against.
func BenchmarkReference(b *testing.B) {
	d := benchDisk(false)
	b.SetBytes(benchBlocks * plugins.BlockSize)
	for b.Loop() {
		reference(b, repositorytest.NewStore(time.Now), d)
	}
}

func BenchmarkRestore(b *testing.B) {
	for name, d := range map[string]*disk{"random": benchDisk(false), "half": benchDisk(true)} {
		r, _ := benchRepository(b)
		c := copySource(b, r, &source{disk: d}, "snap", nil).Copy
		plain, err := r.Uncached(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for from, r := range map[string]*repository.Repository{"cached": r, "uncached": plain} {
			b.Run(name+"/"+from, func(b *testing.B) {
				b.SetBytes(benchBlocks * plugins.BlockSize)
				for b.Loop() {
					if _, err := block.Restore(b.Context(), r, c, discard{}, block.Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		if err := plain.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	r, _ := benchRepository(b)
	c := copySource(b, r, &source{disk: benchDisk(false)}, "snap", nil).Copy
	b.SetBytes(benchBlocks * plugins.BlockSize)
	for b.Loop() {
		if damages, err := block.Verify(b.Context(), r, []repository.Copy{c}, block.Options{}); err != nil || len(damages) > 0 {
			b.Fatal(err, damages)
		}
	}
}

type discard struct{}

func (discard) WriteBlock(context.Context, int64, []byte) error { return nil }

func reference(b *testing.B, store plugins.ObjectStore, d *disk) {
	b.Helper()
	indexes := slices.Sorted(maps.Keys(d.blocks))
	var g errgroup.Group
	g.SetLimit(block.DefaultParallel)
	for part := range slices.Chunk(indexes, 16) {
		g.Go(func() error {
			var body bytes.Buffer
			body.Grow(16 * plugins.BlockSize)
			for _, i := range part {
				body.Write(d.blocks[i])
			}
			_, err := store.Put(b.Context(), fmt.Sprintf("part-%d", part[0]), &body, plugins.PutOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
