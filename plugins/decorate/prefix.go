package decorate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"kedge.dev/kedge/plugins"
)

// Prefix shows a folder of a store as a store. It does not show the inner store to plugins.As, whose keys are others. The prefix has no slashes at its ends; the error wraps plugins.ErrInvalidKey where it can begin no key.
func Prefix(store plugins.ObjectStore, prefix string) (plugins.ObjectStore, error) {
	if err := plugins.CheckKey(prefix); err != nil {
		return nil, fmt.Errorf("prefix of %s: %w", store, err)
	}
	return &prefixed{store: store, prefix: prefix + "/"}, nil
}

type prefixed struct {
	store  plugins.ObjectStore
	prefix string
}

func (p *prefixed) String() string { return p.store.String() + "/" + strings.TrimSuffix(p.prefix, "/") }

// inside makes err, which speaks of the inner store's keys, speak of ours.
func (p *prefixed) inside(key string, err error) error {
	var known *plugins.StoreError
	if err == nil || !errors.As(err, &known) {
		return err
	}
	ours := *known
	ours.Store, ours.Key = p.String(), key
	return &ours
}

// full is the inner store's key. An empty or too long one stays wrong with the prefix before it.
func (p *prefixed) full(op, key string) (string, error) {
	if err := plugins.CheckKey(key); err != nil {
		return "", &plugins.StoreError{Op: op, Store: p.String(), Key: key, Err: err}
	}
	return p.prefix + key, nil
}

func (p *prefixed) Put(ctx context.Context, key string, r io.Reader, opts plugins.PutOptions) (plugins.ObjectInfo, error) {
	full, err := p.full("put", key)
	if err != nil {
		return plugins.ObjectInfo{}, err
	}
	info, err := p.store.Put(ctx, full, r, opts)
	return p.outside(info), p.inside(key, err)
}

func (p *prefixed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := p.full("get", key)
	if err != nil {
		return nil, err
	}
	r, err := p.store.Get(ctx, full, offset, length)
	return r, p.inside(key, err)
}

func (p *prefixed) Stat(ctx context.Context, key string) (plugins.ObjectInfo, error) {
	full, err := p.full("stat", key)
	if err != nil {
		return plugins.ObjectInfo{}, err
	}
	info, err := p.store.Stat(ctx, full)
	return p.outside(info), p.inside(key, err)
}

func (p *prefixed) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	if err := plugins.CheckPrefix(prefix); err != nil {
		return &plugins.StoreError{Op: "list", Store: p.String(), Key: prefix, Err: err}
	}
	var callback error
	err := p.store.List(ctx, p.prefix+prefix, func(info plugins.ObjectInfo) error {
		callback = fn(p.outside(info))
		return callback
	})
	if callback != nil {
		return callback
	}
	return p.inside(prefix, err)
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	full, err := p.full("delete", key)
	if err != nil {
		return err
	}
	return p.inside(key, p.store.Delete(ctx, full))
}

func (p *prefixed) outside(info plugins.ObjectInfo) plugins.ObjectInfo {
	info.Key = strings.TrimPrefix(info.Key, p.prefix)
	return info
}
