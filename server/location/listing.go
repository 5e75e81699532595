package location

import (
	"context"
	"sync"

	"kedge.dev/kedge/backup/archive"
)

// listing remembers the records that were read: a record never changes, so that of thousands of backups only the new ones cost a request.
type listing struct {
	mu    sync.Mutex
	known map[string]remembered // by uid
}

type remembered struct {
	expiry int
	entry  archive.Entry
}

// Entries lists the location to its end and gives every backup in it, sorted by name and uid. Records that could not be read are entries
// with Err, and are read again the next time.
func (p *Place) Entries(ctx context.Context) ([]archive.Entry, error) {
	_, entries, err := p.Inventory(ctx)
	return entries, err
}

// Inventory is Entries, with all else that the one listing found.
func (p *Place) Inventory(ctx context.Context) (*archive.Inventory, []archive.Entry, error) {
	p.listing.mu.Lock()
	defer p.listing.mu.Unlock()
	inventory, err := p.Archive.Inventory(ctx)
	if err != nil {
		return nil, nil, err
	}
	listed := inventory.Backups
	var unread []archive.Listed
	known := make(map[string]remembered, len(listed))
	for _, l := range listed {
		if r, ok := p.listing.known[l.UID()]; ok && r.expiry == l.Expiry() && r.entry.Err == nil {
			known[l.UID()] = r
		} else {
			unread = append(unread, l)
		}
	}
	i := 0
	err = p.Archive.Entries(ctx, unread, func(e archive.Entry) error {
		known[e.UID] = remembered{expiry: unread[i].Expiry(), entry: e}
		i++
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	p.listing.known = known
	out := make([]archive.Entry, len(listed))
	for i, l := range listed {
		out[i] = known[l.UID()].entry
		out[i].Deleting = l.Deleting()
	}
	return inventory, out, nil
}
