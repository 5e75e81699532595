package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

// listConcurrency is how many records are read at once.
const listConcurrency = 64

// Entry is one backup in a listing. A record that cannot be read is an entry too, with Err, and hides no other.
type Entry struct {
	Name   string
	UID    string
	Record *Record // nil where Err is set; without APIs and Frames
	Err    error
	// Expiry is the newest expiry file; nil where there is none.
	Expiry *Expiry
	// Deleting says that a deletion has begun.
	Deleting bool
}

// Expiry says how long a backup is kept. Each change is a file of its own; the newest counts.
type Expiry struct {
	// Expires is when retention may remove the backup; nil means never.
	Expires *time.Time `json:"expires,omitempty"`
	// Hold keeps it in spite of that, until an Expiry without Hold.
	Hold bool `json:"hold,omitempty"`
	// Reason is for people.
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// ID is what messages call the backup: "name/uid".
func (e *Entry) ID() string { return e.Name + "/" + e.UID }

// ExpiresAt is when retention may remove the backup; nil means never, or not while it is held.
func (e *Entry) ExpiresAt() *time.Time {
	switch {
	case e.Expiry != nil && e.Expiry.Hold:
		return nil
	case e.Expiry != nil:
		return e.Expiry.Expires
	case e.Record != nil:
		return e.Record.Expires
	}
	return nil
}

// found is what a listing of keys tells of a backup.
type found struct {
	name, uid string
	record    bool
	expiry    int // number of the newest expiry file
	deleting  bool
}

// Backups calls fn for every backup, sorted by name and uid, from one goroutine. Records are read several at a time;
// memory holds a few of them. What fn returns ends the listing.
func (l *Location) Backups(ctx context.Context, fn func(Entry) error) error {
	have, err := l.scan(ctx, backupsPrefix)
	if err != nil {
		return fmt.Errorf("list the backups of %s: %w", l.store, err)
	}
	return l.readEntries(ctx, have, fn)
}

// Find gives the backup with that uid, or the only one with that name. The error wraps ErrBackupNotFound, or is an
// *AmbiguousError.
func (l *Location) Find(ctx context.Context, nameOrUID string) (Entry, error) {
	have, err := l.search(ctx, nameOrUID)
	if err != nil {
		return Entry{}, fmt.Errorf("find backup %q in %s: %w", nameOrUID, l.store, err)
	}
	var entry Entry
	err = l.readEntries(ctx, have, func(e Entry) error {
		entry = e
		return nil
	})
	return entry, err
}

func (l *Location) search(ctx context.Context, nameOrUID string) ([]found, error) {
	if !validName(nameOrUID) && !validUID(nameOrUID) {
		return nil, ErrBackupNotFound
	}
	have, err := l.scan(ctx, backupsPrefix+nameOrUID+"/")
	if err != nil {
		return nil, err
	}
	if len(have) == 0 {
		if have, err = l.scan(ctx, backupsPrefix); err != nil {
			return nil, err
		}
		have = slices.DeleteFunc(have, func(f found) bool { return f.uid != nameOrUID })
	}
	switch len(have) {
	case 0:
		return nil, ErrBackupNotFound
	case 1:
		return have, nil
	}
	ambiguous := &AmbiguousError{Name: nameOrUID}
	for _, f := range have {
		ambiguous.UIDs = append(ambiguous.UIDs, f.uid)
	}
	return nil, ambiguous
}

// splitKey takes backups/<name>/<uid>/<rest> apart.
func splitKey(key string) (name, uid, rest string, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(key, backupsPrefix), "/", 3)
	if len(parts) != 3 || !validName(parts[0]) || !validUID(parts[1]) {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

func (l *Location) readEntries(ctx context.Context, have []found, fn func(Entry) error) error {
	return inOrder(ctx, len(have), listConcurrency,
		func(ctx context.Context, i int) (Entry, error) { return l.readEntry(ctx, have[i]) },
		func(_ int, e Entry) error { return fn(e) })
}

// readEntry reads record and expiry of one backup. Only a cancelled context ends the listing: anything else is the
// entry's own matter and hides no other backup.
func (l *Location) readEntry(ctx context.Context, f found) (Entry, error) {
	e := Entry{Name: f.name, UID: f.uid, Deleting: f.deleting}
	raw, err := l.readFile(ctx, f, recordName, maxRecord)
	if err == nil {
		e.Record, err = parseRecord(raw, f.name, f.uid)
	}
	if err == nil && f.expiry > 0 {
		e.Expiry, err = l.readExpiry(ctx, f)
	}
	if err != nil {
		e.Record, e.Err = nil, err
	}
	return e, ctx.Err()
}

func (l *Location) readExpiry(ctx context.Context, f found) (*Expiry, error) {
	file := fmt.Sprintf("%s/%d.json", expiryFolder, f.expiry)
	raw, err := l.readFile(ctx, f, file, maxSmall)
	if err != nil {
		return nil, err
	}
	x, err := parseExpiry(raw)
	if err != nil {
		return nil, &DamageError{
			Backup: f.name + "/" + f.uid, File: file, Offset: -1, Detail: "it cannot be read", Err: err,
			Remedy: "set the backup's expiry anew: the newest expiry file counts",
		}
	}
	return x, nil
}

// readFile reads a small file of a backup's folder.
func (l *Location) readFile(ctx context.Context, f found, file string, limit int64) ([]byte, error) {
	raw, err := readAll(ctx, l.store, backupFolder(f.name, f.uid)+file, limit)
	switch {
	case err == nil:
		return raw, nil
	case errors.Is(err, plugins.ErrNotFound), errors.Is(err, ErrTooLarge):
		return nil, &DamageError{Backup: f.name + "/" + f.uid, File: file, Offset: -1, Detail: "it cannot be read", Err: err}
	}
	return nil, fmt.Errorf("backup %s/%s: %w", f.name, f.uid, err)
}

func parseExpiry(raw []byte) (*Expiry, error) {
	var x Expiry
	if err := openJSON(raw, &x, false); err != nil {
		return nil, err
	}
	return &x, nil
}

// SetExpiry adds an expiry file. Of several callers at once each adds one, and the last one counts.
func (l *Location) SetExpiry(ctx context.Context, e Entry, x Expiry) error {
	if !validName(e.Name) || !validUID(e.UID) {
		return fmt.Errorf("set the expiry of %s: %w", e.ID(), ErrInvalid)
	}
	doc, err := sealJSON(x)
	if err != nil {
		return fmt.Errorf("set the expiry of %s: %w", e.ID(), err)
	}
	if _, err := l.addNumbered(ctx, backupFolder(e.Name, e.UID)+expiryFolder+"/", ".json", doc); err != nil {
		return fmt.Errorf("set the expiry of %s: %w", e.ID(), err)
	}
	return nil
}

// inOrder runs produce for 0 to n-1, some at a time, and hands the results to consume in that order, one at a time.
func inOrder[T any](ctx context.Context, n, concurrency int, produce func(context.Context, int) (T, error), consume func(int, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan chan T, max(concurrency-1, 0))
	group.Go(func() error {
		defer close(slots)
		for i := range n {
			slot := make(chan T, 1)
			select {
			case slots <- slot:
			case <-ctx.Done():
				return ctx.Err()
			}
			group.Go(func() error {
				v, err := produce(ctx, i)
				if err == nil {
					slot <- v
				}
				return err
			})
		}
		return nil
	})
	group.Go(func() error {
		i := 0
		for slot := range slots {
			select {
			case v := <-slot:
				if err := consume(i, v); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			i++
		}
		return nil
	})
	return group.Wait()
}

// putOnce stores doc under key, or finds it there already, by us or by another with the same content.
func (l *Location) putOnce(ctx context.Context, key string, doc []byte) error {
	_, err := l.store.Put(ctx, key, bytes.NewReader(doc), plugins.PutOptions{IfNoneMatch: true})
	if errors.Is(err, plugins.ErrExists) {
		return nil
	}
	return err
}
