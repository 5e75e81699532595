package main

import (
	"context"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
)

// maxRemoteObjects is how many objects of a backup are fetched through the API server to be compared: each is a request of its own.
const maxRemoteObjects = 200

// remoteSide is a backup that the server reads.
type remoteSide struct {
	remote *remote
	backup string
	left   int // how many objects may still be fetched
}

func (s *remoteSide) rows(ctx context.Context, selection v1alpha1.Selection, fn func(located) error) error {
	return s.remote.rows(ctx, s.backup, selection, func(row archive.Row) error { return fn(located{row: row}) })
}

func (s *remoteSide) objects(ctx context.Context, rows []located) (map[string][]byte, error) {
	if s.left -= len(rows); s.left < 0 {
		return nil, onlyLocal("diff", fmt.Sprintf("more than %d objects differ; select less", maxRemoteObjects))
	}
	objects := make(map[string][]byte, len(rows))
	for _, l := range rows {
		ref := l.row.Ref
		raw, err := s.remote.item(ctx, s.backup, &v1alpha1.ItemReference{Group: ref.Group, Version: ref.Version, Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name})
		if err != nil {
			return nil, err
		}
		objects[placeKey(ref)] = raw
	}
	return objects, nil
}

// diff compares two backups by what the server reads of them.
func (r *remote) diff(ctx context.Context, names []string, f *diffFlags) error {
	if f.live {
		return onlyLocal("diff --live", "every object of the backup would have to come through the API server")
	}
	sides := make([]*remoteSide, len(names))
	for i, name := range names {
		b, err := r.findBackup(ctx, f.location, name)
		if err != nil {
			return err
		}
		sides[i] = &remoteSide{remote: r, backup: b.Name, left: maxRemoteObjects}
	}
	result := &comparison{From: names[0], To: names[1], Differences: []difference{}}
	if err := (&backupDiff{from: sides[0], to: sides[1], compare: &f.compare, result: result}).run(ctx, f.selection); err != nil {
		return fmt.Errorf("compare %s with %s: %w", result.From, result.To, err)
	}
	return r.app.printComparison(result, f)
}
