package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/backup/archive"
)

// forger changes a backup in a folder as somebody could who has the location's key: what it writes is encrypted, compressed and
// hashed as a reader expects, so that a hostile content is met only by the checks of the content itself.
type forger struct {
	t       *testing.T
	attempt string // folder of the attempt
	record  string // backup.json
	key     *age.X25519Identity
}

// sealSize is the length of the checksum at the end of the plain JSON files.
var sealSize = len(sealed(nil))

// sealed is a checksum over body, without its closing brace, as docs/format.md describes it.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return []byte(`,"sha256":"` + hex.EncodeToString(sum[:]) + "\"}\n")
}

// document reads the record as any JSON.
func (f *forger) document() map[string]any {
	f.t.Helper()
	data, err := os.ReadFile(f.record)
	if err != nil {
		f.t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(append(data[:len(data)-sealSize], '}'), &doc); err != nil {
		f.t.Fatal(err)
	}
	return doc
}

// seal writes the record with a checksum that fits.
func (f *forger) seal(doc map[string]any) {
	f.t.Helper()
	writeSealed(f.t, f.record, doc)
}

func writeSealed(t *testing.T, file string, doc any) {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	body := data[:len(data)-1]
	writeFile(t, file, append(slices.Clip(body), sealed(body)...))
}

func writeFile(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// change rewrites fields of the record.
func (f *forger) change(fields map[string]any) {
	doc := f.document()
	maps.Copy(doc, fields)
	f.seal(doc)
}

// open decrypts a file; it stays compressed.
func (f *forger) open(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.attempt, name))
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(data), f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return plain
}

// put encrypts a compressed file and makes the record fit it.
func (f *forger) put(name string, compressed []byte) {
	f.t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, f.key.Recipient())
	if err == nil {
		_, err = w.Write(compressed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	writeFile(f.t, filepath.Join(f.attempt, name), out.Bytes())
	doc := f.document()
	for _, entry := range doc["files"].([]any) {
		if file := entry.(map[string]any); file["name"] == name {
			file["size"] = out.Len()
			file["sha256"] = hexHash(out.Bytes())
		}
	}
	f.seal(doc)
}

func hexHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// squeeze compresses as one zstd frame.
func squeeze(t *testing.T, raw []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

func inflate(t *testing.T, compressed []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.DecodeAll(compressed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// bomb is size bytes of zeros, compressed: a few kilobytes.
func bomb(t *testing.T, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err == nil {
		_, err = io.CopyN(w, zeros{}, size)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// frameTable is the content of the frame table's file.
type frameTable struct {
	APIs   []archive.API   `json:"apis"`
	Frames []archive.Frame `json:"frames"`
}

// frame replaces the content of the frame that holds a resource. change gets the tar entries and the frame's row in the table,
// both of which it may change; what it returns is compressed unless raw is set.
func (f *forger) frame(resource string, change func(tar []byte, row *archive.Frame) []byte) {
	f.t.Helper()
	var table frameTable
	if err := json.Unmarshal(inflate(f.t, f.open(archive.FileTable)), &table); err != nil {
		f.t.Fatal(err)
	}
	items := f.open(archive.FileItems)
	var out []byte
	var end int64
	found := false
	for i := range table.Frames {
		row := &table.Frames[i]
		part := items[row.Offset : row.Offset+row.Size]
		end = row.Offset + row.Size
		if row.Resource == resource && !found {
			found = true
			tar := inflate(f.t, part)
			row.RawSize = 0
			tar = change(tar, row)
			if row.RawSize == 0 {
				row.RawSize = int64(len(tar))
			}
			part = tar
			if !bytes.HasPrefix(tar, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
				part = squeeze(f.t, tar)
			}
		}
		row.Offset, row.Size, row.SHA256 = int64(len(out)), int64(len(part)), hexHash(part)
		out = append(out, part...)
	}
	if !found {
		f.t.Fatalf("the backup has no frame of %s", resource)
	}
	f.put(archive.FileItems, append(out, items[end:]...))
	data, err := json.Marshal(table)
	if err != nil {
		f.t.Fatal(err)
	}
	f.put(archive.FileTable, squeeze(f.t, data))
}

// forge copies a location's folder and hands the only backup in the copy to change.
func forge(t *testing.T, from, to string, key *age.X25519Identity, change func(*forger)) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob(filepath.Join(to, "backups", "*", "*", "backup.json"))
	if err != nil || len(records) != 1 {
		t.Fatalf("found %d backups in %s: %v", len(records), to, err)
	}
	f := &forger{t: t, record: records[0], key: key}
	f.attempt = filepath.Join(filepath.Dir(f.record), f.document()["attempt"].(string))
	change(f)
}

// replaceName exchanges a name in tar entries by another of the same length, in the header too, and corrects the header's sum.
func replaceName(tar []byte, from, to string) []byte {
	tar = bytes.ReplaceAll(tar, []byte(from), []byte(to))
	for pos := 0; pos+512 <= len(tar); pos += 512 {
		h := tar[pos : pos+512]
		if !strings.HasPrefix(string(h[257:]), "ustar") {
			continue
		}
		sum := int64(8 * ' ')
		for i, c := range h {
			if i < 148 || i >= 156 {
				sum += int64(c)
			}
		}
		for i := 153; i >= 148; i-- {
			h[i] = '0' + byte(sum&7)
			sum >>= 3
		}
		h[154], h[155] = 0, ' '
	}
	return tar
}
