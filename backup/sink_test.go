package backup

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/test/testbed"
)

// versions are the oldest and the newest server that Kedge is tested on.
var versions = []string{"1.24.17", "1.36.3"}

// memorySink keeps what a reading gives, by "resource.group/version namespace/name".
type memorySink struct {
	mu       sync.Mutex
	sections map[*memorySection]bool
}

type memorySection struct {
	opts archive.SectionOptions
	mu   sync.Mutex
	last string
	rows map[string]archive.Row
	raw  map[string][]byte
	sink *memorySink
}

func (s *memorySink) section(o archive.SectionOptions) (section, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.sections {
		if other.opts.Group == o.Group && other.opts.Resource == o.Resource && other.opts.Version == o.Version {
			return nil, fmt.Errorf("section %v is open already", o)
		}
	}
	if s.sections == nil {
		s.sections = map[*memorySection]bool{}
	}
	out := &memorySection{opts: o, rows: map[string]archive.Row{}, raw: map[string][]byte{}, sink: s}
	s.sections[out] = true
	return out, nil
}

func (s *memorySink) log(context.Context, slog.Level, string, ...slog.Attr) {}

func (s *memorySection) Add(_ context.Context, row archive.Row, raw []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := row.Key()
	if _, twice := s.rows[key]; twice {
		return archive.ErrDuplicate
	}
	if s.opts.Sorted && key < s.last {
		return archive.ErrOutOfOrder
	}
	s.last = key
	s.rows[key], s.raw[key] = row, slices.Clone(raw)
	return nil
}

func (s *memorySection) Close(context.Context) error { return nil }

func (s *memorySection) Abort() {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	delete(s.sink.sections, s)
}

// items gives everything by "resource.group/version key".
func (s *memorySink) items() map[string][]byte {
	out := map[string][]byte{}
	for sec := range s.sections {
		gr := kube.Resource{Group: sec.opts.Group, Resource: sec.opts.Resource}.GroupResource()
		for key, raw := range sec.raw {
			out[gr+"/"+sec.opts.Version+" "+key] = raw
		}
	}
	return out
}

func (s *memorySink) keys() []string { return slices.Sorted(maps.Keys(s.items())) }

func newClient(t testing.TB, c *testbed.Cluster) *kube.Client {
	t.Helper()
	client, err := kube.New(c.Kedge(t), kube.Options{UserAgent: "kedge-test"})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// readInto runs the engine up to the archive.
func readInto(t testing.TB, client *kube.Client, spec v1alpha1.BackupSpec) (*memorySink, *reading) {
	t.Helper()
	e := &Engine{Kube: client}
	p, err := e.prepare(Request{Name: "test", UID: "test", Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	s := &memorySink{}
	r, err := p.read(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}
