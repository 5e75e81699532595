package files

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// folderStream is what kopia's directory objects call themselves.
const folderStream = "kopia:directory"

// entryReader reads the entries of a folder's object as they lie there, one after another, and holds one of them. It
// takes what kopia writes: one JSON object with a stream, entries and a summary.
type entryReader struct {
	in      *bufio.Reader
	closer  io.Closer
	buf     []byte
	state   readState
	started bool // an entry was read
	last    key
	stream  string
	summary []byte // raw, after the last entry
}

type readState byte

const (
	beforeEntries readState = iota
	inEntries
	afterEntries
	atEnd
)

// openEntries opens a folder's object.
func openEntries(ctx context.Context, rep repo.Repository, id object.ID) (*entryReader, error) {
	obj, err := rep.OpenObject(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", id, err)
	}
	if n := obj.Length(); n <= maxSmall {
		defer func() { _ = obj.Close() }()
		all := make([]byte, n)
		if _, err := io.ReadFull(obj, all); err != nil {
			return nil, fmt.Errorf("read folder %s: %w", id, err)
		}
		return newEntryReader(bytes.NewReader(all)), nil
	}
	r := newEntryReader(obj)
	r.closer = obj
	return r, nil
}

func newEntryReader(in io.Reader) *entryReader {
	return &entryReader{in: bufio.NewReaderSize(in, 16<<10)}
}

func (r *entryReader) close() {
	if r != nil && r.closer != nil {
		_ = r.closer.Close()
		r.closer = nil
	}
}

// next gives the JSON of the next entry and its place, and io.EOF after the last one. The slice is valid until the next
// call. Entries arrive in strictly ascending order, or the error wraps ErrDamaged.
func (r *entryReader) next() ([]byte, key, error) {
	for {
		switch r.state {
		case atEnd:
			return nil, key{}, io.EOF
		case beforeEntries, afterEntries:
			if err := r.member(); err != nil {
				return nil, key{}, fmt.Errorf("read folder: %w", err)
			}
		case inEntries:
			raw, k, err := r.entry()
			if err != nil {
				return nil, key{}, fmt.Errorf("read folder: %w", err)
			}
			if raw != nil {
				return raw, k, nil
			}
		}
	}
}

// entry reads one entry, or the end of them.
func (r *entryReader) entry() ([]byte, key, error) {
	c, err := r.token()
	if err != nil {
		return nil, key{}, err
	}
	switch {
	case c == ']':
		r.state = afterEntries
		return nil, key{}, nil
	case c == ',' && r.started:
		if c, err = r.token(); err != nil {
			return nil, key{}, err
		}
	case r.started:
		return nil, key{}, damaged("entries are not separated")
	}
	if err := r.value(c); err != nil {
		return nil, key{}, err
	}
	k, err := rawKey(r.buf)
	if err != nil {
		return nil, key{}, err
	}
	if r.started && k.compare(r.last) <= 0 {
		return nil, key{}, damaged("entries are out of order")
	}
	r.started, r.last = true, k
	return r.buf, k, nil
}

// member reads one member of the folder's object; of entries, only the beginning.
func (r *entryReader) member() error {
	c, err := r.token()
	if err != nil {
		return err
	}
	if r.state == afterEntries && c == '}' {
		r.state = atEnd
		if r.stream != folderStream {
			return damaged("it is no folder")
		}
		return nil
	}
	name, c, err := r.name(c)
	if err != nil {
		return err
	}
	if name == `"entries"` && c == '[' && r.state == beforeEntries {
		r.state = inEntries
		return nil
	}
	if err := r.value(c); err != nil {
		return err
	}
	switch name {
	case `"stream"`:
		if err := json.Unmarshal(r.buf, &r.stream); err != nil {
			return damaged("it is no folder")
		}
	case `"summary"`:
		r.summary = bytes.Clone(r.buf)
	case `"entries"`:
		if string(r.buf) != "null" || r.state != beforeEntries {
			return damaged("its entries are none")
		}
		r.state = afterEntries
	}
	return nil
}

// name reads the name of a member, which begins at or after c, and the first byte of its value.
func (r *entryReader) name(c byte) (name string, first byte, err error) {
	if c == ',' || c == '{' {
		if c, err = r.token(); err != nil {
			return "", 0, err
		}
	}
	if c != '"' {
		return "", 0, damaged("a member has no name")
	}
	if err := r.value(c); err != nil {
		return "", 0, err
	}
	name = string(r.buf)
	if c, err = r.token(); err != nil || c != ':' {
		return "", 0, errors.Join(damaged("a member has no value"), err)
	}
	first, err = r.token()
	return name, first, err
}

// token gives the next byte that is no white space.
func (r *entryReader) token() (byte, error) {
	for {
		c, err := r.in.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return 0, damaged("it ends too early")
			}
			return 0, err
		}
		if c > ' ' {
			return c, nil
		}
	}
}

