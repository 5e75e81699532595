package decorate

import (
	"context"
	"io"
	"time"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
)

// Gated lets operations that change the store begin only through a gate: they wait while it may open again, and fail with an error that
// wraps gate.ErrShut when it will not. Reading is free.
func Gated(store plugins.ObjectStore, g *gate.Gate) plugins.ObjectStore {
	return &gated{ObjectStore: store, gate: g}
}

type gated struct {
	plugins.ObjectStore
	gate *gate.Gate
}

var _ plugins.Retainer = (*gated)(nil)

// Unwrap gives the store behind the gate.
func (g *gated) Unwrap() plugins.ObjectStore { return g.ObjectStore }

func (g *gated) pass(ctx context.Context, op, key string) error {
	if err := plugins.CheckKey(key); err != nil { // as the contract has it: before anything else
		return &plugins.StoreError{Op: op, Store: g.String(), Key: key, Err: err}
	}
	if err := g.gate.Pass(ctx); err != nil {
		return &plugins.StoreError{Op: op, Store: g.String(), Key: key, Err: err}
	}
	return nil
}

func (g *gated) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	if err := g.pass(ctx, "put", key); err != nil {
		return plugins.ObjectInfo{}, err
	}
	return g.ObjectStore.Put(ctx, key, r, opts)
}

func (g *gated) Delete(ctx context.Context, key string) error {
	if err := g.pass(ctx, "delete", key); err != nil {
		return err
	}
	return g.ObjectStore.Delete(ctx, key)
}

func (g *gated) Retain(ctx context.Context, key string, until time.Time) error {
	if err := g.pass(ctx, "retain", key); err != nil {
		return err
	}
	return plugins.Retain(ctx, g.ObjectStore, key, until)
}
