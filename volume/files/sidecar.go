package files

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// sidecarVersion is written to each sidecar's first line. A reader refuses a higher one.
const sidecarVersion = 1

// Types of special files in a record.
const (
	typeFIFO  = "fifo"
	typeChar  = "char"
	typeBlock = "block"
)

// ErrDamaged means that a snapshot holds what no copy would have written.
var ErrDamaged = errors.New("the copy is damaged")

// sidecarHead is a sidecar's first line.
type sidecarHead struct {
	Version int `json:"kedgeSidecar"`
}

// record is a line of a sidecar: what kopia's entry of the same folder cannot hold.
type record struct {
	// Name is the entry's stored name; "." is the folder itself.
	Name string `json:"n"`
	// Dir is set for folders; the order of the lines needs it.
	Dir bool `json:"d,omitempty"`
	// Raw is the real name, where the stored one is another.
	Raw []byte `json:"raw,omitempty"`
	// Attrs are extended attributes, POSIX ACLs among them, in the order of their names.
	Attrs []attr `json:"x,omitempty"`
	// Link names the file of which this entry is one of several names: entries of one copy with the same Link are hard links.
	Link string `json:"l,omitempty"`
	// Sparse is set for files that had holes.
	Sparse bool `json:"sparse,omitempty"`
	// Time is the modification time where kopia's 64 bits of nanoseconds cannot hold it.
	Time *stamp `json:"mt,omitempty"`
	// Special is a file that kopia's entries cannot hold at all; there is none of the same name.
	Special *special `json:"s,omitempty"`
}

// attr is one extended attribute.
type attr struct {
	Name  string `json:"k,omitempty"`
	Raw   []byte `json:"kb,omitempty"` // the name, where it is not UTF-8
	Value []byte `json:"v"`
}

func (a *attr) name() string {
	if len(a.Raw) > 0 {
		return string(a.Raw)
	}
	return a.Name
}

// stamp is a moment: seconds since 1970 in UTC, and nanoseconds, 0 to 999,999,999.
type stamp struct {
	Sec  int64 `json:"s"`
	Nsec int64 `json:"n,omitempty"`
}

// special describes a FIFO or a device.
type special struct {
	Type  string `json:"t"`
	Mode  uint32 `json:"m"` // the twelve bits of chmod(2)
	UID   uint32 `json:"u,omitempty"`
	GID   uint32 `json:"g,omitempty"`
	Time  stamp  `json:"mt"`
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
}

// empty says that kopia's entry holds all there is.
func (r *record) empty() bool {
	return len(r.Raw) == 0 && len(r.Attrs) == 0 && r.Link == "" && !r.Sparse && r.Time == nil && r.Special == nil
}

// key is an entry's place in a folder: the folder itself, then folders, then all others, each by stored name.
type key struct {
	class byte
	name  string
}

const (
	classSelf byte = iota
	classDir
	classOther
)

func (k key) compare(o key) int {
	switch {
	case k.class != o.class:
		return int(k.class) - int(o.class)
	case k.name < o.name:
		return -1
	case k.name > o.name:
		return 1
	}
	return 0
}

func (r *record) key() key {
	switch {
	case r.Name == ".":
		return key{classSelf, "."}
	case r.Dir:
		return key{classDir, r.Name}
	}
	return key{classOther, r.Name}
}

// check refuses what no copy writes.
func (r *record) check() error {
	if r.Name != "." {
		if _, err := realName(r.Name, r.Raw); err != nil {
			return err
		}
	}
	size := 0
	for i := range r.Attrs {
		name := r.Attrs[i].name()
		if name == "" || len(name) > maxName || bytes.IndexByte([]byte(name), 0) >= 0 || len(r.Attrs[i].Value) > maxAttr {
			return errors.New("an extended attribute that Linux does not take")
		}
		size += len(name) + len(r.Attrs[i].Value)
	}
	if size > maxAttrs {
		return fmt.Errorf("more than %d bytes of extended attributes", maxAttrs)
	}
	if r.Time != nil && (r.Time.Nsec < 0 || r.Time.Nsec >= 1e9) {
		return errors.New("a time that is none")
	}
	if s := r.Special; s != nil {
		if s.Type != typeFIFO && s.Type != typeChar && s.Type != typeBlock {
			return fmt.Errorf("a special file of type %q", s.Type)
		}
		if s.Time.Nsec < 0 || s.Time.Nsec >= 1e9 {
			return errors.New("a time that is none")
		}
		if r.Dir || r.Name == "." {
			return errors.New("a special file that is something else too")
		}
	}
	return nil
}

// appendRecord appends a record's line.
func appendRecord(dst []byte, r *record) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return dst, fmt.Errorf("encode sidecar record: %w", err)
	}
	return append(append(dst, line...), '\n'), nil
}

// sidecarReader reads a sidecar's records one after another. It holds one line, and refuses longer ones than maxRecord.
type sidecarReader struct {
	in   *bufio.Reader
	line []byte
	last key
	n    int
}

// newSidecarReader reads the first line. The error wraps ErrDamaged where the bytes are no sidecar.
func newSidecarReader(in io.Reader) (*sidecarReader, error) {
	r := &sidecarReader{in: bufio.NewReaderSize(in, 32<<10)}
	line, err := r.read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: empty", ErrDamaged)
		}
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	var head sidecarHead
	if err := json.Unmarshal(line, &head); err != nil || head.Version < 1 {
		return nil, fmt.Errorf("read sidecar: %w: its first line is not a sidecar's", ErrDamaged)
	}
	if head.Version > sidecarVersion {
		return nil, fmt.Errorf("read sidecar: version %d is newer than this program knows (%d): upgrade kedge", head.Version, sidecarVersion)
	}
	return r, nil
}

// next gives the next record, and io.EOF after the last one. Records arrive in strictly ascending order, or the error
// wraps ErrDamaged.
func (r *sidecarReader) next() (*record, error) {
	line, err := r.read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	r.n++
	rec := new(record)
	if err := json.Unmarshal(line, rec); err != nil {
		return nil, fmt.Errorf("read sidecar: %w: record %d is not JSON of a record", ErrDamaged, r.n)
	}
	if err := rec.check(); err != nil {
		return nil, fmt.Errorf("read sidecar: %w: record %d: %w", ErrDamaged, r.n, err)
	}
	k := rec.key()
	if r.n > 1 && k.compare(r.last) <= 0 {
		return nil, fmt.Errorf("read sidecar: %w: record %d is out of order", ErrDamaged, r.n)
	}
	r.last = k
	return rec, nil
}

// read gives the next line without its end; the slice is valid until the next call.
func (r *sidecarReader) read() ([]byte, error) {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		if len(r.line)+len(part) > maxRecord {
			return nil, fmt.Errorf("%w: a line is longer than %d bytes", ErrDamaged, maxRecord)
		}
		switch {
		case err == nil:
			r.line = append(r.line, part...)
			return r.line[:len(r.line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			r.line = append(r.line, part...)
		case errors.Is(err, io.EOF) && len(r.line)+len(part) > 0:
			return nil, fmt.Errorf("%w: the last line has no end", ErrDamaged)
		default:
			return nil, err
		}
	}
}
