//go:build unix

package scale

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Counts are requests by what they ask for. The zero value is ready, and safe for concurrent use.
type Counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *Counts) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[what]++
}

// Take gives what was counted, and counts anew.
func (c *Counts) Take() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = nil
	return n
}

// Tally is how often each was asked for.
type Tally map[string]int

// Add adds another tally.
func (t Tally) Add(more Tally) {
	for what, n := range more {
		t[what] += n
	}
}

// Total is how many requests there were.
func (t Tally) Total() int {
	n := 0
	for _, v := range t {
		n += v
	}
	return n
}

// Of is how many requests there were of which the name begins so.
func (t Tally) Of(prefix string) int {
	n := 0
	for what, v := range t {
		if strings.HasPrefix(what, prefix) {
			n += v
		}
	}
	return n
}

// String lists them, the most frequent first.
func (t Tally) String() string {
	names := slices.Sorted(maps.Keys(t))
	slices.SortStableFunc(names, func(a, b string) int { return t[b] - t[a] })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, t[name]))
	}
	return strings.Join(parts, ", ")
}

// auditLog reads what the API server wrote down, from where the last reading ended.
type auditLog struct {
	path   string
	offset int64
}

// event is a line of the log. A watch has two: as it begins, and as it ends.
type event struct {
	Stage, Verb string
	ObjectRef   struct{ Resource, Subresource string }
}

// take counts the requests that were answered, or watches that were begun, since the last call.
func (l *auditLog) take() (Tally, error) {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(l.offset, io.SeekStart); err != nil {
		return nil, err
	}
	tally, lines := Tally{}, bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // a line that is not whole is read the next time
			return tally, nil
		}
		if err != nil {
			return nil, err
		}
		l.offset += int64(len(line))
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if (e.Verb == "watch") != (e.Stage == "ResponseStarted") {
			continue
		}
		what := e.Verb + " " + e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		tally[what]++
	}
}
