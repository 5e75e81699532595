package archive_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"testing"

	"kedge.dev/kedge/backup/archive"
)

// harm is one way to damage a file; nil removes it.
type harm struct {
	name string
	do   func(r *mathrand.Rand, b []byte) []byte
}

func harms() []harm {
	flip := func(b []byte, i int, bit byte) []byte {
		b[i] ^= 1 << bit
		return b
	}
	return []harm{
		{"first byte", func(r *mathrand.Rand, b []byte) []byte { return flip(b, 0, byte(r.IntN(8))) }},
		{"last byte", func(r *mathrand.Rand, b []byte) []byte { return flip(b, len(b)-1, byte(r.IntN(8))) }},
		{"flip", func(r *mathrand.Rand, b []byte) []byte { return flip(b, r.IntN(len(b)), byte(r.IntN(8))) }},
		{"flip near the start", func(r *mathrand.Rand, b []byte) []byte { return flip(b, r.IntN(min(len(b), 300)), byte(r.IntN(8))) }},
		{"flip near the end", func(r *mathrand.Rand, b []byte) []byte {
			return flip(b, len(b)-1-r.IntN(min(len(b), 300)), byte(r.IntN(8)))
		}},
		{"cut", func(r *mathrand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] }},
		{"cut one", func(_ *mathrand.Rand, b []byte) []byte { return b[:len(b)-1] }},
		{"empty", func(*mathrand.Rand, []byte) []byte { return []byte{} }},
		{"missing", func(*mathrand.Rand, []byte) []byte { return nil }},
		{"byte after the end", func(r *mathrand.Rand, b []byte) []byte { return append(b, byte(r.Uint32())) }},
		{"bytes after the end", func(r *mathrand.Rand, b []byte) []byte { return append(b, make([]byte, 1+r.IntN(100000))...) }},
		{"byte before the start", func(r *mathrand.Rand, b []byte) []byte { return append([]byte{byte(r.Uint32())}, b...) }},
		{"byte removed", func(r *mathrand.Rand, b []byte) []byte {
			i := r.IntN(len(b))
			return append(b[:i], b[i+1:]...)
		}},
		{"byte added", func(r *mathrand.Rand, b []byte) []byte {
			i := r.IntN(len(b))
			return append(append(bytes.Clone(b[:i]), byte(r.Uint32())), b[i:]...)
		}},
		{"ranges swapped", swapRanges},
		{"range zeroed", func(r *mathrand.Rand, b []byte) []byte {
			i := r.IntN(len(b))
			clear(b[i:min(len(b), i+1+r.IntN(5000))])
			return b
		}},
		{"doubled", func(_ *mathrand.Rand, b []byte) []byte { return append(b, b...) }},
	}
}

func swapRanges(r *mathrand.Rand, b []byte) []byte {
	n := 1 + r.IntN(max(len(b)/4, 1))
	i := r.IntN(len(b)/2 - n + 1)
	j := len(b)/2 + r.IntN(len(b)-len(b)/2-n+1)
	swapped := bytes.Clone(b)
	copy(swapped[i:], b[j:j+n])
	copy(swapped[j:], b[i:i+n])
	return swapped
}

// damaged is a signed backup, one of the same name and uid by another writer, and one of another name, all in the same
// location, so that their files decrypt with the same key.
type damaged struct {
	store   *memory
	keys    *archive.Keys
	trusted []ed25519.PublicKey
	rec     *archive.Record
	donors  map[string][][]byte
}

