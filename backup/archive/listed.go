package archive

import (
	"context"
	"fmt"
)

// Listed is what the keys of a location tell of one backup, before its record is read.
type Listed struct{ found found }

// Name is the backup's name.
func (l Listed) Name() string { return l.found.name }

// UID is the backup's uid.
func (l Listed) UID() string { return l.found.uid }

// Expiry counts the changes of how long the backup is kept. A record never changes, so an Entry that was read stays true
// until this number or Deleting does not.
func (l Listed) Expiry() int { return l.found.expiry }

// Deleting says that a deletion has begun.
func (l Listed) Deleting() bool { return l.found.deleting }

// List gives every backup that has a record, sorted by name and uid, from the listing of keys alone.
func (l *Location) List(ctx context.Context) ([]Listed, error) {
	inventory, err := l.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return inventory.Backups, nil
}

// Named gives the backups of one name, from the listing of their keys alone.
func (l *Location) Named(ctx context.Context, name string) ([]Listed, error) {
	if !validName(name) {
		return nil, nil
	}
	have, err := l.scan(ctx, backupsPrefix+name+"/")
	if err != nil {
		return nil, fmt.Errorf("look for backups %q in %s: %w", name, l.store, err)
	}
	out := make([]Listed, len(have))
	for i, f := range have {
		out[i] = Listed{f}
	}
	return out, nil
}

// Entries calls fn for each of the listed backups in their order, from one goroutine, and reads their records several at a time.
// A record that cannot be read is an entry with Err. What fn returns ends the reading.
func (l *Location) Entries(ctx context.Context, listed []Listed, fn func(Entry) error) error {
	have := make([]found, len(listed))
	for i := range listed {
		have[i] = listed[i].found
	}
	return l.readEntries(ctx, have, fn)
}
