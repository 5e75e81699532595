package decorate_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
)

// TestGate has a store whose gate is shut between two attempts at a write: the second is not made, and nothing is written any more.
func TestGate(t *testing.T) {
	g := gate.New(time.Hour, gate.Clocks(time.Now))
	g.Renewed(g.Read())
	inner := &failing{ObjectStore: folder(t), left: 1, err: errFlaky}
	store := wrap(t, inner, decorate.Options{Gate: g, Retry: &decorate.RetryOptions{Sleep: noSleep}})
	put := func() error {
		_, err := store.Put(t.Context(), "key", strings.NewReader("x"), plugins.PutOptions{})
		return err
	}
	if err := put(); err != nil {
		t.Fatalf("through an open gate: %v", err)
	}
	g.Shut("the lease is another's")
	inner.left = 1
	until := time.Now().Add(time.Hour)
	for name, err := range map[string]error{
		"put": put(), "delete": store.Delete(t.Context(), "key"), "retain": plugins.Retain(t.Context(), store, "key", until),
	} {
		if !errors.Is(err, gate.ErrShut) || !strings.HasPrefix(err.Error(), name+" "+inner.String()+"/key: ") {
			t.Errorf("%s through a shut gate: %v", name, err)
		}
	}
	if inner.left != 1 {
		t.Error("an attempt was made")
	}
	if info, err := store.Stat(t.Context(), "key"); err != nil || info.Size != 1 {
		t.Errorf("reading: %v, %v", info, err)
	}
	if _, err := store.Put(t.Context(), "../key", strings.NewReader("x"), plugins.PutOptions{}); !errors.Is(err, plugins.ErrInvalidKey) {
		t.Errorf("a bad key: %v", err)
	}
}
