package backup

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"

	"kedge.dev/kedge/backup/archive"
)

// sink is where the objects go: an archive, or a count.
type sink interface {
	// section opens one for a resource in a version. It may be opened again after its abort.
	section(o archive.SectionOptions) (section, error)
	log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr)
}

// section takes the objects of one resource; one goroutine at a time.
type section interface {
	Add(ctx context.Context, row archive.Row, raw []byte) error
	Close(ctx context.Context) error
	Abort()
}

// writerSink writes to an archive. Sections are aborted by those who opened them.
type writerSink struct{ w *archive.Writer }

func (s *writerSink) section(o archive.SectionOptions) (section, error) { return s.w.Section(o) }
func (s *writerSink) log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	s.w.Log(ctx, level, msg, attrs...)
}

// countingSink counts.
type countingSink struct {
	mu     sync.Mutex
	counts []*counter
}

type counter struct {
	ResourceCount
	aborted bool
}

func (s *countingSink) section(o archive.SectionOptions) (section, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &counter{ResourceCount: ResourceCount{Group: o.Group, Version: o.Version, Resource: o.Resource}}
	s.counts = append(s.counts, c)
	return c, nil
}

func (s *countingSink) log(context.Context, slog.Level, string, ...slog.Attr) {}

func (s *countingSink) sorted() []ResourceCount {
	out := []ResourceCount{}
	for _, c := range s.counts {
		if c.Items > 0 && !c.aborted {
			out = append(out, c.ResourceCount)
		}
	}
	slices.SortFunc(out, func(a, b ResourceCount) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Version, b.Version))
	})
	return out
}

func (c *counter) Add(_ context.Context, _ archive.Row, raw []byte) error {
	c.Items++
	c.Bytes += int64(len(raw))
	return nil
}

func (c *counter) Close(context.Context) error { return nil }
func (c *counter) Abort()                      { c.aborted = true }
