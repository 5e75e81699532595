package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"kedge.dev/kedge/restore"
)

// The bounds of a journal.
const (
	// chunkSize is how many bytes of records go into one Secret; they compress to about a tenth.
	chunkSize = 512 << 10
	// lazySize and lazyFor are how much and how long a record may wait that nobody waits for.
	lazySize = 256 << 10
	lazyFor  = time.Second
	// maxPending is where also such records are waited for.
	maxPending = 4 << 20
	// spacing is the least time between the beginnings of two writes, so that many records share one.
	spacing = 10 * time.Millisecond
)

// Journal is a restore.Journal in Secrets, for one restore. Opening it takes it over: a process that still writes to it fails at its
// next write with ErrFenced.
//
// Append returns when its records are stored; records that are appended at the same time share a write. One sort is not waited for, because
// it can be found out again: that an object was created, with nothing to remark on. A resumed restore that meets the object knows it by its field
// manager, "kedge/<restore>", and its age. Such records are stored with the next write, or by Run within a second.
type Journal struct {
	series series
	now    func() time.Time
	last   int // the number of the last Secret when the journal was opened

	mu       sync.Mutex
	pending  []byte // whole lines
	appended int64  // bytes ever appended
	stored   int64  // bytes that are stored
	next     int    // the number of the next Secret
	writing  bool
	began    time.Time // the last write
	since    time.Time // when the oldest pending record came
	failed   error
	changed  chan struct{} // closed after each write
}

// Open takes the journal of a restore over, or begins it.
func Open(ctx context.Context, store *Store, now func() time.Time) (*Journal, error) {
	j := &Journal{series: series{store, "journal"}, now: now, changed: make(chan struct{})}
	const most = 20
	for range most {
		numbers, err := j.series.numbers(ctx)
		if err != nil {
			return nil, fmt.Errorf("open the journal: %w", err)
		}
		for i, n := range numbers {
			if n != i+1 {
				return nil, fmt.Errorf("open the journal: %w", j.series.damaged(i+1, errors.New("it is missing")))
			}
		}
		j.last, j.next = len(numbers), len(numbers)+1
		if j.last == 0 {
			return j, nil
		}
		// An empty Secret in the place where an earlier process would write next ends its writing.
		packed, err := pack(nil)
		if err != nil {
			return nil, fmt.Errorf("open the journal: %w", err)
		}
		err = j.series.create(ctx, j.next, packed)
		if errors.Is(err, ErrFenced) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the journal: %w", err)
		}
		j.next++
		return j, nil
	}
	return nil, fmt.Errorf("open the journal of restore %s: %w", store.Owner.Name, ErrFenced)
}

// Replay reads what was there when the journal was opened, one Secret at a time.
func (j *Journal) Replay(ctx context.Context, fn func(restore.Record) error) error {
	for n := 1; n <= j.last; n++ {
		packed, err := j.series.get(ctx, n)
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		plain, err := unpack(packed)
		if err != nil {
			return fmt.Errorf("read the journal: %w", j.series.damaged(n, err))
		}
		line := 0
		for text := range bytes.Lines(plain) {
			line++
			var record restore.Record
			if err := json.Unmarshal(text, &record); err != nil {
				return fmt.Errorf("read the journal: %w", j.series.damaged(n, fmt.Errorf("line %d: %w", line, err)))
			}
			if err := fn(record); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Append adds records.
func (j *Journal) Append(ctx context.Context, records ...restore.Record) error {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	encoder.SetEscapeHTML(false)
	for i := range records {
		if err := encoder.Encode(&records[i]); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	if lines.Len() > maxPlain {
		return fmt.Errorf("write the journal: a record of %d bytes is too large", lines.Len())
	}
	lazy := !slices.ContainsFunc(records, awaited)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	if len(j.pending) == 0 {
		j.since = j.now()
	}
	j.pending = append(j.pending, lines.Bytes()...)
	j.appended += int64(lines.Len())
	if lazy && (len(j.pending) < lazySize || j.writing && len(j.pending) < maxPending) {
		return nil
	}
	return j.storeTo(ctx, j.appended)
}

// awaited says whether a record is one that a resumed restore could not find out by itself.
func awaited(r restore.Record) bool {
	return r.Item == nil || r.Item.Outcome != restore.Created || r.Item.Posted || len(r.Item.Entries) > 0
}

// storeTo returns when everything up to a position is stored. It is called with the lock held, which it gives up meanwhile. Whoever comes
// when nobody writes, writes for all.
func (j *Journal) storeTo(ctx context.Context, position int64) error {
	for j.stored < position && j.failed == nil {
		if !j.writing {
			j.write(ctx)
			continue
		}
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		j.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return j.failed
}

// write stores the oldest pending records in one Secret. It is called with the lock held, which it gives up meanwhile.
func (j *Journal) write(ctx context.Context) {
	j.writing = true
	if wait := spacing - j.now().Sub(j.began); wait > 0 && wait <= spacing && j.stored > 0 {
		j.mu.Unlock()
		time.Sleep(wait) // shorter than any deadline that somebody may wait with
		j.mu.Lock()
	}
	chunk := firstLines(j.pending, chunkSize)
	number := j.next
	j.began = j.now()
	j.mu.Unlock()
	// Others wait for this write too: it does not end with the context of one of them.
	packed, err := pack(chunk)
	if err == nil {
		err = j.series.create(context.WithoutCancel(ctx), number, packed)
	}
	j.mu.Lock()
	j.writing = false
	if err != nil {
		j.failed = fmt.Errorf("write the journal: %w", err)
	} else {
		j.stored += int64(len(chunk))
		j.pending = slices.Delete(j.pending, 0, len(chunk))
		j.since = j.began
		j.next++
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// firstLines cuts whole lines of about so many bytes, at least one.
func firstLines(lines []byte, size int) []byte {
	if len(lines) <= size {
		return slices.Clone(lines)
	}
	end := bytes.LastIndexByte(lines[:size], '\n') + 1
	if end == 0 {
		end = bytes.IndexByte(lines, '\n') + 1
	}
	return slices.Clone(lines[:end])
}

// Run stores, until ctx ends, what nobody waits for and has become old.
func (j *Journal) Run(ctx context.Context) error {
	tick := time.NewTicker(lazyFor / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := j.storeOld(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

func (j *Journal) storeOld(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pending) == 0 || j.now().Sub(j.since) < lazyFor/2 {
		return j.failed
	}
	return j.storeTo(ctx, j.appended)
}

// Failed is the error that ended the writing; ErrFenced where it was another process.
func (j *Journal) Failed() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// Close ends the use of the journal. What was not waited for may not be stored.
func (j *Journal) Close() error { return nil }

// Remove deletes the journal of a restore that has come to its end.
func Remove(ctx context.Context, store *Store) error {
	s := series{store, "journal"}
	members, err := s.members(ctx)
	if err != nil {
		return err
	}
	slices.Reverse(members) // what is left after a kill in between is a journal still
	return s.remove(ctx, members)
}
