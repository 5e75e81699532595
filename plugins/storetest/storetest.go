// Package storetest is the conformance suite of plugins.ObjectStore: what its prose promises, as tests that every store must pass.
package storetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"kedge.dev/kedge/plugins"
)

// Config says what the suite may expect of a store beyond the contract, and how far it goes.
type Config struct {
	// Retention: the store can retain objects (PutOptions.RetainUntil, plugins.Retainer).
	Retention bool
	// Durable stores keep objects across two opens; Reopen opens a fresh store on the same objects. Nil leaves these tests out.
	Reopen func(t *testing.T, store plugins.ObjectStore) plugins.ObjectStore
	// LongestKey is how many bytes a key may have, where a decorator takes some of them. Zero means plugins.MaxKeyBytes.
	LongestKey int
	// ManyKeys is how many objects the test of paging makes: more than one page of the store. Zero means 1100.
	ManyKeys int
	// Large is the size in bytes of the object that must not be held in memory. Zero means 64 MiB.
	Large int64
	// MemoryCeiling is how much memory in bytes a Put of the large object may hold beyond what it held before. Zero means 48 MiB.
	MemoryCeiling int64
}

// Run runs the suite. open returns a new, empty store for each test.
func Run(t *testing.T, open func(t *testing.T) plugins.ObjectStore, cfg Config) {
	t.Helper()
	if cfg.LongestKey == 0 {
		cfg.LongestKey = plugins.MaxKeyBytes
	}
	if cfg.ManyKeys == 0 {
		cfg.ManyKeys = 1100
	}
	if cfg.Large == 0 {
		cfg.Large = 64 << 20
	}
	if cfg.MemoryCeiling == 0 {
		cfg.MemoryCeiling = 48 << 20
	}
	suite := []struct {
		name string
		run  func(t *testing.T, store plugins.ObjectStore, cfg Config)
	}{
		{"RoundTrip", testRoundTrip},
		{"Replace", testReplace},
		{"Ranges", testRanges},
		{"NotFound", testNotFound},
		{"Exists", testExists},
		{"OneWinnerOfMany", testOneWinner},
		{"ReplaceAtOnce", testReplaceAtOnce},
		{"Large", testLarge},
		{"BrokenSource", testBrokenSource},
		{"Cancel", testCancel},
		{"List", testList},
		{"ListWhileChanging", testListWhileChanging},
		{"ManyKeys", testManyKeys},
		{"InvalidKeys", testInvalidKeys},
		{"OddKeys", testOddKeys},
		{"Folders", testFolders},
		{"Delete", testDelete},
		{"Concurrent", testConcurrent},
		{"Retention", testRetention},
		{"Retain", testRetain},
		{"Reopen", testReopen},
		{"Check", testCheck},
		{"Name", testName},
	}
	for _, test := range suite {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t), cfg) })
	}
}

// put stores data under key and fails the test where that fails.
func put(t *testing.T, store plugins.ObjectStore, key string, data []byte) {
	t.Helper()
	info, err := store.Put(t.Context(), key, stream(data), plugins.PutOptions{})
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	if info.Key != key || info.Size != int64(len(data)) {
		t.Fatalf("Put of %d bytes under %q returned %+v", len(data), key, info)
	}
}

// putNew stores data under key where nothing is, and returns the error.
func putNew(t *testing.T, store plugins.ObjectStore, key string, data []byte) error {
	t.Helper()
	_, err := store.Put(t.Context(), key, stream(data), plugins.PutOptions{IfNoneMatch: true})
	return err
}

// stream hides all but Read, as a pipe would.
func stream(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }

// get reads a range and fails the test where that fails.
func get(t *testing.T, store plugins.ObjectStore, key string, offset, length int64) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s again: %v", key, err)
	}
	return data
}

// keys lists the keys with a prefix.
func keys(t *testing.T, store plugins.ObjectStore, prefix string) []string {
	t.Helper()
	var found []string
	err := store.List(t.Context(), prefix, func(info plugins.ObjectInfo) error {
		found = append(found, info.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	return found
}

// wantError fails the test unless err wraps want and is an error of the store on the key, with the operation named.
func wantError(t *testing.T, err, want error, op, key string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s of %.80q gives %v, want an error that wraps %q", op, key, err, want)
		return
	}
	var known *plugins.StoreError
	if !errors.As(err, &known) {
		t.Errorf("%s of %.80q gives %v, which is no *plugins.StoreError", op, key, err)
		return
	}
	if known.Op != op || known.Key != key {
		t.Errorf("error says %s of %.80q, want %s of %.80q", known.Op, known.Key, op, key)
	}
	if !strings.Contains(err.Error(), key) {
		t.Errorf("error %q does not name the key %q", err, key)
	}
}

// wantAbsent fails the test if anything can be seen under key.
func wantAbsent(t *testing.T, store plugins.ObjectStore, key string) {
	t.Helper()
	if _, err := store.Stat(t.Context(), key); !errors.Is(err, plugins.ErrNotFound) {
		t.Errorf("Stat(%q) gives %v, want that there is nothing", key, err)
	}
	if r, err := store.Get(t.Context(), key, 0, -1); !errors.Is(err, plugins.ErrNotFound) {
		t.Errorf("Get(%q) gives %v, want that there is nothing", key, err)
		if err == nil {
			r.Close()
		}
	}
	for _, found := range keys(t, store, "") {
		if found == key {
			t.Errorf("List shows %q, which must not exist", key)
		}
	}
}

// noise is n bytes that do not compress and are the same for the same seed.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = source.Read(data) // never fails
	return data
}
