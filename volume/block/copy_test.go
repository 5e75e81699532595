package block_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/block"
	"kedge.dev/kedge/volume/repository"
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

// TestBase refuses to take over blocks from what the source does not compare with.
func TestBase(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	r, _, clock := newRepository(t)
	d := newDisk(1 << 30)
	d.write(0, random(rng, 100))
	base := copyDisk(t, r, "snap-1", d, nil, nil).Copy
	other := func(change func(c *repository.Copy)) *repository.Copy {
		c := base
		change(&c)
		return &c
	}
	larger := newDisk(2 << 30)
	for name, c := range map[string]struct {
		src  *source
		base *repository.Copy
	}{
		"no base":         {&source{disk: d, base: d, baseID: "snap-1"}, nil},
		"other snapshot":  {&source{disk: d, base: d, baseID: "snap-0"}, &base},
		"other volume":    {&source{disk: d, base: d, baseID: "snap-1"}, other(func(c *repository.Copy) { c.Volume.Handle = "vol-2" })},
		"files":           {&source{disk: d, base: d, baseID: "snap-1"}, other(func(c *repository.Copy) { c.Kind = "files" })},
		"not whole":       {&source{disk: d, base: d, baseID: "snap-1"}, other(func(c *repository.Copy) { c.Incomplete = "checkpoint" })},
		"of another size": {&source{disk: larger, base: larger, baseID: "snap-1"}, &base},
	} {
		_, err := block.Copy(t.Context(), r, c.src, block.Request{Volume: volume, Snapshot: "snap-2", Base: c.base}, block.Options{})
		if !errors.Is(err, block.ErrBase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A source that lists all needs no base, and takes none.
	done, err := block.Copy(t.Context(), r, &source{disk: d}, block.Request{Volume: volume, Snapshot: "snap-2", Base: &base}, block.Options{})
	if err != nil || done.Copy.Base != "" || done.Blocks != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := block.Copy(t.Context(), r, &source{disk: d}, block.Request{Volume: volume}, block.Options{}); err == nil {
		t.Error("copied a snapshot without a name")
	}
	// What was copied is not read again.
	more, err := block.Copy(t.Context(), r, &source{disk: d}, block.Request{Volume: volume, Snapshot: "snap-2"}, block.Options{})
	if err != nil || more.Blocks != 0 || more.Copy.ID == done.Copy.ID {
		t.Errorf("%+v, %v", more, err)
	}
	check(t, r, more.Copy, d)
	// A base that was forgotten, and is removed in the end, is none.
	src := &source{disk: d, base: d, baseID: "snap-1"}
	forget := func(c repository.Copy) bool { return c.ID != base.ID }
	for day := range 6 {
		clock.Advance(25 * time.Hour)
		if _, err := r.Maintain(t.Context(), repository.MaintainOptions{Keep: forget}); err != nil {
			t.Fatal(err)
		}
		req := block.Request{Volume: volume, Snapshot: fmt.Sprintf("snap-late-%d", day), Base: &base}
		if _, err := block.Copy(t.Context(), r, src, req, block.Options{}); !errors.Is(err, block.ErrBase) {
			t.Errorf("day %d: %v", day, err)
		}
	}
	if _, err := block.Restore(t.Context(), r, *other(func(c *repository.Copy) { c.Kind = "files" }), discard{}, block.Options{}); err == nil {
		t.Error("restored files as blocks")
	}
}

// liar is a source that breaks the contract.
type liar struct {
	source
	list   []plugins.Block
	length int
}

func (l *liar) Blocks(_ context.Context, fn func(plugins.Block) error) error {
	for _, b := range l.list {
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) ReadBlock(context.Context, plugins.Block, []byte) (int, error) { return l.length, nil }

func TestBadSource(t *testing.T) {
	r, _, _ := newRepository(t)
	d := newDisk(1 << 30)
	for name, l := range map[string]*liar{
		"descending": {list: []plugins.Block{{Index: 2}, {Index: 1}}, length: plugins.BlockSize},
		"twice":      {list: []plugins.Block{{Index: 2}, {Index: 2}}, length: plugins.BlockSize},
		"beyond":     {list: []plugins.Block{{Index: 2048}}, length: plugins.BlockSize},
		"negative":   {list: []plugins.Block{{Index: -1}}, length: plugins.BlockSize},
		"short":      {list: []plugins.Block{{Index: 1}}, length: 100},
		"far":        {list: []plugins.Block{{Index: 1 << 60}}, length: plugins.BlockSize},
	} {
		l.disk = d
		if _, err := block.Copy(t.Context(), r, l, block.Request{Volume: volume, Snapshot: "snap"}, block.Options{}); err == nil {
			t.Errorf("%s: copied", name)
		}
	}
	if copies, err := r.Copies(t.Context(), repository.Filter{}); err != nil || len(copies) > 0 {
		t.Errorf("copies %v, %v", copies, err)
	}
}

func TestProgress(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 26))
	r, _, _ := newRepository(t)
	d := newDisk(3<<30 + 100)
	for i := range int64(30) {
		d.write(i*200*plugins.BlockSize, random(rng, 100))
	}
	d.write(3<<30, random(rng, 100))
	want := int64(30*plugins.BlockSize + 100)
	for _, what := range []string{"copy", "restore", "verify"} {
		var last block.Progress
		opts := block.Options{Progress: func(p block.Progress) {
			if p.Bytes < last.Bytes || p.Blocks != last.Blocks+1 || p.TotalBytes < last.TotalBytes || p.Bytes > p.TotalBytes || p.Offset < last.Offset {
				t.Errorf("%s: %+v after %+v", what, p, last)
			}
			last = p
		}}
		var err error
		switch what {
		case "copy":
			_, err = block.Copy(t.Context(), r, &source{disk: d}, block.Request{Volume: volume, Snapshot: "snap"}, opts)
		case "restore":
			_, err = block.Restore(t.Context(), r, only(t, r), discard{}, opts)
		case "verify":
			_, err = block.Verify(t.Context(), r, []repository.Copy{only(t, r)}, opts)
		}
		if err != nil {
			t.Fatal(err)
		}
		if last.Blocks != 31 || last.Bytes != want || last.TotalBytes != want || !last.Listed || last.SizeBytes != d.size || last.BytesPerSecond <= 0 {
			t.Errorf("%s ended with %+v", what, last)
		}
	}
}

func only(t *testing.T, r *repository.Repository) repository.Copy {
	t.Helper()
	copies, err := r.Copies(t.Context(), repository.Filter{Volume: volume, Kind: block.Kind})
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies %v, %v", copies, err)
	}
	return copies[0]
}

