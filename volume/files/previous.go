package files

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

// previous is a folder of an earlier snapshot, read along with the one that is copied: both are in the same order.
type previous struct {
	id      object.ID
	entries *entryReader
	raw     []byte // the next entry; nil after the last one
	key     key
	sidecar []byte // the sidecar's entry, once it was passed
	others  bool   // entries were passed that nobody asked for
	err     error
	// from and to: a file written to between them may have changed again unseen; nanoseconds since 1970.
	from, to fs.UTCTimestamp
}

func openPrevious(ctx context.Context, rep repo.Repository, id object.ID, from, to fs.UTCTimestamp) (*previous, error) {
	entries, err := openEntries(ctx, rep, id)
	if err != nil {
		return nil, err
	}
	p := &previous{id: id, entries: entries, from: from, to: to}
	p.advance()
	if p.err != nil {
		p.close()
		return nil, p.err
	}
	return p, nil
}

func (p *previous) close() { p.entries.close() }

// advance reads the next entry. After an error there are no more: the files are read again then.
func (p *previous) advance() {
	raw, k, err := p.entries.next()
	switch {
	case err == nil && k == (key{classOther, sidecarName}):
		p.sidecar = bytes.Clone(raw)
		p.advance()
		return
	case errors.Is(err, io.EOF):
		raw = nil
	case err != nil:
		raw, p.err = nil, err
	}
	p.raw, p.key = raw, k
}

// find gives a copy of the entry at k, or nil. Keys must be asked for in ascending order.
func (p *previous) find(k key) []byte {
	for p.raw != nil && p.key.compare(k) < 0 {
		p.others = true
		p.advance()
	}
	if p.raw == nil || p.key != k {
		return nil
	}
	found := bytes.Clone(p.raw)
	p.advance()
	return found
}

// racy says whether a file with this modification time may have been written to after it was copied, with the same time.
func (p *previous) racy(mtime fs.UTCTimestamp) bool { return mtime >= p.from && mtime <= p.to }

// finished says whether every entry was asked for, and reads to the end.
func (p *previous) finished() bool {
	for p.raw != nil {
		p.others = true
		p.advance()
	}
	return !p.others && p.err == nil
}
