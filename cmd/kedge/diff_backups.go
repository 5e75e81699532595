package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// backupDiff compares two backups.
type backupDiff struct {
	from, to diffSide
	compare  *comparer
	result   *comparison
}

// diffSide is a backup that is compared.
type diffSide interface {
	// rows calls fn for each row that a selection takes.
	rows(ctx context.Context, s v1alpha1.Selection, fn func(located) error) error
	// objects reads objects; they are named by placeKey.
	objects(ctx context.Context, rows []located) (map[string][]byte, error)
}

// archiveSide is a backup that this process reads.
type archiveSide struct{ reader *archive.Reader }

func (a archiveSide) rows(ctx context.Context, s v1alpha1.Selection, fn func(located) error) error {
	return selectRows(ctx, a.reader, s, func(frame int, row archive.Row) error { return fn(located{frame, row}) })
}

func (a archiveSide) objects(ctx context.Context, rows []located) (map[string][]byte, error) {
	return readRows(ctx, a.reader, rows)
}

// located is a row and the frame that holds its object.
type located struct {
	frame int
	row   archive.Row
}

// pair is one object in both backups whose bytes differ.
type pair struct{ from, to located }

// pairsAtOnce bounds how many objects are in memory at a time.
const pairsAtOnce = 500

// placeKey names an object regardless of the version in which it was archived.
func placeKey(ref plugins.Ref) string {
	return ref.GroupResource() + " " + archive.Key(ref.Namespace, ref.Name)
}

func (d *backupDiff) run(ctx context.Context, s v1alpha1.Selection) error {
	before := map[string]located{}
	err := d.from.rows(ctx, s, func(l located) error {
		l.row.Labels, l.row.Owners = nil, nil
		before[placeKey(l.row.Ref)] = l
		return nil
	})
	if err != nil {
		return err
	}
	var differing []pair
	err = d.to.rows(ctx, s, func(l located) error {
		row := l.row
		old, ok := before[placeKey(row.Ref)]
		switch {
		case !ok:
			d.result.Differences = append(d.result.Differences, difference{Change: Added, Ref: row.Ref})
		case old.row.SHA256 == row.SHA256:
			d.result.Same++
		default:
			row.Labels, row.Owners = nil, nil
			differing = append(differing, pair{old, located{l.frame, row}})
		}
		delete(before, placeKey(row.Ref))
		return nil
	})
	if err != nil {
		return err
	}
	for _, old := range before {
		d.result.Differences = append(d.result.Differences, difference{Change: Removed, Ref: old.row.Ref})
	}
	for batch := range slices.Chunk(differing, pairsAtOnce) {
		if err := d.comparePairs(ctx, batch); err != nil {
			return err
		}
	}
	sortDifferences(d.result.Differences)
	return nil
}

// comparePairs reads both sides of some objects and compares what counts.
func (d *backupDiff) comparePairs(ctx context.Context, batch []pair) error {
	from, to := make([]located, len(batch)), make([]located, len(batch))
	for i, p := range batch {
		from[i], to[i] = p.from, p.to
	}
	before, err := d.from.objects(ctx, from)
	if err != nil {
		return err
	}
	after, err := d.to.objects(ctx, to)
	if err != nil {
		return err
	}
	for _, p := range batch {
		key := placeKey(p.to.row.Ref)
		found, err := d.compare.compare(p.to.row.Ref, before[key], after[key])
		if err != nil {
			return fmt.Errorf("compare %s: %w", p.to.row.Ref, err)
		}
		if found == nil {
			d.result.Same++
			continue
		}
		d.result.Differences = append(d.result.Differences, *found)
	}
	return nil
}

// readRows reads objects, each frame once.
func readRows(ctx context.Context, reader *archive.Reader, rows []located) (map[string][]byte, error) {
	byFrame := map[int][]archive.Row{}
	for _, l := range rows {
		byFrame[l.frame] = append(byFrame[l.frame], l.row)
	}
	objects := make(map[string][]byte, len(rows))
	for frame, wanted := range byFrame {
		err := reader.Read(ctx, frame, wanted, func(row archive.Row, raw []byte) error {
			objects[placeKey(row.Ref)] = slices.Clone(raw)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// sortDifferences orders by resource, namespace and name.
func sortDifferences(list []difference) {
	slices.SortFunc(list, func(a, b difference) int {
		return cmp.Or(cmp.Compare(a.Ref.GroupResource(), b.Ref.GroupResource()), cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name))
	})
}