// TestImages takes the whole way: from a sparse file, against another, to a third.
func TestImages(t *testing.T) {
	rng := rand.New(rand.NewPCG(27, 28))
	dir := t.TempDir()
	write := func(name string, d *disk) string {
		path := filepath.Join(dir, name)
		made, err := file.CreateImage(path, d.size)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range d.blocks {
			if err := made.WriteBlock(t.Context(), i, b); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := made.Complete(t.Context(), int64(len(d.blocks))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := newDisk(2<<30 + 777)
	for i := range int64(5) {
		first.write(i*1000*plugins.BlockSize, random(rng, 5000))
	}
	second := first.clone()
	second.write(2<<30, random(rng, 777))
	delete(second.blocks, 1000)
	paths := []string{write("first", first), write("second", second)}
	r, _, _ := newRepository(t)
	var base *repository.Copy
	for n, path := range paths {
		from := ""
		if n > 0 {
			from = paths[n-1]
		}
		img, err := file.OpenImage(path, from)
		if err != nil {
			t.Fatal(err)
		}
		done, err := block.Copy(t.Context(), r, img, block.Request{Volume: volume, Snapshot: path, Base: base}, block.Options{})
		if err := errors.Join(err, img.Close()); err != nil {
			t.Fatal(err)
		}
		base = &done.Copy
		to, err := os.Create(filepath.Join(dir, "restored"))
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Truncate(base.SizeBytes); err != nil {
			t.Fatal(err)
		}
		if _, err := block.Restore(t.Context(), r, *base, block.ToFile(to), block.Options{}); err != nil {
			t.Fatal(err)
		}
		got, err := file.OpenImage(to.Name(), path)
		if err := errors.Join(err, to.Close()); err != nil {
			t.Fatal(err)
		}
		if err := got.Blocks(t.Context(), func(b plugins.Block) error { return fmt.Errorf("block %d differs", b.Index) }); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}