func newDamaged(t *testing.T, s, another, third *sample) *damaged {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &damaged{store: newMemory(), trusted: []ed25519.PublicKey{pub}, donors: map[string][][]byte{}}
	l, keys := location(t, d.store)
	d.keys = keys
	create := func(store *memory, name string, s *sample) *archive.Record {
		l, err := archive.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		opts := writeOptions(t, name, "uid-"+name)
		opts.Signer = private
		return write(t, l, opts, s)
	}
	rival := d.store.clone()
	for _, rec := range []*archive.Record{create(rival, "victim", another), create(rival, "victim2", third)} {
		folder := "backups/" + rec.Name + "/" + rec.UID + "/"
		for _, key := range rival.keys(folder) {
			file := strings.TrimPrefix(strings.TrimPrefix(key, folder), rec.Attempt+"/")
			d.donors[file] = append(d.donors[file], rival.objects[key])
		}
	}
	d.rec = create(d.store, "victim", s)
	if err := l.SetExpiry(t.Context(), find(t, l, "victim"), archive.Expiry{At: testNow, Reason: "kept for the audit of the year"}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *damaged) key(file string) string {
	folder := "backups/victim/uid-victim/"
	if file == "backup.json" || strings.HasPrefix(file, "expiry/") {
		return folder + file
	}
	return folder + d.rec.Attempt + "/" + file
}

// read does what a restore does with everything.
func (d *damaged) read(ctx context.Context, store *memory) error {
	l, err := archive.Open(ctx, store)
	if err != nil {
		return err
	}
	e, err := l.Find(ctx, "victim")
	if err != nil {
		return err
	}
	r, err := l.OpenBackup(ctx, e, d.keys, archive.ReadOptions{TrustedKeys: d.trusted, RequireSignature: true})
	if err != nil {
		return err
	}
	_, err = readEverything(ctx, r)
	return err
}

// check damages one file and expects a deep verification to find it, and a reader to refuse it, both naming the file.
func (d *damaged) check(t *testing.T, file, how string, with []byte) {
	t.Helper()
	store := d.store.clone()
	original := store.objects[d.key(file)]
	if with == nil {
		delete(store.objects, d.key(file))
	} else {
		store.objects[d.key(file)] = with
	}
	if bytes.Equal(original, with) && with != nil {
		return
	}
	err := d.read(t.Context(), store)
	var damage *archive.DamageError
	switch {
	case file == "backup.json" && with == nil:
		if !errors.Is(err, archive.ErrBackupNotFound) {
			t.Errorf("%s %s: %v", file, how, err)
		}
		return // a backup without a record does not exist
	case err == nil:
		t.Errorf("%s %s: read without an error", file, how)
	case !errors.As(err, &damage) && !errors.Is(err, archive.ErrNewerFormat):
		t.Errorf("%s %s: %v", file, how, err)
	case damage != nil && damage.File != file && file != "backup.json":
		t.Errorf("%s %s: the error names %s: %v", file, how, damage.File, err)
	case damage != nil && damage.Backup != "victim/uid-victim":
		t.Errorf("%s %s: the error names the backup %q", file, how, damage.Backup)
	}
	d.checkVerify(t, store, file, how)
}

func (d *damaged) checkVerify(t *testing.T, store *memory, file, how string) {
	t.Helper()
	l, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	res, err := archive.Verify(t.Context(), l, find(t, l, "victim"), d.keys, archive.VerifyOptions{Deep: true, TrustedKeys: d.trusted, RequireSignature: true})
	if errors.Is(err, archive.ErrNewerFormat) {
		return
	}
	if err != nil {
		t.Errorf("%s %s: verify: %v", file, how, err)
		return
	}
	named := false
	for _, p := range res.Problems {
		named = named || p.File == file
	}
	if !named && (file != "backup.json" || res.OK()) {
		t.Errorf("%s %s: deep verify names it not: %v", file, how, res.Problems)
	}
}

// TestDamage damages every file of a backup in every way.
func TestDamage(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(2026, 11))
	d := newDamaged(t, bigSample(7, 240), bigSample(8, 240), bigSample(10, 240))
	if err := d.read(t.Context(), d.store); err != nil {
		t.Fatal(err)
	}
	rounds := 2
	switch {
	case testing.Short():
		rounds = 1
	case os.Getenv("KEDGE_SOAK") != "":
		rounds = 20
	}
	files := []string{archive.FileItems, archive.FileIndex, archive.FileTable, archive.FileLog, archive.FileReport, archive.FileVolumes, archive.FileSignature, "backup.json", "expiry/1.json"}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			cases := 0
			for round := range rounds {
				for _, h := range harms() {
					if h.name == "missing" && file == "expiry/1.json" {
						continue // nothing says how many there were
					}
					d.check(t, file, fmt.Sprintf("%s, round %d", h.name, round), h.do(r, bytes.Clone(d.store.objects[d.key(file)])))
					cases++
				}
			}
			for i, donor := range d.donors[file] {
				d.check(t, file, []string{"of another writer's attempt", "of another backup"}[i], donor)
				cases++
			}
			t.Logf("%d cases, %d bytes", cases, len(d.store.objects[d.key(file)]))
		})
	}
}

