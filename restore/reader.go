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
// once, though the plan, the check before the first write and the write itself all look at them.
const cacheBytes = 16 << 20

// reader reads the plan's items from the source, chunk by chunk, and keeps the first of them.
type reader struct {
	source Source

	mu    sync.Mutex
	cache map[int32][]byte
	room  int
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
	if done, err := p.readCached(ctx, items, fn); done || err != nil {
		return err
	}
	wanted := make(map[string]int32, len(items))
	for _, i := range items {
		wanted[archive.Key(p.namespaces[p.items[i].ns], p.items[i].name)] = i
	}
	err := p.reader.source.Read(ctx, int(chunk), func(ref plugins.Ref, raw []byte) error {
		key := archive.Key(ref.Namespace, ref.Name)
		i, ok := wanted[key]
		if !ok {
			return nil
		}
		delete(wanted, key)
		p.reader.keep(i, raw)
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

// readCached serves items that are all in memory.
func (p *Plan) readCached(ctx context.Context, items []int32, fn func(i int32, raw []byte) error) (bool, error) {
	raws := make([][]byte, len(items))
	p.reader.mu.Lock()
	for n, i := range items {
		raw, ok := p.reader.cache[i]
		if !ok {
			p.reader.mu.Unlock()
			return false, nil
		}
		raws[n] = raw
	}
	p.reader.mu.Unlock()
	for n, i := range items {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		if err := fn(i, raws[n]); err != nil {
			return true, err
		}
	}
	return true, nil
}

// keep holds a copy of an object as long as there is room.
func (r *reader) keep(i int32, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
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
	delete(r.cache, i)
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
