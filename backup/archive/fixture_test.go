package archive_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins/file"
)

var update = flag.Bool("update", false, "make the fixture of the current format version anew; never for a version that was released")

// fixture is what a format version's folder holds beside the bucket, to compare with.
type fixture struct {
	Identity  string        `json:"identity"`  // an age key that opens the location; it protects nothing else
	PublicKey string        `json:"publicKey"` // of the location
	Signer    string        `json:"signer"`    // PEM
	Rows      []archive.Row `json:"rows"`
	APIs      []archive.API `json:"apis"`
	Report    archive.Report
	Record    json.RawMessage `json:"record"`
}

// TestFormat1 reads a bucket that was written when format version 1 was new. It must pass for ever.
func TestFormat1(t *testing.T) {
	const folder = "testdata/format1"
	if *update {
		makeFixture(t, folder)
	}
	text, err := os.ReadFile(filepath.Join(folder, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want fixture
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	bucket := t.TempDir()
	if err := os.CopyFS(bucket, os.DirFS(filepath.Join(folder, "bucket"))); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	store, err := file.New(v1alpha1.FileLocation{Path: bucket}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := archive.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.ParseX25519Identity(want.Identity)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := l.Unlock(t.Context(), archive.UnlockOptions{Identities: []age.Identity{id}})
	if err != nil || keys.PublicKey() != want.PublicKey {
		t.Fatal(keys, err)
	}
	trusted, err := archive.ParsePublicKeys([]byte(want.Signer))
	if err != nil {
		t.Fatal(err)
	}
	e := find(t, l, "nightly")
	if e.Expiry == nil || e.Expiry.Reason != "fixture" {
		t.Errorf("expiry %+v", e.Expiry)
	}
	r, err := l.OpenBackup(t.Context(), e, keys, archive.ReadOptions{TrustedKeys: trusted, RequireSignature: true})
	if err != nil {
		t.Fatal(err)
	}
	got := describe(t, r)
	for _, d := range []string{
		cmp.Diff(want.Rows, got.Rows), cmp.Diff(want.APIs, got.APIs), cmp.Diff(want.Report, got.Report), cmp.Diff(plain(t, want.Record), plain(t, got.Record)),
	} {
		if d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if _, err := readEverything(t.Context(), r); err != nil {
		t.Error(err)
	}
	verifyOK(t, l, keys, "nightly", len(want.Rows))
	err = l.Backups(t.Context(), func(e archive.Entry) error {
		if e.Name == "going" && !e.Deleting {
			t.Error("the tombstone is not seen")
		}
		return e.Err
	})
	if err != nil {
		t.Error(err)
	}
}

func plain(t *testing.T, raw []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func describe(t *testing.T, r *archive.Reader) fixture {
	t.Helper()
	var out fixture
	if err := r.Rows(t.Context(), nil, func(_ int, row archive.Row) error {
		out.Rows = append(out.Rows, row)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	rep, err := r.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(r.Record())
	if err != nil {
		t.Fatal(err)
	}
	out.APIs, out.Report, out.Record = r.Record().APIs, *rep, record
	return out
}

// makeFixture writes a bucket with a signed backup, and one whose deletion was interrupted.
func makeFixture(t *testing.T, folder string) {
	t.Helper()
	store := newMemory()
	id := identity(t)
	l, keys, err := archive.Init(t.Context(), store, archive.InitOptions{Recipients: []age.Recipient{id.Recipient()}, Now: now, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := archive.MarshalPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	opts := writeOptions(t, "nightly", "6f1c0a44-0b7e-4c0e-9d7a-5d0f5a1c7e01")
	opts.Signer, opts.Kedge = private, "v0.1.0"
	s := smallSample(1)
	s.sections[0].items = append(s.sections[0].items, bigSample(1, 260).sections[1].items...)
	slices.SortFunc(s.sections[0].items, func(a, b sampleItem) int { return strings.Compare(a.row.Key(), b.row.Key()) })
	s.sections[0].items = slices.CompactFunc(s.sections[0].items, func(a, b sampleItem) bool { return a.row.Key() == b.row.Key() })
	write(t, l, opts, s)
	until := testNow.AddDate(1, 0, 0)
	if err := l.SetExpiry(t.Context(), find(t, l, "nightly"), archive.Expiry{Expires: &until, Reason: "fixture", At: testNow}); err != nil {
		t.Fatal(err)
	}
	want := describe(t, open(t, l, keys, "nightly"))
	want.Identity, want.PublicKey, want.Signer = id.String(), keys.PublicKey(), string(signer)
	write(t, l, writeOptions(t, "going", "b3a1"), &sample{})
	store.dieAt = store.ops + 3
	if err := l.Delete(t.Context(), archive.Entry{Name: "going", UID: "b3a1"}, archive.DeleteOptions{Now: now}); err == nil {
		t.Fatal("the deletion was not interrupted")
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	for key, data := range store.objects {
		writeFile(t, filepath.Join(folder, "bucket", filepath.FromSlash(key)), data)
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(folder, "expected.json"), append(text, '\n'))
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
