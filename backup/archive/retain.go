package archive

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

// retainConcurrency is how many objects of a backup are retained at once.
const retainConcurrency = 8

// Retain has the store protect every object of a backup until then (object lock); what is protected for longer stays so. The record comes
// last: once it is protected until then, all files are. It may be repeated, and goes on where an earlier call was cut off. The error wraps
// plugins.ErrUnsupported where the store cannot retain, and ErrInvalid where the entry's record could not be read.
func (l *Location) Retain(ctx context.Context, e Entry, until time.Time) error {
	if e.Record == nil || !validName(e.Name) || !validUID(e.UID) {
		return fmt.Errorf("retain backup %s: its record was not read: %w", e.ID(), ErrInvalid)
	}
	var keys []string
	err := l.store.List(ctx, attemptFolder(e.Name, e.UID, e.Record.Attempt), func(info plugins.ObjectInfo) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err == nil {
		err = l.retainAll(ctx, keys, until)
	}
	if err == nil {
		err = plugins.Retain(ctx, l.store, recordKey(e.Name, e.UID), until)
	}
	if err != nil {
		return fmt.Errorf("retain backup %s: %w", e.ID(), err)
	}
	return nil
}

func (l *Location) retainAll(ctx context.Context, keys []string, until time.Time) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(retainConcurrency)
	for _, key := range keys {
		group.Go(func() error { return plugins.Retain(ctx, l.store, key, until) })
	}
	return group.Wait()
}

// Again reads an entry again, as the location has it now. The error wraps ErrBackupNotFound where it is gone.
func (l *Location) Again(ctx context.Context, e Entry) (Entry, error) {
	have, err := l.scan(ctx, backupFolder(e.Name, e.UID))
	if err == nil && len(have) == 0 {
		err = ErrBackupNotFound
	}
	if err == nil {
		err = l.readEntries(ctx, have, func(found Entry) error {
			e = found
			return nil
		})
	}
	if err != nil {
		return Entry{}, fmt.Errorf("look at backup %s again: %w", e.ID(), err)
	}
	return e, nil
}
