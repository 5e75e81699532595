package decorate

import (
	"context"
	"fmt"
	"io"

	"kedge.dev/kedge/plugins"
)

// ReadOnly refuses Put, Delete and Retain with plugins.ErrAccess, and examines the store without writing.
func ReadOnly(store plugins.ObjectStore) plugins.ObjectStore { return readOnly{store} }

type readOnly struct{ plugins.ObjectStore }

var _ plugins.Checker = readOnly{}

// Unwrap gives the store that would write.
func (r readOnly) Unwrap() plugins.ObjectStore { return r.ObjectStore }

func (r readOnly) Put(_ context.Context, key string, _ io.Reader, _ plugins.PutOptions) (plugins.ObjectInfo, error) {
	return plugins.ObjectInfo{}, r.refuse("put", key)
}

func (r readOnly) Delete(_ context.Context, key string) error { return r.refuse("delete", key) }

func (r readOnly) refuse(op, key string) error {
	if err := plugins.CheckKey(key); err != nil {
		return &plugins.StoreError{Op: op, Store: r.String(), Key: key, Err: err}
	}
	return &plugins.StoreError{
		Op: op, Store: r.String(), Key: key, Err: fmt.Errorf("%w: the location is read-only", plugins.ErrAccess),
		Remedy: "use another location, or make this one writable",
	}
}

// Check examines the store as far as reading goes.
func (r readOnly) Check(ctx context.Context, opts plugins.CheckOptions) []plugins.Finding {
	opts.ReadOnly = true
	if checker, ok := plugins.As[plugins.Checker](r.ObjectStore); ok {
		return checker.Check(ctx, opts)
	}
	return nil
}
