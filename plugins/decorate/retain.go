package decorate

import (
	"context"
	"time"

	"kedge.dev/kedge/plugins"
)

// Every decorator is a plugins.Retainer, so that an extension is observed, refused, bounded and tried again like any other write. Where the
// store beneath is none, the error wraps plugins.ErrUnsupported.
var (
	_ plugins.Retainer = (*prefixed)(nil)
	_ plugins.Retainer = (*retrying)(nil)
	_ plugins.Retainer = (*limited)(nil)
	_ plugins.Retainer = readOnly{}
	_ plugins.Retainer = (*observed)(nil)
)

func (p *prefixed) Retain(ctx context.Context, key string, until time.Time) error {
	full, err := p.full("retain", key)
	if err != nil {
		return err
	}
	return p.inside(key, plugins.Retain(ctx, p.store, full, until))
}

func (r *retrying) Retain(ctx context.Context, key string, until time.Time) error {
	return r.do(ctx, func() error { return plugins.Retain(ctx, r.ObjectStore, key, until) })
}

func (l *limited) Retain(ctx context.Context, key string, until time.Time) error {
	if err := l.turn(ctx, l.writes, "retain", key); err != nil {
		return err
	}
	defer l.writes.Release(1)
	return plugins.Retain(ctx, l.ObjectStore, key, until)
}

// Retain is refused: it is a write.
func (r readOnly) Retain(_ context.Context, key string, _ time.Time) error {
	return r.refuse("retain", key)
}

func (o *observed) Retain(ctx context.Context, key string, until time.Time) error {
	e := o.begin("retain", key)
	err := plugins.Retain(ctx, o.ObjectStore, key, until)
	o.end(ctx, e, err)
	return err
}
