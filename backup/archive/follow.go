package archive

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Follow is Inventory that reads records while it still lists: those of the backups that wanted says yes to, several at a time. It calls fn with each from
// one goroutine, in the order of the listing. Whether a deletion has begun, an Entry says of the time before the first was read, which is before the
// listing's end: the Inventory knows later. What fn returns ends the listing.
func (l *Location) Follow(ctx context.Context, wanted func(Listed) bool, fn func(Listed, Entry) error) (*Inventory, error) {
	var (
		inventory *Inventory
		unread    = newQueue[found]()
	)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer unread.close()
		var err error
		inventory, err = l.inventory(ctx, func(f found) {
			if wanted(Listed{f}) {
				unread.add(f)
			}
		})
		return err
	})
	group.Go(func() error { return l.readQueued(ctx, unread, fn) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return inventory, nil
}

// readQueued reads what is listed until the listing has ended.
func (l *Location) readQueued(ctx context.Context, unread *queue[found], fn func(Listed, Entry) error) error {
	var deleting []string
	for first := true; ; first = false {
		batch := unread.take()
		if len(batch) == 0 {
			return nil
		}
		if first {
			var err error
			if deleting, err = l.tombstones(ctx); err != nil {
				return fmt.Errorf("list the deletions of %s: %w", l.store, err)
			}
		}
		mark(batch, deleting)
		err := inOrder(ctx, len(batch), listConcurrency,
			func(ctx context.Context, i int) (Entry, error) { return l.readEntry(ctx, batch[i]) },
			func(i int, e Entry) error { return fn(Listed{batch[i]}, e) })
		if err != nil {
			return err
		}
	}
}

// queue holds as much as is put in: a listing does not wait for whoever reads what it lists.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	ended bool
	more  *sync.Cond
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{}
	q.more = sync.NewCond(&q.mu)
	return q
}

func (q *queue[T]) add(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, item)
	q.more.Signal()
}

func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.more.Signal()
}

// take waits for something, and gives all that is there; nothing once the queue is closed and empty.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.ended {
		q.more.Wait()
	}
	items := slices.Clone(q.items)
	q.items = q.items[:0]
	return items
}
