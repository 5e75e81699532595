package file

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"kedge.dev/kedge/plugins"
)

// List walks the folder in the byte order of the keys. It holds the names of the directories on its way, one level at a time.
func (s *Store) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	if err := plugins.CheckPrefix(prefix); err != nil {
		return s.fail("list", prefix, err)
	}
	// Only the folder that the prefix names whole need be read.
	dir := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i+1]
	}
	return s.walk(ctx, dir, prefix, fn)
}

// walk lists the keys below dir ("" or ending in a slash) that begin with prefix.
func (s *Store) walk(ctx context.Context, dir, prefix string, fn func(plugins.ObjectInfo) error) error {
	names, err := s.names(dir, prefix)
	if err != nil {
		return s.fail("list", dir, err)
	}
	for _, name := range names {
		if err := context.Cause(ctx); err != nil {
			return s.fail("list", dir, err)
		}
		key := dir + name
		if strings.HasSuffix(name, "/") {
			if err := s.walk(ctx, key, prefix, fn); err != nil {
				return err
			}
			continue
		}
		info, err := s.root.Stat(key)
		if gone(err) || err == nil && !info.Mode().IsRegular() {
			continue // deleted meanwhile, or nothing of ours
		}
		if err != nil {
			return s.fail("list", key, err)
		}
		if err := fn(describe(key, info)); err != nil {
			return err
		}
	}
	return nil
}

// names gives the entries of a folder that can hold keys with the prefix, folders with a slash behind them, in the order of the keys:
// "a-b" comes before all of "a/", since '-' comes before '/'.
func (s *Store) names(dir, prefix string) ([]string, error) {
	f, err := s.root.Open(cmp.Or(strings.TrimSuffix(dir, "/"), "."))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if gone(err) {
		err = nil // removed while it was read, or an object and no folder
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() {
			name += "/"
		}
		key := dir + name
		if plugins.CheckKey(strings.TrimSuffix(key, "/")) != nil {
			continue // unfinished writes, and files that no key can name
		}
		if strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key) && entry.IsDir() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
