package block_test

import (
	"math/rand/v2"
	"testing"

	"kedge.dev/kedge/plugins"
)

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r, _, _ := newRepository(t)
	// Two GiB and a short last block, mostly holes.
	d := newDisk(2<<30 + 5*plugins.BlockSize + 4096)
	for _, i := range []int64{0, 1, 7, 2047, 2048, 4095, 4096, d.count() - 1} {
		d.write(i*plugins.BlockSize, random(rng, 4096))
	}
	d.write(9*plugins.BlockSize, []byte{0}) // allocated, and all zeros
	done := copyDisk(t, r, "snap-1", d, nil, nil)
	if done.Blocks != 9 || done.Zero != 1 {
		t.Errorf("copied %+v", done)
	}
	check(t, r, done.Copy, d)
}
