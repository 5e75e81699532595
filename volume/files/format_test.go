package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"pgregory.net/rapid"
)

// TestStoredName: names are told apart, can be stored, and can be created by kopia's own restore.
func TestStoredName(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.OneOf(
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 255), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.String(), func(s string) string { return reserved + s }),
			rapid.StringN(1, 50, 255),
		).Draw(rt, "name")
		stored := storedName(name)
		if !utf8.ValidString(stored) || (len(stored) > maxName && len(name) <= maxName) {
			rt.Fatalf("%q is stored as %q", name, stored)
		}
		if stored == sidecarName || (stored != name && !strings.HasPrefix(stored, escapedName)) {
			rt.Fatalf("%q is stored as %q", name, stored)
		}
		if checkName(name) != nil {
			return
		}
		var raw []byte
		if stored != name {
			raw = []byte(name)
		}
		if got, err := realName(stored, raw); err != nil || got != name {
			rt.Fatalf("%q comes back as %q, %v", name, got, err)
		}
	})
	if _, err := realName("a", []byte("b")); err == nil {
		t.Error("a record can rename an entry")
	}
}

// TestAppendEntry writes what kopia writes.
func TestAppendEntry(t *testing.T) {
	id, err := object.ParseID("Ik0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		e := &snapshot.DirEntry{
			Name:        rapid.StringN(1, -1, -1).Draw(rt, "name"),
			Type:        rapid.SampledFrom([]snapshot.EntryType{snapshot.EntryTypeFile, snapshot.EntryTypeDirectory, snapshot.EntryTypeSymlink}).Draw(rt, "type"),
			Permissions: snapshot.Permissions(modeOf(rapid.Uint32Range(0, 0o7777).Draw(rt, "mode"))),
			FileSize:    rapid.Int64Min(0).Draw(rt, "size"),
			ModTime:     fs.UTCTimestamp(rapid.Int64().Draw(rt, "time")),
			UserID:      rapid.Uint32().Draw(rt, "uid"),
			GroupID:     rapid.Uint32().Draw(rt, "gid"),
			ObjectID:    id,
		}
		if rapid.Bool().Draw(rt, "summary") {
			e.DirSummary = &fs.DirectorySummary{TotalFileSize: 7}
		}
		want, err := json.Marshal(e)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := appendEntry(nil, e)
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("wrote %s, %v; kopia writes %s", got, err, want)
		}
		k, err := rawKey(got)
		if err != nil || k != entryKey(e) {
			rt.Fatalf("the key of %s is %v, %v", got, k, err)
		}
		if mode := unixMode(e.Permissions); modeOf(mode) != modeOf(unixMode(snapshot.Permissions(modeOf(mode)))) {
			rt.Fatalf("mode %o is lost", mode)
		}
	})
}

// TestSidecar: records come back as they were written.
func TestSidecar(t *testing.T) {
	records := []record{
		{Name: ".", Attrs: []attr{{Name: "user.a", Value: []byte{}}}},
		{Name: storedName("\xff"), Dir: true, Raw: []byte("\xff")},
		{Name: "a", Link: "12", Sparse: true, Time: &stamp{Sec: -1, Nsec: 5}},
		{Name: "b", Special: &special{Type: typeBlock, Mode: 0o644, UID: 1, GID: 2, Time: stamp{Sec: 3}, Major: 4, Minor: 5}},
	}
	out := []byte("{\"kedgeSidecar\":1}\n")
	for i := range records {
		var err error
		if out, err = appendRecord(out, &records[i]); err != nil {
			t.Fatal(err)
		}
	}
	r, err := newSidecarReader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		got, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(records[i])
		b, _ := json.Marshal(got)
		if !bytes.Equal(a, b) {
			t.Errorf("record %d is %s, was %s", i, b, a)
		}
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last record: %v", err)
	}
}

// endless is a line without an end.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.n += int64(len(p))
	return len(p), nil
}

// TestEndless: neither a sidecar nor a folder can fill the memory.
func TestEndless(t *testing.T) {
	in := &endless{}
	if _, err := newSidecarReader(in); !errors.Is(err, ErrDamaged) || in.n > 2*maxRecord {
		t.Errorf("after %d bytes of a sidecar: %v", in.n, err)
	}
	in = &endless{}
	r := newEntryReader(io.MultiReader(strings.NewReader(`{"stream":"kopia:directory","entries":[{"name":"`), in))
	if _, _, err := r.next(); !errors.Is(err, ErrDamaged) || in.n > 2*maxEntry {
		t.Errorf("after %d bytes of a folder: %v", in.n, err)
	}
}

