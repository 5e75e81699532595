package volumes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/backup/archive"
)

// readAtOnce is how many backups' rows are read at once.
const readAtOnce = 4

// mark stands for the id of a copy. Two ids with one mark, which nobody will see, would keep a copy too many.
type mark [16]byte

func markOf(id string) mark {
	sum := sha256.Sum256([]byte(id))
	return mark(sum[:16])
}

// Named remembers which copies the sealed backups of a location name. A sealed backup never changes, so its rows are read once. Of each row 16
// bytes are kept. The zero value is ready, for many goroutines.
type Named struct {
	mu    sync.Mutex
	known map[string][]mark // by identity of the record
}

// CopySet is a set of copies.
type CopySet struct{ marks []mark }

// Has says whether the set has the copy with that id.
func (s *CopySet) Has(id string) bool {
	_, found := slices.BinarySearchFunc(s.marks, markOf(id), compareMarks)
	return found
}

func compareMarks(a, b mark) int { return bytes.Compare(a[:], b[:]) }

// Copies gives the copies that the backups of a listing name, those that are being deleted too: until a deletion is finished, its backup is
// there. The listing must be all of the location's, of every cluster. The error says that one of the backups cannot be understood; then nobody
// knows which copies are wanted.
func (n *Named) Copies(ctx context.Context, l *archive.Location, entries []archive.Entry, keys *archive.Keys) (*CopySet, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range entries {
		if e := &entries[i]; e.Err != nil || e.Record == nil {
			return nil, fmt.Errorf("read backup %s: %w", e.ID(), cmp.Or(e.Err, archive.ErrInvalid))
		}
	}
	found := make([][]mark, len(entries))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readAtOnce)
	for i := range entries {
		e := &entries[i]
		if !hasRows(e.Record) {
			continue
		}
		if marks, ok := n.known[identity(e.Record)]; ok {
			found[i] = marks
			continue
		}
		g.Go(func() (err error) {
			found[i], err = readMarks(gctx, l, e, keys)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	known, set := map[string][]mark{}, &CopySet{}
	for i := range entries {
		if hasRows(entries[i].Record) {
			known[identity(entries[i].Record)] = found[i]
			set.marks = append(set.marks, found[i]...)
		}
	}
	n.known = known
	slices.SortFunc(set.marks, compareMarks)
	set.marks = slices.Compact(set.marks)
	return set, nil
}

// identity tells sealed backups apart: a uid that was deleted may be sealed again.
func identity(r *archive.Record) string { return r.ID() + "/" + r.Attempt + "/" + r.Nonce }

func hasRows(r *archive.Record) bool {
	return r.Counts.Volumes > 0 || slices.ContainsFunc(r.Files, func(f archive.File) bool { return f.Name == archive.FileVolumes })
}

func readMarks(ctx context.Context, l *archive.Location, e *archive.Entry, keys *archive.Keys) ([]mark, error) {
	reader, err := l.OpenBackup(ctx, *e, keys, archive.ReadOptions{AllowDeleting: true})
	if err != nil {
		return nil, err
	}
	rows, err := reader.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	if len(rows) != e.Record.Counts.Volumes {
		return nil, fmt.Errorf("read backup %s: it has %d volumes, its record says %d", e.ID(), len(rows), e.Record.Counts.Volumes)
	}
	marks := []mark{}
	for i := range rows {
		if rows[i].CopyID != "" {
			marks = append(marks, markOf(rows[i].CopyID))
		}
	}
	return marks, nil
}
