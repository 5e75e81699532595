package block_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
)

// TestVerify flips bytes all over the bucket: a verification either finds the damage and names the volume, or the byte was nobody's and the copies
// restore as ever.
func TestVerify(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	r, store, clock := newRepository(t)
	first := newDisk(1<<30 + 3*plugins.BlockSize)
	for i := range int64(6) {
		first.write(i*400*plugins.BlockSize, random(rng, 2000))
	}
	second := first.clone()
	second.write(0, random(rng, 5000))
	second.write(2050*plugins.BlockSize, random(rng, 5000))
	one := copyDisk(t, r, "snap-1", first, nil, nil).Copy
	two := copyDisk(t, r, "snap-2", second, &one, first).Copy
	copies := []repository.Copy{one, two}
	if damages, err := block.Verify(t.Context(), r, copies, block.Options{}); err != nil || len(damages) > 0 {
		t.Fatalf("verified a good repository: %v, %v", damages, err)
	}
	tries := 24
	if soak() {
		tries = 2000
	}
	keys := store.Keys("volumes/")
	found := 0
	for range tries {
		key := keys[rng.IntN(len(keys))]
		offset := rng.IntN(store.Size(key))
		bucket := store.Clone()
		bucket.Flip(key, offset)
		damaged, err := repository.Open(t.Context(), bucket, password, repository.Options{Now: clock.Now})
		if err != nil {
			found++ // an index, or the first two blobs: nothing opens
			continue
		}
		damages, err := block.Verify(t.Context(), damaged, copies, block.Options{})
		switch {
		case err == nil && len(damages) == 0:
			check(t, damaged, one, first)
			check(t, damaged, two, second)
		case err != nil && (!errors.Is(err, block.ErrDamaged) || !strings.Contains(err.Error(), volume.String())):
			t.Errorf("flipped %s at %d: %v", key, offset, err)
		default:
			found++
			for _, d := range damages {
				if !errors.Is(d, block.ErrDamaged) || !strings.Contains(d.Error(), volume.String()) || d.Copy.Volume != volume {
					t.Errorf("flipped %s at %d: %v", key, offset, d)
				}
			}
		}
		if err := damaged.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of %d flips were damages", found, tries)
	if found == 0 {
		t.Error("no flip was found")
	}
}

// TestVerifyNamesThePlace damages the chunk of a block that one copy uses alone, and of one that both use.
func TestVerifyNamesThePlace(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	r, store, _ := newRepository(t)
	first := newDisk(1 << 30)
	first.write(7*plugins.BlockSize, random(rng, plugins.BlockSize))
	one := copyDisk(t, r, "snap-1", first, nil, nil).Copy
	before := store.Keys("volumes/p")
	second := first.clone()
	second.write(100*plugins.BlockSize, random(rng, plugins.BlockSize))
	two := copyDisk(t, r, "snap-2", second, &one, first).Copy
	for _, key := range store.Keys("volumes/p") {
		shared := len(before) == 1 && key == before[0]
		store.Flip(key, store.Size(key)/2)
		damages, err := block.Verify(t.Context(), r, []repository.Copy{one, two}, block.Options{})
		store.Flip(key, store.Size(key)/2)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, d := range damages {
			got[d.Copy.Snapshot] = d.Offset / plugins.BlockSize
		}
		if shared && (len(got) != 2 || got["snap-1"] != 7 || got["snap-2"] != 7) || !shared && (len(got) != 1 || got["snap-2"] != 100) {
			t.Errorf("damaged %s (shared: %v): %v", key, shared, damages)
		}
	}
	for _, key := range store.Keys("volumes/p") {
		store.Drop(key)
	}
	if damages, err := block.Verify(t.Context(), r, []repository.Copy{one, two}, block.Options{}); err != nil || len(damages) != 3 {
		t.Errorf("without packs: %v, %v", damages, err)
	}
}
