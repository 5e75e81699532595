package files

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
)

// table maps keys to small values in two unnamed files, whatever their number: slots found by hash, and the values one
// after another. It is for hard links, of which a tree may have millions. Keys are told apart by 128 bits of their SHA-256.
type table struct {
	dir    string
	slots  *os.File
	values *os.File
	cap    int64 // of slots, a power of two
	used   int64
	end    int64 // of values
}

// A slot holds the key's hash, and the value's offset and length; one of zeros is free.
const (
	slotSize   = 32
	firstSlots = 1 << 12
	maxValue   = 64 << 10
)

type slotKey [16]byte

func hashKey(k string) slotKey {
	sum := sha256.Sum256([]byte(k))
	return slotKey(sum[:16])
}

// put adds or replaces a key's value.
func (t *table) put(k string, value []byte) error {
	if len(value) > maxValue {
		return fmt.Errorf("write table: a value has %d bytes, %d is the most", len(value), maxValue)
	}
	if err := t.grow(); err != nil {
		return err
	}
	if _, err := t.values.WriteAt(value, t.end); err != nil {
		return fmt.Errorf("write table: %w (give it a folder with more room)", err)
	}
	var slot [slotSize]byte
	h := hashKey(k)
	copy(slot[:], h[:])
	binary.LittleEndian.PutUint64(slot[16:], uint64(t.end))
	binary.LittleEndian.PutUint64(slot[24:], uint64(len(value))+1)
	t.end += int64(len(value))
	fresh, err := place(t.slots, t.cap, &slot)
	if fresh {
		t.used++
	}
	return err
}

// get reads a key's value.
func (t *table) get(k string) ([]byte, bool, error) {
	if t.slots == nil {
		return nil, false, nil
	}
	h := hashKey(k)
	slot, _, err := find(t.slots, t.cap, h)
	n := binary.LittleEndian.Uint64(slot[24:])
	if err != nil || n == 0 {
		return nil, false, err
	}
	value := make([]byte, n-1)
	if _, err := t.values.ReadAt(value, int64(binary.LittleEndian.Uint64(slot[16:]))); err != nil {
		return nil, false, fmt.Errorf("read table: %w", err)
	}
	return value, true, nil
}

// find gives the slot of h, or the free one where it belongs, and its index.
func find(f *os.File, capacity int64, h slotKey) (slot [slotSize]byte, i int64, err error) {
	for i = int64(binary.LittleEndian.Uint64(h[:]) & uint64(capacity-1)); ; i = (i + 1) & (capacity - 1) {
		if _, err := f.ReadAt(slot[:], i*slotSize); err != nil {
			return slot, 0, fmt.Errorf("read table: %w", err)
		}
		if binary.LittleEndian.Uint64(slot[24:]) == 0 || slotKey(slot[:16]) == h {
			return slot, i, nil
		}
	}
}

// place writes a slot where it belongs, and says whether there was none of the key.
func place(f *os.File, capacity int64, slot *[slotSize]byte) (fresh bool, err error) {
	old, i, err := find(f, capacity, slotKey(slot[:16]))
	if err != nil {
		return false, err
	}
	if _, err := f.WriteAt(slot[:], i*slotSize); err != nil {
		return false, fmt.Errorf("write table: %w (give it a folder with more room)", err)
	}
	return binary.LittleEndian.Uint64(old[24:]) == 0, nil
}

// grow keeps at least half of the slots free.
func (t *table) grow() error {
	if t.slots != nil && t.used*2 < t.cap {
		return nil
	}
	if t.values == nil {
		f, err := unnamedFile(t.dir)
		if err != nil {
			return err
		}
		t.values = f
	}
	capacity := max(firstSlots, t.cap*2)
	slots, err := unnamedFile(t.dir)
	if err != nil {
		return err
	}
	if err := slots.Truncate(capacity * slotSize); err != nil {
		_ = slots.Close()
		return fmt.Errorf("write table: %w", err)
	}
	buf := make([]byte, firstSlots*slotSize)
	for at := int64(0); at < t.cap*slotSize; at += int64(len(buf)) {
		if _, err := t.slots.ReadAt(buf, at); err != nil {
			_ = slots.Close()
			return fmt.Errorf("read table: %w", err)
		}
		for s := buf; len(s) > 0; s = s[slotSize:] {
			slot := [slotSize]byte(s[:slotSize])
			if binary.LittleEndian.Uint64(slot[24:]) == 0 {
				continue
			}
			if _, err := place(slots, capacity, &slot); err != nil {
				_ = slots.Close()
				return err
			}
		}
	}
	if t.slots != nil {
		_ = t.slots.Close()
	}
	t.slots, t.cap = slots, capacity
	return nil
}

func (t *table) close() {
	for _, f := range []*os.File{t.slots, t.values} {
		if f != nil {
			_ = f.Close()
		}
	}
	t.slots, t.values = nil, nil
}

// once is a table in which each key's value is made by one goroutine, while those that ask for the same key wait. Its
// waiters wait for goroutines that run, never for ones that are queued, so there is no deadlock. Safe for concurrent use.
type once struct {
	mu    sync.Mutex
	cond  *sync.Cond
	table table
	busy  map[string]bool // as many as there are workers at most
}

func newOnce(dir string) *once {
	o := &once{table: table{dir: dir}, busy: map[string]bool{}}
	o.cond = sync.NewCond(&o.mu)
	return o
}

// do gives the value of k to use, which says whether it will do, or makes one; what fill gives is kept unless it is nil.
func (o *once) do(k string, use func(value []byte) bool, fill func() ([]byte, error)) error {
	o.mu.Lock()
	for o.busy[k] {
		o.cond.Wait()
	}
	value, ok, err := o.table.get(k)
	if err != nil {
		o.mu.Unlock()
		return err
	}
	o.busy[k] = true
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.busy, k)
		o.mu.Unlock()
		o.cond.Broadcast()
	}()
	if ok && use(value) {
		return nil
	}
	value, err = fill()
	if err != nil || value == nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.table.put(k, value)
}

func (o *once) close() { o.table.close() }
