package block_test

import (
	"math/rand/v2"
	"testing"

	"kedge.dev/kedge/plugins"
)

// TestFigures is the promise of design section 10: a copy of a changed volume reads at most 1.1 times, and writes at most 1.3 times, the blocks
// that changed; here 80 writes of 4 KiB into blocks of their own, 1 % of a sparse volume of 4 GiB. KEDGE_SOAK fills half of the volume.
func TestFigures(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	r, store, _ := newRepository(t)
	first := newDisk(4 << 30)
	filled := int64(200)
	if soak() {
		filled = 4096
	}
	order := rng.Perm(int(first.count()))
	for _, i := range order[:filled] {
		first.write(int64(i)*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	base := copyDisk(t, r, "snap-1", first, nil, nil).Copy
	second := first.clone()
	const writes = 80
	for _, i := range order[:writes] {
		second.write(int64(i)*plugins.BlockSize+int64(rng.IntN(127))*4096, random(rng, 4096))
	}
	store.Written()
	store.Read()
	src := &source{disk: second, base: first, baseID: "snap-1"}
	done := copySource(t, r, src, "snap-2", &base)
	written, puts := store.Written()
	changed := int64(writes * plugins.BlockSize)
	t.Logf("changed %d bytes; read %d (%.3f), stored %d in %d objects (%.3f), got %d from the store",
		changed, src.reads.Load(), ratio(src.reads.Load(), changed), written, puts, ratio(written, changed), store.Read())
	if ratio(src.reads.Load(), changed) > 1.1 {
		t.Errorf("read %d bytes for %d", src.reads.Load(), changed)
	}
	if ratio(written, changed) > 1.3 {
		t.Errorf("stored %d bytes for %d", written, changed)
	}
	check(t, r, done.Copy, second)
	check(t, r, base, first)
}

func ratio(a, b int64) float64 { return float64(a) / float64(b) }

// TestUnchanged copies a volume in which nothing changed: nothing is read, and next to nothing stored.
func TestUnchanged(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	r, store, _ := newRepository(t)
	d := newDisk(4 << 30)
	for i := range int64(40) {
		d.write(i*200*plugins.BlockSize, random(rng, plugins.BlockSize))
	}
	base := copyDisk(t, r, "snap-1", d, nil, nil).Copy
	store.Written()
	src := &source{disk: d, base: d, baseID: "snap-1"}
	done := copySource(t, r, src, "snap-2", &base)
	written, puts := store.Written()
	t.Logf("stored %d bytes in %d objects", written, puts)
	if src.reads.Load() != 0 || written > 100_000 {
		t.Errorf("read %d bytes, stored %d", src.reads.Load(), written)
	}
	check(t, r, done.Copy, d)
}
