package block_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
)

// TestGenerations copies a volume again and again between random writes and discards, each time against a random earlier copy, or none, and then
// restores every generation.
func TestGenerations(t *testing.T) {
	if !soak() {
		if err := flag.Set("rapid.checks", "10"); err != nil {
			t.Fatal(err)
		}
	}
	r, _, _ := newRepository(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		vol := volume
		vol.Handle = fmt.Sprintf("vol-%d", run)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		size := rapid.Int64Range(1, 3*2048*plugins.BlockSize).Draw(rt, "size")
		current := newDisk(size)
		var disks []*disk
		var copies []repository.Copy
		for gen := range rapid.IntRange(1, 5).Draw(rt, "generations") {
			for range rapid.IntRange(0, 6).Draw(rt, "writes") {
				at := rng.Int64N(size)
				current.write(at, random(rng, 1+rng.IntN(int(min(4096, size-at, plugins.BlockSize-at%plugins.BlockSize)))))
			}
			for i := range current.blocks {
				switch rng.IntN(8) {
				case 0:
					delete(current.blocks, i) // discarded
				case 1:
					current.blocks[i] = make([]byte, len(current.blocks[i])) // zeroed
				}
			}
			disks = append(disks, current.clone())
			src := &source{disk: disks[gen]}
			req := block.Request{Volume: vol, Snapshot: fmt.Sprintf("snap-%d", gen)}
			if base := rapid.IntRange(-1, gen-1).Draw(rt, "base"); base >= 0 {
				src.base, src.baseID, req.Base = disks[base], copies[base].Snapshot, &copies[base]
			}
			done, err := block.Copy(t.Context(), r, src, req, block.Options{Parallel: 1 + rng.IntN(8)})
			if err != nil {
				rt.Fatal(err)
			}
			copies = append(copies, done.Copy)
		}
		for gen, c := range copies {
			to := &target{disk: newDisk(size)}
			if _, err := block.RestoreSnapshot(t.Context(), r, c, to, block.Options{}); err != nil {
				rt.Fatal(err)
			}
			if err := to.equal(disks[gen]); err != nil {
				rt.Fatalf("generation %d: %v", gen, err)
			}
		}
		if damages, err := block.Verify(t.Context(), r, copies, block.Options{}); err != nil || len(damages) > 0 {
			rt.Fatalf("verify: %v, %v", damages, err)
		}
	})
}
