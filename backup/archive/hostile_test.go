package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/plugins"
)

// podFrame is a table's entry for a frame of two pods.
func podFrame() *Frame {
	return &Frame{Version: "v1", Resource: "pods", First: "a/x", Last: "a/y", Namespace: "a", Namespaces: 1, Items: 2, Bytes: 6}
}

// entry is one tar entry as a hostile writer would make it.
func entry(t testing.TB, h tar.Header, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(content))
	}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil && h.Size > 0 {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// honest is an entry as the writer makes it.
func honest(t testing.TB, ref plugins.Ref, content string) []byte {
	t.Helper()
	b, err := appendItem(nil, appendPath(nil, &ref), []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pod(ns, name string) plugins.Ref {
	return plugins.Ref{Version: "v1", Resource: "pods", Namespace: ns, Name: name}
}

func TestHostileTar(t *testing.T) {
	x, y := honest(t, pod("a", "x"), "{1}"), honest(t, pod("a", "y"), "{2}")
	if err := walkTar(podFrame(), append(bytes.Clone(x), y...), nothing); err != nil {
		t.Fatalf("an honest frame: %v", err)
	}
	reg := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(0, 0)}
	}
	changed := func(change func(*tar.Header)) []byte {
		h := reg("resources/pods/v1/a/x.json")
		change(&h)
		return entry(t, h, "{1}")
	}
	cases := map[string][]byte{
		"path up":              entry(t, reg("resources/pods/v1/../x.json"), "{1}"),
		"path up and out":      entry(t, reg("../../etc/passwd"), "{1}"),
		"absolute path":        entry(t, reg("/etc/passwd"), "{1}"),
		"namespace up":         entry(t, reg("resources/pods/v1/../../x.json"), "{1}"),
		"no namespace":         entry(t, reg("resources/pods/v1/x.json"), "{1}"),
		"deeper":               entry(t, reg("resources/pods/v1/a/b/x.json"), "{1}"),
		"escaped slash":        entry(t, reg("resources/pods/v1/a/..%2Fx.json"), "{1}"),
		"escape not needed":    entry(t, reg("resources/pods/v1/a/%78.json"), "{1}"),
		"lower case escape":    entry(t, reg("resources/pods/v1/a/%7e.json"), "{1}"),
		"broken escape":        entry(t, reg("resources/pods/v1/a/x%2.json"), "{1}"),
		"dot":                  entry(t, reg("resources/pods/v1/a/..json"), "{1}"),
		"no name":              entry(t, reg("resources/pods/v1/a/.json"), "{1}"),
		"other suffix":         entry(t, reg("resources/pods/v1/a/x.yaml"), "{1}"),
		"other resource":       entry(t, reg("resources/secrets/v1/a/x.json"), "{1}"),
		"other version":        entry(t, reg("resources/pods/v2/a/x.json"), "{1}"),
		"other group":          entry(t, reg("resources/pods.x/v1/a/x.json"), "{1}"),
		"other namespace":      entry(t, reg("resources/pods/v1/b/x.json"), "{1}"),
		"cluster-scoped":       entry(t, reg("resources/pods/v1/_cluster/x.json"), "{1}"),
		"NUL in the name":      honest(t, pod("a", "x\x00"), "{1}"),
		"hash of nothing":      entry(t, reg("resources/pods/v1/a/x~00000000000000000000000000000000.json"), `{"metadata":{"name":"x"}}`),
		"hash, no JSON":        entry(t, reg("resources/pods/v1/a/x~00000000000000000000000000000000.json"), "{1}"),
		"executable":           changed(func(h *tar.Header) { h.Mode = 0o755 }),
		"owner":                changed(func(h *tar.Header) { h.Uid = 7 }),
		"owner's name":         changed(func(h *tar.Header) { h.Uname = "root" }),
		"time":                 changed(func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }),
		"symbolic link":        changed(func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc" }),
		"hard link":            changed(func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, "/etc/passwd" }),
		"folder":               changed(func(h *tar.Header) { h.Typeflag, h.Name = tar.TypeDir, "resources/pods/v1/a/x.json/" }),
		"device":               changed(func(h *tar.Header) { h.Typeflag = tar.TypeBlock }),
		"PAX record":           changed(func(h *tar.Header) { h.PAXRecords = map[string]string{"comment": "x"} }),
		"GNU format":           changed(func(h *tar.Header) { h.Format = tar.FormatGNU }),
		"cut header":           x[:300],
		"cut content":          x[:513],
		"padding not zero":     append(bytes.Clone(x[:1023]), 1),
		"header not canonical": append(append(bytes.Clone(x[:500]), 1), x[501:]...),
		"size with letters":    append(append(bytes.Clone(x[:130]), 'z'), x[131:]...),
		"the same twice":       append(bytes.Clone(x), x...),
		"wrong order":          append(bytes.Clone(y), x...),
		"too many":             bytes.Join([][]byte{x, y, honest(t, pod("a", "z"), "{3}")}, nil),
		"tar end":              append(append(bytes.Clone(x), y...), tarEnd()...),
		"empty":                {},
		"other last":           append(bytes.Clone(x), honest(t, pod("a", "yy"), "{2}")...),
		"other size":           append(bytes.Clone(x), honest(t, pod("a", "y"), "{22}")...),
	}
	if err := walkTar(podFrame(), x, nothing); err == nil {
		t.Error("too few: taken")
	}
	for name, first := range cases {
		for _, data := range [][]byte{first, append(bytes.Clone(first), y...)} {
			if err := walkTar(podFrame(), data, nothing); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
	}
}

func nothing(int64, plugins.Ref, []byte) error { return nil }

func line(t testing.TB, ref plugins.Ref) string {
	t.Helper()
	return string(appendRow(nil, &Row{Ref: ref, Kind: "Pod", SHA256: strings.Repeat("a", 64), Size: 3}))
}

func TestHostileRows(t *testing.T) {
	x, y := line(t, pod("a", "x")), line(t, pod("a", "y"))
	drop := func(Row) error { return nil }
	if err := parseRows(podFrame(), []byte(x+y), true, drop); err != nil {
		t.Fatalf("an honest shard: %v", err)
	}
	for name, shard := range map[string]string{
		"no end":          x + strings.TrimSpace(y),
		"twice":           x + x,
		"order":           y + x,
		"too many":        x + y + line(t, pod("a", "z")),
		"other resource":  x + line(t, plugins.Ref{Version: "v1", Resource: "secrets", Namespace: "a", Name: "y"}),
		"other namespace": x + line(t, pod("b", "y")),
		"path":            x + line(t, pod("a", "../y")),
		"no name":         x + line(t, pod("a", "")),
		"unknown field":   x + strings.Replace(y, `"kind"`, `"more":1,"kind"`, 1),
		"two values":      x + strings.TrimSpace(y) + "{}\n",
		"no hash":         x + strings.Replace(y, strings.Repeat("a", 64), "", 1),
		"upper case hash": x + strings.Replace(y, strings.Repeat("a", 64), strings.Repeat("A", 64), 1),
		"negative size":   x + strings.Replace(y, `"size":3`, `"size":-3`, 1),
		"huge size":       x + strings.Replace(y, `"size":3`, `"size":999999999999`, 1),
		"wrong type":      x + strings.Replace(y, `"size":3`, `"size":"3"`, 1),
		"not JSON":        x + "pod\n",
		"deep":            x + strings.Repeat("[", 100000) + "\n",
		"empty line":      x + "\n" + y,
	} {
		if err := parseRows(podFrame(), []byte(shard), true, drop); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := parseRows(podFrame(), []byte(x+strings.Replace(y, `"kind"`, `"more":1,"kind"`, 1)), false, drop); err != nil {
		t.Errorf("an unknown field of a higher minor version: %v", err)
	}
}

func TestHostileTable(t *testing.T) {
	sum := strings.Repeat("0", 64)
	frame := func(change func(*Frame)) Frame {
		f := *podFrame()
		f.Size, f.RawSize, f.SHA256, f.IndexRawSize, f.Index = 100, 2048, sum, 300, Range{Size: 50, SHA256: sum}
		change(&f)
		return f
	}
	same := func(*Frame) {}
	next := func(f *Frame) { f.First, f.Last, f.Offset, f.Index.Offset = "b/x", "b/y", 100, 50 }
	honest := table{Frames: []Frame{frame(same), frame(next)}}
	if err := honest.validate(); err != nil {
		t.Fatalf("an honest table: %v", err)
	}
	for name, second := range map[string]func(*Frame){
		"overlapping keys":  func(f *Frame) { next(f); f.First = "a/y" },
		"overlapping bytes": func(f *Frame) { next(f); f.Offset = 99 },
		"gap":               func(f *Frame) { next(f); f.Offset = 104 },
		"huge gap":          func(f *Frame) { next(f); f.Offset = 1 << 40 },
		"negative offset":   func(f *Frame) { next(f); f.Offset = -1 << 63 },
		"shard overlaps":    func(f *Frame) { next(f); f.Index.Offset = 0 },
		"bomb":              func(f *Frame) { next(f); f.RawSize = maxFrameRaw + 1 },
		"row bomb":          func(f *Frame) { next(f); f.IndexRawSize = maxFrameRaw + 1 },
		"items":             func(f *Frame) { next(f); f.Items = 1 << 40 },
		"no items":          func(f *Frame) { next(f); f.Items = 0 },
		"resource":          func(f *Frame) { next(f); f.Resource = "../pods" },
		"group":             func(f *Frame) { next(f); f.Group = "a/b" },
		"no version":        func(f *Frame) { next(f); f.Version = "" },
		"section order":     func(f *Frame) { next(f); f.Resource = "nodes" },
		"no hash":           func(f *Frame) { next(f); f.SHA256 = "" },
		"no index hash":     func(f *Frame) { next(f); f.Index.SHA256 = "x" },
		"huge size":         func(f *Frame) { next(f); f.Size = 1 << 62 },
		"namespaces":        func(f *Frame) { next(f); f.Namespaces = 2 },
	} {
		bad := table{Frames: []Frame{frame(same), frame(second)}}
		if err := bad.validate(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestBomb decompresses much into little memory, and stops.
func TestBomb(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 128<<20), nil)
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	enc = nil
	dec, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := decompress(dec, bomb, nil, 1<<20); err == nil {
		t.Error("128 MB went into a megabyte")
	}
	if _, err := decompressAll(bytes.NewReader(bomb), 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a document of 128 MB: %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("%d MB were spent on %d bytes", n>>20, len(bomb))
	}
	if _, err := decompress(dec, bomb, nil, maxFrameRaw+1); err == nil {
		t.Error("a frame above the bound was tried")
	}
}

// TestNewerFormats: a newer version is refused with the way out, fields of a newer minor version are passed over.
func TestNewerFormats(t *testing.T) {
	rec := sampleRecord()
	raw, err := sealJSON(rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseRecord(raw, rec.Name, rec.UID); err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(raw, []byte(`"formatVersion":1`), []byte(`"formatVersion":2`), 1)
	if _, err := parseRecord(newer, rec.Name, rec.UID); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "upgrade kedge") {
		t.Errorf("a newer version: %v", err)
	}
	reseal := func(old, with string) []byte {
		body, err := unsealJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		out, err := sealJSON(jsonText(bytes.Replace(body, []byte(old), []byte(with), 1)))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	more := `"formatVersion":1,"news":[1,2],"formatMinor":`
	if _, err := parseRecord(reseal(`"formatVersion":1,"formatMinor":`, more), rec.Name, rec.UID); err == nil {
		t.Error("an unknown field was taken")
	}
	if _, err := parseRecord(reseal(`"formatVersion":1,"formatMinor":0`, more+"9"), rec.Name, rec.UID); err != nil {
		t.Errorf("an unknown field of a higher minor version: %v", err)
	}
	if _, err := parseRecord(reseal(`"spec":{`, `"spec":{"novelty":true,`), rec.Name, rec.UID); err != nil {
		t.Errorf("an unknown field of the spec: %v", err)
	}
	doc, err := sealJSON(locationInfo{Layout: 2, ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseLocation(doc); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer layout: %v", err)
	}
}

type jsonText []byte

func (j jsonText) MarshalJSON() ([]byte, error) { return j, nil }

func sampleRecord() *Record {
	rec := &Record{
		FormatVersion: 1, Name: "nightly", UID: "uid-1", Attempt: strings.Repeat("0", attemptDigits), Nonce: strings.Repeat("1", nonceDigits),
		Started: time.Unix(1, 0).UTC(), Completed: time.Unix(2, 0).UTC(), PublicKey: "age1",
	}
	for _, name := range []string{FileIndex, FileTable, FileItems, FileLog, FileReport} {
		rec.Files = append(rec.Files, File{Name: name, Size: 1, SHA256: strings.Repeat("0", 64)})
	}
	return rec
}

func TestHostileRecord(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"other name":      func(r *Record) { r.Name = "other" },
		"other uid":       func(r *Record) { r.UID = "other" },
		"attempt up":      func(r *Record) { r.Attempt = "../../../keys///" },
		"no nonce":        func(r *Record) { r.Nonce = "" },
		"version zero":    func(r *Record) { r.FormatVersion = 0 },
		"negative counts": func(r *Record) { r.Counts.Items = -1 },
		"no files":        func(r *Record) { r.Files = nil },
		"file up":         func(r *Record) { r.Files[0].Name = "../" + FileIndex },
		"file absolute":   func(r *Record) { r.Files[0].Name = "/etc/passwd" },
		"file unclean":    func(r *Record) { r.Files[0].Name = "index//items" },
		"file hidden":     func(r *Record) { r.Files[0].Name = ".items" },
		"file twice":      func(r *Record) { r.Files = append([]File{r.Files[0]}, r.Files...) },
		"signature":       func(r *Record) { r.Files = append(r.Files, File{FileSignature, 1, strings.Repeat("0", 64)}) },
		"file size":       func(r *Record) { r.Files[0].Size = -1 },
		"file huge":       func(r *Record) { r.Files[0].Size = 1 << 60 },
		"file hash":       func(r *Record) { r.Files[0].SHA256 = "0" },
		"file missing":    func(r *Record) { r.Files = r.Files[1:] },
		"place of a host": func(r *Record) { r.SnapshotPlaces = []plugins.Place{{Region: "example.com/"}} },
		"place nowhere":   func(r *Record) { r.SnapshotPlaces = []plugins.Place{{RoleARN: "arn:aws:iam::444455556666:role/r"}} },
		"many places":     func(r *Record) { r.SnapshotPlaces = slices.Repeat([]plugins.Place{{Region: "eu-west-1"}}, 65) },
	} {
		rec := sampleRecord()
		change(rec)
		raw, err := sealJSON(rec)
		if err != nil {
			t.Fatal(err)
		}
		var damage *DamageError
		if _, err := parseRecord(raw, "nightly", "uid-1"); !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := sealJSON(sampleRecord())
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "null": []byte("null"), "list": []byte("[]"), "cut": raw[:len(raw)-1], "more": append(bytes.Clone(raw), ' '),
		"twice": append(bytes.Clone(raw), raw...), "type": bytes.Replace(raw, []byte(`"uid":"uid-1"`), []byte(`"uid":1`), 1),
		"deep": []byte(strings.Repeat(`{"a":`, 100000)), "huge": bytes.Repeat([]byte(" "), maxRecord+1),
	} {
		if _, err := parseRecord(bad, "nightly", "uid-1"); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFileNames(t *testing.T) {
	long := strings.Repeat("a", 246)
	for name, want := range map[string]string{
		"cart": "cart.json", "system:node": "system:node.json", "a%b": "a%25b.json", "a~b": "a%7Eb.json", "a b": "a%20b.json", "é": "%C3%A9.json",
		long + "aaaa": long + "aaaa.json", long + "aaaaa": "", ".hidden": ".hidden.json",
	} {
		got := string(appendFileName(nil, name))
		if len(got) > maxFileName || want != "" && got != want || want == "" && !strings.Contains(got, "~") {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		back, hashed, err := decodeFileName(got)
		if err != nil || hashed != (want == "") || !hashed && back != name {
			t.Errorf("%q comes back as %q, %v, %v", name, back, hashed, err)
		}
	}
}

func TestPadding(t *testing.T) {
	for offset := int64(0); offset < 3*ageChunk; offset += 977 {
		for _, size := range []int64{1, 7, 100, 5000, ageChunk - 1, ageChunk, ageChunk + 1, 200000} {
			pad := padding(offset, size)
			touched := func(at int64) int64 { return (at+size-1)/ageChunk - at/ageChunk + 1 }
			switch {
			case pad == 0:
			case pad < skippableHeader || pad > maxPadding || pad > size || !follows(offset, offset+pad):
				t.Fatalf("%d at %d: padding %d", size, offset, pad)
			case touched(offset+pad) >= touched(offset):
				t.Fatalf("%d at %d: padding %d saves nothing", size, offset, pad)
			}
		}
	}
	for _, c := range []struct{ offset, size, want int64 }{
		{0, 20, 0}, {endPaddingFrom - 1, 20, 0}, {endPaddingFrom, 20, 0}, {endPaddingFrom + 1, 20, 0}, // behind it there is no room for the end
		{endPaddingFrom + 20, 20, ageChunk - 20}, {endPaddingFrom + ageChunk - 8, 20, 8}, {endPaddingFrom + ageChunk - 7, 20, 0},
	} {
		if got := endPadding(c.offset, c.size); got != c.want {
			t.Errorf("an end of %d at %d: padding %d, want %d", c.size, c.offset, got, c.want)
		}
	}
	dec, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for _, n := range []int64{skippableHeader, 100, maxPadding} {
		if raw, err := dec.DecodeAll(skippable(n), make([]byte, 0, 1)); err != nil || len(raw) != 0 {
			t.Errorf("padding of %d: %d bytes, %v", n, len(raw), err)
		}
	}
}

func TestMayHold(t *testing.T) {
	many := &Frame{Namespaces: 3, First: "b/x", Last: "d/y"}
	one := &Frame{Namespaces: 1, Namespace: "b", First: "b/x", Last: "b/y"}
	none := &Frame{First: "x", Last: "y"}
	for _, c := range []struct {
		f    *Frame
		ns   string
		want bool
	}{
		{many, "a", false}, {many, "b", true}, {many, "b-c", false}, {many, "c", true}, {many, "d", true}, {many, "d-e", true}, {many, "e", false},
		{many, "", false}, {one, "b", true}, {one, "c", false}, {one, "", false}, {none, "", true}, {none, "x", false},
	} {
		if got := c.f.MayHold(c.ns); got != c.want {
			t.Errorf("%s to %s may hold %q: %v", c.f.First, c.f.Last, c.ns, got)
		}
	}
	if !many.MayHoldKey("c/z") || many.MayHoldKey("e/a") {
		t.Error("keys")
	}
}

func TestSealedJSON(t *testing.T) {
	doc, err := sealJSON(tombstone{Layout: 1, Name: "a", UID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range doc {
		for bit := range 8 {
			bad := bytes.Clone(doc)
			bad[i] ^= 1 << bit
			if _, err := parseTombstone(bad, "b"); err == nil {
				t.Fatalf("bit %d of byte %d: %s", bit, i, bad)
			}
		}
	}
	for i := range len(doc) {
		if _, err := parseTombstone(doc[:i], "b"); err == nil {
			t.Fatalf("cut at %d", i)
		}
	}
	if _, err := parseTombstone(doc, "c"); err == nil {
		t.Error("another's tombstone")
	}
	if got := fmt.Sprint(podFrame().GroupResource()); got != "pods" {
		t.Error(got)
	}
}
