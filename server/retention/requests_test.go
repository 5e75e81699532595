package retention_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/retention"
)

// counting counts what is asked of a store: lists by their prefix, reads by the name of the file.
type counting struct {
	plugins.ObjectStore
	mu    sync.Mutex
	lists map[string]int
	reads int
}

func (c *counting) List(ctx context.Context, prefix string, fn func(plugins.ObjectInfo) error) error {
	c.mu.Lock()
	c.lists[prefix]++
	c.mu.Unlock()
	return c.ObjectStore.List(ctx, prefix, fn)
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
	return c.ObjectStore.Get(ctx, key, offset, length)
}

// TestRequests has a pass over many backups of many schedules, all old enough to be swept, and what a crash left of one: the location is
// listed once, for all schedules, and each record is read once. Beside that only what is removed is looked at.
func TestRequests(t *testing.T) {
	const schedules, each = 10, 4
	past := now.AddDate(0, 0, -30)
	store := newBucket(func() time.Time { return past })
	l := create(t, store)
	policies := map[string]retention.Policy{}
	for s := range schedules {
		name := fmt.Sprintf("s%d", s)
		policies[name] = retention.Policy{Rules: v1alpha1.RetentionPolicy{KeepLast: each}}
		for n := range each {
			write(t, l, with(at(t, fmt.Sprintf("%s-%d", name, n), past.AddDate(0, 0, n-each).Format(time.RFC3339)), func(b *retention.Backup) { b.Schedule = name }), time.Time{})
		}
	}
	store.orphan("s0-0", "s0-0")
	counts := &counting{ObjectStore: store, lists: map[string]int{}}
	var removed []string
	run := func() retention.Result {
		t.Helper()
		p := pass(open(t, counts), &removed)
		p.Prepare = func(context.Context, []archive.Entry) (retention.Input, error) {
			return retention.Input{Cluster: ours, Policies: policies}, nil
		}
		counts.reads, counts.lists = 0, map[string]int{}
		res, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := run(); res.Kept != schedules*each || len(res.Swept) != 1 || len(removed) > 0 {
		t.Errorf("%+v, removed %v", res, removed)
	}
	// Of the attempt that is swept the record is read again, and the folder is listed.
	want := map[string]int{"backups/": 1, "tombstones/": 1, "backups/s0-0/s0-0/0123456789abcdef/": 1}
	if d := cmp.Diff(want, counts.lists); d != "" || counts.reads != schedules*each+1 {
		t.Errorf("%d reads; lists (-want +got):\n%s", counts.reads, d)
	}
	run()
	want = map[string]int{"backups/": 1, "tombstones/": 1}
	if d := cmp.Diff(want, counts.lists); d != "" || counts.reads != schedules*each {
		t.Errorf("with nothing to do: %d reads; lists (-want +got):\n%s", counts.reads, d)
	}
}
