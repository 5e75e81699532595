package location

import (
	"context"
	"maps"
	"slices"
	"sync"

	"kedge.dev/kedge/backup/archive"
)

// listing remembers the records that were read: a record never changes, so that of thousands of backups only the new ones cost a request. One
// listing is under way at a time; whoever asks while it is waits, and shares the next one with all who wait.
type listing struct {
	mu    sync.Mutex
	known map[string]remembered // by archive.Entry.ID: a folder that was copied inside the bucket has the uid of the one it was copied from

	countMu sync.Mutex
	begun   int // listings so far
	last    *listed
}

type remembered struct {
	expiry int
	entry  archive.Entry
}

// listed is what one listing gave. Nobody changes it.
type listed struct {
	number    int
	inventory *archive.Inventory
	entries   []archive.Entry
}

// Entries lists the location to its end and gives every backup in it, sorted by name and uid. Records that could not be read are entries
// with Err, and are read again the next time.
func (p *Place) Entries(ctx context.Context) ([]archive.Entry, error) {
	_, entries, err := p.Inventory(ctx)
	return entries, err
}

// Inventory is Entries, with all else that the one listing found. It may be another's listing, if that began after this was asked for.
func (p *Place) Inventory(ctx context.Context) (*archive.Inventory, []archive.Entry, error) {
	before := p.listing.count(0)
	p.listing.mu.Lock()
	defer p.listing.mu.Unlock()
	if l := p.listing.last; l != nil && l.number > before {
		return l.inventory, slices.Clone(l.entries), nil
	}
	l, err := p.list(ctx, func(archive.Entry) {})
	if err != nil {
		return nil, nil, err
	}
	return l.inventory, slices.Clone(l.entries), nil
}

// Walk is Entries that calls each for every backup in turn: for those whose records are read, while the location is still being listed, and at its end for
// those that were known.
func (p *Place) Walk(ctx context.Context, each func(archive.Entry)) ([]archive.Entry, error) {
	p.listing.mu.Lock()
	defer p.listing.mu.Unlock()
	l, err := p.list(ctx, each)
	if err != nil {
		return nil, err
	}
	return slices.Clone(l.entries), nil
}

// count gives how many listings have begun, with so many more.
func (l *listing) count(more int) int {
	l.countMu.Lock()
	defer l.countMu.Unlock()
	l.begun += more
	return l.begun
}

// idOf is the ID of the entry that the record of a listed backup gives.
func idOf(l archive.Listed) string { return l.Name() + "/" + l.UID() }

// list is one listing; the caller holds the lock.
func (p *Place) list(ctx context.Context, each func(archive.Entry)) (*listed, error) {
	out := &listed{number: p.listing.count(1)}
	before, known := p.listing.known, map[string]remembered{}
	unknown := func(l archive.Listed) bool {
		r, ok := before[idOf(l)]
		return !ok || r.expiry != l.Expiry() || r.entry.Err != nil
	}
	var err error
	out.inventory, err = p.Archive.Follow(ctx, unknown, func(l archive.Listed, e archive.Entry) error {
		known[idOf(l)] = remembered{expiry: l.Expiry(), entry: e}
		each(e)
		return nil
	})
	if err != nil {
		if p.listing.known == nil {
			p.listing.known = map[string]remembered{}
		}
		maps.Copy(p.listing.known, known) // what was read need not be read again
		return nil, err
	}
	out.entries = make([]archive.Entry, 0, len(out.inventory.Backups))
	for _, l := range out.inventory.Backups {
		r, told := known[idOf(l)]
		if !told {
			r = before[idOf(l)]
			known[idOf(l)] = r
		}
		r.entry.Deleting = l.Deleting()
		out.entries = append(out.entries, r.entry)
		if !told {
			each(r.entry)
		}
	}
	p.listing.known, p.listing.last = known, out
	return out, nil
}
