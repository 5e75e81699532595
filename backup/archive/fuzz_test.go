package archive

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"kedge.dev/kedge/plugins"
)

func sealed(t testing.TB, v any) []byte {
	t.Helper()
	doc, err := sealJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// reseal puts a right checksum on the text, so that a fuzzer gets beyond it.
func reseal(body []byte) []byte {
	if len(body) == 0 {
		return body
	}
	doc, err := sealJSON(jsonText(body))
	if err != nil {
		return body
	}
	return doc
}

func FuzzRecord(f *testing.F) {
	f.Add(sealed(f, sampleRecord()))
	f.Add([]byte(`{"formatVersion":1,"name":"nightly","uid":"uid-1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, doc := range [][]byte{data, reseal(data)} {
			rec, err := parseRecord(doc, "nightly", "uid-1")
			if err != nil {
				continue
			}
			if rec.ID() != "nightly/uid-1" || !isHex(rec.Attempt, attemptDigits) {
				t.Errorf("taken: %s", doc)
			}
			for _, file := range rec.Files {
				if err := plugins.CheckKey(attemptFolder(rec.Name, rec.UID, rec.Attempt) + file.Name); err != nil {
					t.Errorf("file %q: %v", file.Name, err)
				}
			}
		}
	})
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"apis":[{"resource":"pods","kind":"Pod","versions":["v1"]}],"frames":[]}`))
	f.Add([]byte(`{"frames":[{"version":"v1","resource":"pods","first":"a","last":"b","items":2,"bytes":4,"offset":0,"size":9,"rawSize":2048,"sha256":"` +
		strings.Repeat("0", 64) + `","index":{"offset":0,"size":9,"sha256":"` + strings.Repeat("0", 64) + `"},"indexRawSize":99}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tab, err := parseTable(data, true)
		if err != nil {
			return
		}
		end := int64(0)
		for _, frame := range tab.Frames {
			if frame.Offset < end || frame.RawSize > maxFrameRaw || frame.Size <= 0 {
				t.Errorf("taken: %+v", frame)
			}
			end = frame.Offset + frame.Size
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(line(f, pod("a", "x")) + line(f, pod("a", "y"))))
	owned := Row{
		Ref: pod("a", "x"), Kind: "Pod", UID: "u", SHA256: strings.Repeat("b", 64), Labels: map[string]string{"b": "1", "a": "\u2028<>"},
		Owners: []Owner{{APIVersion: "v1", Kind: "K", Name: "n", UID: "u", Controller: true, BlockOwnerDeletion: new(bool)}, {}}, Applied: true,
	}
	f.Add(append(appendRow(nil, &owned), line(f, pod("a", "y"))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out []byte
		frame := podFrame()
		if err := parseRows(frame, data, true, func(row Row) error {
			out = appendRow(out, &row)
			return nil
		}); err != nil {
			return
		}
		// What was taken is written again as something that means the same.
		var again []byte
		if err := parseRows(frame, out, true, func(row Row) error {
			again = appendRow(again, &row)
			return nil
		}); err != nil || !bytes.Equal(out, again) {
			t.Errorf("%s became %s: %v", data, out, err)
		}
	})
}

func FuzzTar(f *testing.F) {
	f.Add(append(honest(f, pod("a", "x"), "{1}"), honest(f, pod("a", "y"), "{2}")...))
	long := pod("a", strings.Repeat("x", 300))
	f.Add(honest(f, long, `{"metadata":{"name":"`+long.Name+`"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		frame := podFrame()
		var out []byte
		if err := walkTar(frame, data, func(_ int64, ref plugins.Ref, raw []byte) error {
			var err error
			out, err = appendItem(out, appendPath(nil, &ref), raw)
			return err
		}); err == nil && !bytes.Equal(out, data) {
			t.Errorf("%q is not what a writer makes of it", data)
		}
	})
}

func FuzzFrame(f *testing.F) {
	enc, err := newEncoder(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc.EncodeAll([]byte("hello hello hello"), nil), int64(17))
	f.Add(skippable(64), int64(0))
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		size &= 1<<20 - 1
		if raw, err := decompress(dec, data, nil, size); err == nil && int64(len(raw)) != size {
			t.Errorf("%d bytes, want %d", len(raw), size)
		}
		if raw, err := decompressAll(bytes.NewReader(data), 1<<16); err == nil && len(raw) > 1<<16 {
			t.Errorf("%d bytes", len(raw))
		}
	})
}

func FuzzLocation(f *testing.F) {
	keys, err := generateKeys()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed(f, locationInfo{Layout: 1, ID: "0-1", PublicKey: keys.PublicKey()}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, doc := range [][]byte{data, reseal(data)} {
			if info, err := parseLocation(doc); err == nil && (info.Layout != 1 || !validUID(info.ID)) {
				t.Errorf("taken: %s", doc)
			}
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	keys, err := generateKeys()
	if err != nil {
		f.Fatal(err)
	}
	l := &Location{}
	doc, err := l.wrap(f.Context(), keys, []age.Recipient{id.Recipient()}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte("age-encryption.org/v1\n-> kedge.dev/kms key\nAAAA\n--- AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := unwrapKeys(t.Context(), data, UnlockOptions{Identities: []age.Identity{id}}, &NoKeyError{}); err == nil && got.PublicKey() != keys.PublicKey() {
			t.Errorf("another key from %q", data)
		}
		if _, err := parseKeys(bytes.NewReader(data)); err != nil && strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("the error shows a key: %v", err)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	rec := sampleRecord()
	rec.SignedBy = encodePublic(pub)
	rec.raw = sealed(f, rec)
	doc, err := signRecord(private, nil, rec.raw, rec.SignedBy)
	if err != nil {
		f.Fatal(err)
	}
	if err := checkSignature(doc, rec); err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := checkSignature(data, rec); err == nil && !bytes.Equal(data, doc) {
			t.Errorf("another envelope was taken: %s", data)
		}
	})
}

func FuzzExpiry(f *testing.F) {
	f.Add(sealed(f, Expiry{Hold: true, Reason: "audit"}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = parseExpiry(data)
		_, _ = parseExpiry(reseal(data))
	})
}

func FuzzTombstone(f *testing.F) {
	f.Add(sealed(f, tombstone{Layout: 1, Name: "a", UID: "b"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, doc := range [][]byte{data, reseal(data)} {
			if ts, err := parseTombstone(doc, "b"); err == nil && (ts.UID != "b" || plugins.CheckKey(backupFolder(ts.Name, ts.UID)+"x") != nil) {
				t.Errorf("taken: %s", doc)
			}
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"errors":[{"ref":{"version":"v1","resource":"pods","name":"x"},"reason":"R","message":"m"}],"notes":["n"]}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseReport(data, true) })
}

func FuzzLog(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	enc, err := newEncoder(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc.EncodeAll([]byte(`{"msg":"x"}`+"\n"), nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := age.EncryptReader(bytes.NewReader(data), id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		_ = copyLog(in, io.Discard, id)
		_ = copyLog(bytes.NewReader(data), io.Discard, id)
	})
}

func FuzzVolumes(f *testing.F) {
	f.Add([]byte(`{"namespace":"a","claim":"b","volume":"pv","provider":"ebs","source":{"handle":"vol-1","sizeBytes":1},"taken":"2026-05-04T03:02:01Z","snapshotID":"snap-1"}` + "\n"))
	f.Add([]byte(`{"namespace":"a"}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := parseVolumes(data, true)
		if err != nil {
			return
		}
		// What was taken is written again as something that means the same.
		again, err := encodeVolumes(rows)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		reread, err := parseVolumes(again, true)
		if err != nil || len(reread) != len(rows) {
			t.Errorf("%s became %s: %v", data, again, err)
		}
	})
}