func FuzzSidecar(f *testing.F) {
	f.Add([]byte("{\"kedgeSidecar\":1}\n{\"n\":\".\",\"x\":[{\"k\":\"user.a\",\"v\":\"AA==\"}]}\n{\"n\":\"a\",\"l\":\"5\"}\n"))
	f.Add([]byte("{\"kedgeSidecar\":1}\n{\"n\":\"b\",\"s\":{\"t\":\"char\",\"m\":438,\"mt\":{\"s\":1},\"major\":1}}\n"))
	f.Add([]byte("{\"kedgeSidecar\":1}\n{\"n\":\".kedge-name-a8100ae6aa1940d0b663bb31cd466142-_\",\"d\":true,\"raw\":\"/w==\"}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := newSidecarReader(bytes.NewReader(in))
		if err != nil {
			return
		}
		var last *record
		for {
			rec, err := r.next()
			if err != nil {
				return
			}
			if rec.Name != "." {
				if _, err := realName(rec.Name, rec.Raw); err != nil {
					t.Fatalf("the record of %q was let through: %v", rec.Name, err)
				}
			}
			if last != nil && rec.key().compare(last.key()) <= 0 {
				t.Fatalf("%v came after %v", rec.key(), last.key())
			}
			last = rec
			line, err := appendRecord([]byte("{\"kedgeSidecar\":1}\n"), rec)
			if err != nil {
				t.Fatal(err)
			}
			again, err := newSidecarReader(bytes.NewReader(line))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.next(); err != nil && len(line) < maxRecord {
				t.Fatalf("what was read cannot be read again: %v: %s", err, line)
			}
		}
	})
}

func FuzzFolder(f *testing.F) {
	f.Add([]byte(`{"stream":"kopia:directory","entries":[{"name":"a","type":"d","obj":"k1"},{"name":"b","type":"f","obj":"2"}],"summary":{"size":1}}` + "\n"))
	f.Add([]byte(`{"stream":"kopia:directory","entries":null,"summary":null}`))
	f.Add([]byte(`{"summary":[{"a":"\"]}"}],"entries":[],"stream":"kopia:directory"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newEntryReader(bytes.NewReader(in))
		var names []string
		for {
			raw, k, err := r.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			if _, err := parseEntry(raw); err != nil {
				return
			}
			names = append(names, k.name)
		}
		// What is valid for both reads the same.
		var d struct {
			Stream  string               `json:"stream"`
			Entries []*snapshot.DirEntry `json:"entries"`
		}
		if json.NewDecoder(bytes.NewReader(in)).Decode(&d) != nil || bytes.Count(in, []byte("entries")) != 1 || strings.ToLower(string(in)) != string(in) {
			return
		}
		var want []string
		for _, e := range d.Entries {
			if e != nil {
				want = append(want, e.Name)
			}
		}
		if !slices.Equal(names, want) {
			t.Fatalf("read %q, encoding/json reads %q", names, want)
		}
	})
}

// TestTable holds more than its first size, and finds what it holds.
func TestTable(t *testing.T) {
	tb := table{dir: t.TempDir()}
	defer tb.close()
	const n = firstSlots + 10
	for round := range 2 {
		for i := range n {
			if err := tb.put(fmt.Sprint(i), fmt.Append(nil, i*round)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range n {
		if got, ok, err := tb.get(fmt.Sprint(i)); err != nil || !ok || string(got) != fmt.Sprint(i) {
			t.Fatalf("%d is %q, %v, %v", i, got, ok, err)
		}
	}
	if _, ok, err := tb.get("no"); ok || err != nil {
		t.Errorf("what is not there: %v, %v", ok, err)
	}
	if left, err := os.ReadDir(tb.dir); err != nil || len(left) > 0 {
		t.Errorf("files with names: %v, %v", left, err)
	}
}

// TestSpool reads what was written, from memory and file.
func TestSpool(t *testing.T) {
	s := spool{dir: t.TempDir()}
	defer s.close()
	var want []byte
	for i := range 60_000 {
		part := fmt.Appendf(nil, "%d,", i)
		want = append(want, part...)
		if err := s.write(part); err != nil {
			t.Fatal(err)
		}
	}
	for _, cut := range []int64{0, 1, spoolMemory, s.size - 1, s.size} {
		head, err := io.ReadAll(s.section(0, cut))
		if err != nil {
			t.Fatal(err)
		}
		tail, err := io.ReadAll(s.section(cut, s.size))
		if err != nil || !bytes.Equal(append(head, tail...), want) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}
