package decorate_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/decorate"
)

// retainer notes what it is asked for, after some failures.
type retainer struct {
	plugins.ObjectStore
	failures int
	keys     []string
}

func (r *retainer) Retain(_ context.Context, key string, _ time.Time) error {
	if r.failures--; r.failures >= 0 {
		return &plugins.StoreError{Op: "retain", Store: r.String(), Key: key, Err: errFlaky}
	}
	r.keys = append(r.keys, key)
	return nil
}

func TestRetain(t *testing.T) {
	inner := &retainer{ObjectStore: folder(t), failures: 2}
	var events []decorate.Event
	opts := decorate.Options{
		Prefix: "a", MaxInFlight: 1, Retry: &decorate.RetryOptions{Sleep: noSleep},
		Observe: func(_ context.Context, e decorate.Event) { events = append(events, e) },
	}
	store := wrap(t, inner, opts)
	if err := plugins.Retain(t.Context(), store, "backups/b", time.Now()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(inner.keys, []string{"a/backups/b"}) {
		t.Errorf("retained %q", inner.keys)
	}
	if len(events) != 1 || events[0].Op != "retain" || events[0].Key != "backups/b" || events[0].Class != "backups" || events[0].Err != nil {
		t.Errorf("observed %+v", events)
	}
	inner.failures = 99
	err := plugins.Retain(t.Context(), store, "backups/b", time.Now())
	known, ok := errors.AsType[*plugins.StoreError](err)
	if !ok || !errors.Is(err, errFlaky) || known.Key != "backups/b" {
		t.Errorf("a failure: %v", err)
	}
	inner.failures, inner.keys = 0, nil
	opts.ReadOnly = true
	if err := plugins.Retain(t.Context(), wrap(t, inner, opts), "backups/b", time.Now()); !errors.Is(err, plugins.ErrAccess) || len(inner.keys) > 0 {
		t.Errorf("read-only: %v, retained %q", err, inner.keys)
	}
}
