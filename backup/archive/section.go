package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"kedge.dev/kedge/plugins"
)

// SectionOptions says what a section holds.
type SectionOptions struct {
	Group    string
	Version  string
	Resource string
	// Sorted promises that items are added in the order of their keys. Without it they are spooled and sorted at Close.
	Sorted bool
}

// Section takes the items of one resource in one version. One goroutine at a time may use it; different sections may be
// filled at once.
type Section struct {
	w    *Writer
	opts SectionOptions

	pending   *pending
	seq       int
	last, key []byte
	path      []byte
	namespace string // of the last item
	count     int
	size      int64
	closed    bool

	spooled []spooledItem // unsorted only
	scratch []byte

	packed []packedAt // guarded by w.mu
}

// pending is a frame that is being filled.
type pending struct {
	items []byte
	rows  []byte
	frame Frame
}

// grow makes room for n more bytes, in few steps and never far beyond a frame's size: these buffers are most of the
// writer's memory.
func grow(b []byte, n int) []byte {
	need := len(b) + n
	if need <= cap(b) {
		return b
	}
	for _, size := range []int{32 << 10, 128 << 10, 512 << 10, frameTarget + 4*tarBlock} {
		if need <= size {
			need = size
			break
		}
	}
	return append(make([]byte, 0, need), b...)
}

// spooledItem is an item of an unsorted section: its row's line and its JSON, one after the other in the spool.
type spooledItem struct {
	key  string
	row  int
	blob blob
}

// Add takes one object. The section sets the row's group, version and resource, its size and its hash; the caller sets
// the rest. raw is copied. It blocks while all compressors are busy.
//
// The error wraps ErrOutOfOrder or ErrDuplicate where a sorted section gets a key that is not above the last one,
// ErrTooLarge above MaxItem, and ErrInvalid for a name that no path can be made of; the section is as before then.
func (s *Section) Add(ctx context.Context, row Row, raw []byte) error {
	row.Group, row.Version, row.Resource = s.opts.Group, s.opts.Version, s.opts.Resource
	switch {
	case s.closed:
		return fmt.Errorf("archive %s: %w: the section is closed", row.Ref, ErrInvalid)
	case !validItem(row.Ref):
		return fmt.Errorf("archive %s: %w: the name cannot be archived", row.Ref, ErrInvalid)
	case len(raw) > MaxItem:
		return fmt.Errorf("archive %s: %d bytes: %w", row.Ref, len(raw), ErrTooLarge)
	case s.count > 0 && (row.Namespace == "") != (s.namespace == ""):
		return fmt.Errorf("archive %s: %w: a resource is either namespaced or not", row.Ref, ErrInvalid)
	}
	sum := sha256.Sum256(raw)
	var digest [2 * sha256.Size]byte
	hex.Encode(digest[:], sum[:])
	row.SHA256, row.Size = string(digest[:]), int64(len(raw))
	var err error
	if s.opts.Sorted {
		err = s.place(ctx, &row, raw)
	} else {
		err = s.keep(&row, raw)
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", row.Ref, err)
	}
	s.count++
	s.size += row.Size
	s.w.items.Add(1)
	s.w.bytes.Add(row.Size)
	return nil
}

// keep spools an item until Close.
func (s *Section) keep(row *Row, raw []byte) error {
	s.scratch = appendRow(s.scratch[:0], row)
	line := len(s.scratch)
	s.scratch = append(s.scratch, raw...)
	var b blob
	var err error
	if b, s.scratch, err = s.w.spool.put(s.scratch); err != nil {
		return err
	}
	s.namespace = row.Namespace
	s.spooled = append(s.spooled, spooledItem{key: row.Key(), row: line, blob: b})
	return nil
}

// place appends an item to the frame that is being filled.
func (s *Section) place(ctx context.Context, row *Row, raw []byte) error {
	s.key = appendKey(s.key[:0], row.Namespace, row.Name)
	if s.seq > 0 || s.pending != nil {
		switch bytes.Compare(s.key, s.last) {
		case 0:
			return ErrDuplicate
		case -1:
			return fmt.Errorf("after %q: %w", s.last, ErrOutOfOrder)
		}
	}
	if s.pending != nil && s.mustCut(row.Namespace, len(raw)) {
		if err := s.cut(ctx); err != nil {
			return err
		}
	}
	if s.pending == nil {
		s.pending = s.w.acquire()
		s.pending.frame = Frame{Group: row.Group, Version: row.Version, Resource: row.Resource, First: string(s.key)}
	}
	p := s.pending
	s.path = appendPath(s.path[:0], &row.Ref)
	items, err := appendItem(grow(p.items, len(raw)+4*tarBlock), s.path, raw)
	if err != nil {
		return err
	}
	p.items = items
	p.rows = appendRow(grow(p.rows, 4<<10), row)
	p.frame.Items++
	p.frame.Bytes += row.Size
	if row.Namespace != "" && (p.frame.Namespaces == 0 || row.Namespace != s.namespace) {
		p.frame.Namespaces++
	}
	s.namespace = row.Namespace
	s.last, s.key = s.key, s.last
	return nil
}

func (s *Section) mustCut(namespace string, next int) bool {
	have, rows := len(s.pending.items), s.pending.frame.Items
	if have+next+2*tarBlock > frameTarget || rows >= frameRows {
		return true
	}
	return namespace != s.namespace && (have >= frameSoft || rows >= frameRowsSoft)
}

// cut hands the frame that was filled to the compressors.
func (s *Section) cut(ctx context.Context) error {
	p := s.pending
	p.frame.Last = string(s.last)
	if p.frame.Namespaces == 1 {
		p.frame.Namespace = s.namespace
	}
	select {
	case s.w.jobs <- job{section: s, seq: s.seq, pending: p}:
	case <-s.w.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	s.pending = nil
	s.seq++
	return nil
}

// Close ends the section. What an unsorted one was given is sorted and compressed now; the error wraps ErrDuplicate
// where it was given a key twice.
func (s *Section) Close(ctx context.Context) error {
	if s.closed {
		return nil
	}
	if err := s.sort(ctx); err != nil {
		return fmt.Errorf("archive %s: %w", s.name(), err)
	}
	if s.pending != nil {
		if err := s.cut(ctx); err != nil {
			return fmt.Errorf("archive %s: %w", s.name(), err)
		}
	}
	s.closed = true
	return nil
}

func (s *Section) sort(ctx context.Context) error {
	slices.SortFunc(s.spooled, func(a, b spooledItem) int { return cmp.Compare(a.key, b.key) })
	var buf []byte
	for _, item := range s.spooled {
		data, err := s.w.spool.get(item.blob, buf)
		if err != nil {
			return err
		}
		buf = data[:0]
		row, err := parseRow(data[:item.row-1], true)
		if err != nil {
			return err
		}
		if err := s.place(ctx, &row, data[item.row:]); err != nil {
			return fmt.Errorf("%s: %w", row.Ref, err)
		}
	}
	s.spooled = nil
	return nil
}

// Abort drops the section and what it holds, closed or not; the same resource and version may then be registered anew.
func (s *Section) Abort() {
	s.closed = true
	s.spooled = nil
	if s.pending != nil {
		s.w.release(s.pending)
		s.pending = nil
	}
	s.w.drop(s)
}

func (o SectionOptions) id() sectionID { return sectionID{o.Group, o.Resource, o.Version} }

func (s *Section) name() string {
	return plugins.Ref{Group: s.opts.Group, Resource: s.opts.Resource}.GroupResource() + " " + s.opts.Version
}