// TestDamagedRandomAccess damages a large items file anywhere and reads all frames: the damage shows in its frame, and
// the others can still be read.
func TestDamagedRandomAccess(t *testing.T) {
	store := newMemory()
	l, keys := location(t, store)
	rec := write(t, l, writeOptions(t, "large", "uid"), bigSample(9, 900))
	key := "backups/large/uid/" + rec.Attempt + "/" + archive.FileItems
	r := mathrand.New(mathrand.NewPCG(2026, 12))
	good := store.objects[key]
	if len(good) < 400<<10 || len(rec.Frames) < 5 {
		t.Fatalf("too small a file for this test: %d bytes, %d frames", len(good), len(rec.Frames))
	}
	for i := range 20 {
		bad := bytes.Clone(good)
		at := 2048 + r.IntN(len(bad)-2048-128<<10) // not the header or the last chunk, which every read needs
		bad[at] ^= 1 << r.IntN(8)
		store.objects[key] = bad
		reader := open(t, l, keys, "large")
		broken := 0
		for f := range rec.Frames {
			var damage *archive.DamageError
			if err := reader.Items(t.Context(), f, nothing); errors.As(err, &damage) {
				broken++
				if damage.Offset < rec.Frames[f].Offset-64<<10 || damage.Offset > rec.Frames[f].Offset+rec.Frames[f].Size {
					t.Errorf("case %d: frame %d at %d: %v", i, f, rec.Frames[f].Offset, damage)
				}
			} else if err != nil {
				t.Error(err)
			}
		}
		e := find(t, l, "large")
		res, err := archive.Verify(t.Context(), l, e, keys, archive.VerifyOptions{Deep: true})
		if err != nil || res.OK() || res.Items == 0 || res.Items == rec.Counts.Items {
			t.Errorf("case %d: verify: %+v, %v", i, res, err)
		}
		if broken < 1 || broken > 3 {
			t.Errorf("case %d: byte %d of %d broke %d of %d frames", i, at, len(bad), broken, len(rec.Frames))
		}
	}
}

// TestExtraFile: deep and quick checks name a file that the record does not know.
func TestExtraFile(t *testing.T) {
	d := newDamaged(t, smallSample(1), smallSample(2), smallSample(3))
	d.store.objects[d.key("index/more.zst.age")] = []byte("x")
	d.checkVerify(t, d.store, "index/more.zst.age", "added")
}

// TestQuickVerify finds what can be seen without reading: missing files, other sizes, a broken signature.
func TestQuickVerify(t *testing.T) {
	d := newDamaged(t, smallSample(1), smallSample(2), smallSample(3))
	quick := func(store *memory, opts archive.VerifyOptions) *archive.VerifyResult {
		l, err := archive.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		res, err := archive.Verify(t.Context(), l, find(t, l, "victim"), nil, opts)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	opts := archive.VerifyOptions{TrustedKeys: d.trusted, RequireSignature: true}
	if res := quick(d.store, opts); !res.OK() || !res.Signed {
		t.Errorf("whole: %+v", res)
	}
	if res := quick(d.store, archive.VerifyOptions{RequireSignature: true}); res.OK() || res.Signed {
		t.Errorf("untrusted: %+v", res)
	}
	for _, file := range []string{archive.FileItems, archive.FileLog, archive.FileSignature} {
		gone := d.store.clone()
		delete(gone.objects, d.key(file))
		if res := quick(gone, opts); res.OK() {
			t.Errorf("%s is missing, and quick verify is content", file)
		}
		cut := d.store.clone()
		cut.objects[d.key(file)] = cut.objects[d.key(file)][1:]
		if res := quick(cut, opts); res.OK() {
			t.Errorf("%s is cut, and quick verify is content", file)
		}
	}
}