// value reads the value that begins with c into buf, by its brackets and quotes; whether it is JSON shows when it is decoded.
func (r *entryReader) value(c byte) error {
	r.buf = append(r.buf[:0], c)
	depth, quoted := 0, c == '"'
	if c == '{' || c == '[' {
		depth = 1
	}
	for quoted || depth > 0 || !isDelimited(c) {
		var err error
		if c, err = r.byteOfValue(); err != nil {
			return err
		}
		switch {
		case quoted && c == '\\':
			r.buf = append(r.buf, c)
			if c, err = r.byteOfValue(); err != nil {
				return err
			}
			r.buf = append(r.buf, c)
			continue
		case quoted:
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']' || c == ',':
			if depth == 0 { // the end of a number or a word belongs to what is around it
				return r.in.UnreadByte()
			}
			if c != ',' {
				depth--
			}
		}
		r.buf = append(r.buf, c)
	}
	return nil
}

// byteOfValue gives the next byte of a value that is not too large yet.
func (r *entryReader) byteOfValue() (byte, error) {
	c, err := r.in.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		return 0, damaged("it ends too early")
	case err != nil:
		return 0, err
	case len(r.buf) >= maxEntry:
		return 0, damaged("an entry is too large")
	}
	return c, nil
}

// isDelimited says that a value which is complete ends with this byte itself.
func isDelimited(c byte) bool { return c == '"' || c == '}' || c == ']' }

func damaged(what string) error { return fmt.Errorf("%w: %s", ErrDamaged, what) }

// node is one entry of a folder, with what the sidecar says of it. Entry is nil for special files, rec where the
// sidecar says nothing.
type node struct {
	key   key
	entry *snapshot.DirEntry
	rec   *record
}

// folderReader joins the entries of a folder with its sidecar.
type folderReader struct {
	self    *record // of the folder itself; nil if there is none
	entries *entryReader
	sidecar *sidecarReader
	object  io.Closer // the sidecar's

	entry *snapshot.DirEntry // the next of each; nil at the end
	rec   *record
}

// openFolder opens a folder of a snapshot.
func openFolder(ctx context.Context, rep repo.Repository, id object.ID) (_ *folderReader, err error) {
	r := &folderReader{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	side, err := findSidecar(ctx, rep, id)
	if err != nil {
		return nil, err
	}
	if side != nil {
		obj, err := rep.OpenObject(ctx, side.ObjectID)
		if err != nil {
			return nil, fmt.Errorf("open sidecar %s: %w", side.ObjectID, err)
		}
		r.object = obj
		if r.sidecar, err = newSidecarReader(obj); err != nil {
			return nil, err
		}
	}
	if r.entries, err = openEntries(ctx, rep, id); err != nil {
		return nil, err
	}
	if err := r.nextEntry(); err != nil {
		return nil, err
	}
	if err := r.nextRecord(); err != nil {
		return nil, err
	}
	if r.rec != nil && r.rec.Name == "." {
		r.self = r.rec
		err = r.nextRecord()
	}
	return r, err
}

// findSidecar looks for a folder's sidecar, which stands between its files.
func findSidecar(ctx context.Context, rep repo.Repository, id object.ID) (*snapshot.DirEntry, error) {
	r, err := openEntries(ctx, rep, id)
	if err != nil {
		return nil, err
	}
	defer r.close()
	want := key{classOther, sidecarName}
	for {
		raw, k, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case k == want:
			return parseEntry(raw)
		case k.compare(want) > 0:
			return nil, nil
		}
	}
}

func (r *folderReader) close() {
	r.entries.close()
	if r.object != nil {
		_ = r.object.Close()
	}
}

func (r *folderReader) nextEntry() error {
	for {
		raw, k, err := r.entries.next()
		if errors.Is(err, io.EOF) {
			r.entry = nil
			return nil
		}
		if err != nil {
			return err
		}
		if k == (key{classOther, sidecarName}) {
			continue
		}
		r.entry, err = parseEntry(raw)
		return err
	}
}

func (r *folderReader) nextRecord() (err error) {
	r.rec = nil
	if r.sidecar == nil {
		return nil
	}
	r.rec, err = r.sidecar.next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// next gives the next entry, and io.EOF after the last one. Errors that wrap ErrDamaged are for the whole rest of the folder.
func (r *folderReader) next() (node, error) {
	var n node
	side := 0 // below zero: the entry comes first; above: the record
	switch {
	case r.entry == nil && r.rec == nil:
		return n, io.EOF
	case r.rec == nil:
		side = -1
	case r.entry == nil:
		side = 1
	default:
		side = entryKey(r.entry).compare(r.rec.key())
	}
	if side >= 0 {
		n.rec, n.key = r.rec, r.rec.key()
		if (side == 0) == (n.rec.Special != nil) {
			return n, damaged(fmt.Sprintf("the sidecar's record of %q belongs to no entry", n.rec.Name))
		}
		if err := r.nextRecord(); err != nil {
			return n, err
		}
	}
	if side <= 0 {
		n.entry, n.key = r.entry, entryKey(r.entry)
		if err := r.nextEntry(); err != nil {
			return n, err
		}
	}
	return n, nil
}

func entryKey(e *snapshot.DirEntry) key {
	return makeKey(e.Name, e.Type == snapshot.EntryTypeDirectory)
}

// name is the entry's name in a file system, checked.
func (n *node) name() (string, error) {
	if n.rec != nil {
		return realName(n.key.name, n.rec.Raw)
	}
	return realName(n.key.name, nil)
}
