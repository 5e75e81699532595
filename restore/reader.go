package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins"
)

// cacheBytes bounds what a reader keeps of objects that it has read. A restore of a namespace fits, so that its chunks are read
// once, though the plan, the check before the first write and the write itself all look at them. While objects are written, what is
// done makes room for what is parked, so that a try does not read and unpack the whole chunk again.
const cacheBytes = 16 << 20

// reader reads the plan's items from the source, chunk by chunk, and keeps some of them.
type reader struct {
	source Source

	mu      sync.Mutex
	cache   map[int32][]byte
	room    int
	writing bool // what is read now is about to be written, and not kept for that
}

func newReader(s Source) *reader {
	return &reader{source: s, cache: map[int32][]byte{}, room: cacheBytes}
}

// read calls fn for each of the items, by chunk, from one goroutine at a time. Raw is valid during the call only. An item that
// its chunk does not hold is an error.
func (p *Plan) read(ctx context.Context, items []int32, fn func(i int32, raw []byte) error) error {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b int32) int { return cmp.Compare(p.items[a].chunk, p.items[b].chunk) })
	for len(sorted) > 0 {
		chunk := p.items[sorted[0]].chunk
		n := 1
		for n < len(sorted) && p.items[sorted[n]].chunk == chunk {
			n++
		}
		if err := p.readChunk(ctx, chunk, sorted[:n], fn); err != nil {
			return err
		}
		sorted = sorted[n:]
	}
	return nil
}

// readChunk calls fn for each of the items, which lie in one chunk.
func (p *Plan) readChunk(ctx context.Context, chunk int32, items []int32, fn func(i int32, raw []byte) error) error {
	if chunk < 0 {
		return p.readMade(items, fn)
	}
	items, err := p.readCached(ctx, items, fn)
	if err != nil || len(items) == 0 {
		return err
	}
	wanted := make(map[string]int32, len(items))
	for _, i := range items {
		wanted[archive.Key(p.namespaces[p.items[i].ns], p.items[i].name)] = i
	}
	err = p.reader.source.Read(ctx, int(chunk), func(ref plugins.Ref, raw []byte) error {
		key := archive.Key(ref.Namespace, ref.Name)
		i, ok := wanted[key]
		if !ok {
			return nil
		}
		delete(wanted, key)
		p.reader.keepRead(i, raw)
		return fn(i, raw)
	})
	if err != nil {
		return err
	}
	for key := range wanted {
		return fmt.Errorf("read chunk %d of %s: it lacks %s, which its index names", chunk, p.Source.Name, key)
	}
	return nil
}

func (p *Plan) readMade(items []int32, fn func(i int32, raw []byte) error) error {
	for _, i := range items {
		raw, err := madeNamespace(p.items[i].name)
		if err != nil {
			return err
		}
		if err := fn(i, raw); err != nil {
			return err
		}
	}
	return nil
}

// readCached serves the items that are in memory, and gives the others.
func (p *Plan) readCached(ctx context.Context, items []int32, fn func(i int32, raw []byte) error) (others []int32, err error) {
	var here []int32
	var raws [][]byte
	p.reader.mu.Lock()
	for _, i := range items {
		if raw, ok := p.reader.cache[i]; ok {
			here, raws = append(here, i), append(raws, raw)
		} else {
			others = append(others, i)
		}
	}
	p.reader.mu.Unlock()
	for n, i := range here {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := fn(i, raws[n]); err != nil {
			return nil, err
		}
	}
	return others, nil
}

// keepRead keeps what was read before the writing begins.
func (r *reader) keepRead(i int32, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.writing {
		r.add(i, raw)
	}
}

// keep holds a copy of an object as long as there is room.
func (r *reader) keep(i int32, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(i, raw)
}

func (r *reader) add(i int32, raw []byte) {
	if _, ok := r.cache[i]; ok || len(raw) > r.room {
		return
	}
	r.cache[i] = slices.Clone(raw)
	r.room -= len(raw)
}

// forget makes room again; what is final is not read any more.
func (r *reader) forget(i int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(i)
}

func (r *reader) drop(i int32) {
	r.room += len(r.cache[i])
	delete(r.cache, i)
}

// write leaves of what is kept only what is to be written.
func (r *reader) write(pending func(i int32) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = true
	for i := range r.cache {
		if !pending(i) {
			r.drop(i)
		}
	}
}

// renumber follows items that moved; -1 means that one is gone.
func (r *reader) renumber(to []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	moved := make(map[int32][]byte, len(r.cache))
	for i, raw := range r.cache {
		if to[i] >= 0 {
			moved[to[i]] = raw
		} else {
			r.room += len(raw)
		}
	}
	r.cache = moved
}
