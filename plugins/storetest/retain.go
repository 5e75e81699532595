package storetest

import (
	"slices"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
)

// testRetain protects objects that are there already. The retention is short, so that the test's bucket can be cleaned.
func testRetain(t *testing.T, store plugins.ObjectStore, cfg Config) {
	until := time.Now().Add(time.Minute)
	put(t, store, "kept", []byte("bytes"))
	put(t, store, "kept-not", []byte("bytes"))
	wantError(t, plugins.Retain(t.Context(), store, "../kept", until), plugins.ErrInvalidKey, "retain", "../kept")
	if !cfg.Retention {
		wantError(t, plugins.Retain(t.Context(), store, "kept", until), plugins.ErrUnsupported, "retain", "kept")
		if err := store.Delete(t.Context(), "kept"); err != nil {
			t.Errorf("what could not be retained cannot be deleted: %v", err)
		}
		return
	}
	wantError(t, plugins.Retain(t.Context(), store, "absent", until), plugins.ErrNotFound, "retain", "absent")
	wantAbsent(t, store, "absent")
	// Again, and to an earlier end: that shortens nothing.
	for _, end := range []time.Time{until, until, until.Add(-50 * time.Second)} {
		if err := plugins.Retain(t.Context(), store, "kept", end); err != nil {
			t.Fatalf("Retain: %v", err)
		}
		wantError(t, store.Delete(t.Context(), "kept"), plugins.ErrRetained, "delete", "kept")
	}
	if got := get(t, store, "kept", 0, -1); string(got) != "bytes" {
		t.Errorf("the retained object has become %q", got)
	}
	if err := store.Delete(t.Context(), "kept-not"); err != nil {
		t.Errorf("its neighbour cannot be deleted: %v", err)
	}
	if got := keys(t, store, ""); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("List shows %q", got)
	}
}
