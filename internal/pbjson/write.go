package pbjson

import (
	"encoding/base64"
	"fmt"
	"strconv"
)

// maxDepth bounds messages in messages; the deepest types have about 15.
const maxDepth = 32

// writer writes messages as JSON. It keeps its memory from one to the next and serves one goroutine.
type writer struct {
	spans []span // of the messages that are being written, each above the one that holds it
	depth int
}

// message appends a message's fields, without braces.
func (w *writer) message(dst, msg []byte, t *Type) ([]byte, error) {
	if w.depth++; w.depth > maxDepth {
		return dst, fmt.Errorf("%w: %s: messages are more than %d deep", ErrUnsupported, t.name, maxDepth)
	}
	base := len(w.spans)
	for range t.fields {
		w.spans = append(w.spans, span{})
	}
	err := t.index(msg, w.spans[base:])
	for i := range t.fields {
		if err != nil {
			break
		}
		s := w.spans[base+i] // by value: what is below may move them
		dst, err = w.field(dst, msg, &t.fields[i], s)
	}
	w.spans = w.spans[:base]
	w.depth--
	return dst, err
}

// key appends a field's name, with a comma where something stands before it in the same object.
func key(dst []byte, f *field) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(dst, f.key...)
}

// field appends one field, if it has to stand there.
func (w *writer) field(dst, msg []byte, f *field, s span) ([]byte, error) {
	if f.kind == kindInline {
		return w.message(dst, msg[s.from:s.to], f.msg)
	}
	if !s.there && f.absent() || s.there && f.hollow(s) {
		return dst, nil
	}
	if !s.there && !f.nullable() {
		return dst, fmt.Errorf("%w: there is no %s, which servers that know it always write", ErrUnsupported, f.key)
	}
	dst = key(dst, f)
	switch {
	case !s.there:
		return append(dst, "null"...), nil
	case f.kind == kindMap:
		return w.entries(dst, msg[s.from:s.to], f)
	case f.repeated:
		return w.elements(dst, msg[s.from:s.to], f)
	}
	return w.value(dst, msg[s.from:s.to], f.kind, f, s.value)
}

// nullable says that a message need not have the field.
func (f *field) nullable() bool { return f.pointer || f.repeated || f.kind == kindBytes }

// absent says that a field that the message does not have is left out.
func (f *field) absent() bool {
	switch {
	case f.omitZero:
		return true
	case f.kind == kindMessage || f.kind == kindLeaf: // a struct is never empty (encoding/json)
		return f.omit && (f.pointer || f.repeated)
	}
	return f.omit
}

// hollow says that a field is left out though the message has it: servers write numbers, strings and structs that are empty.
func (f *field) hollow(s span) bool {
	switch {
	case f.omitZero:
		return s.from == s.to
	case !f.omit || f.pointer || f.repeated:
		return false
	}
	switch f.kind {
	case kindString, kindBytes:
		return s.from == s.to
	case kindBool, kindInt:
		return s.value == 0
	case kindMessage, kindInline, kindLeaf, kindMap:
	}
	return false
}

// value appends one value.
func (w *writer) value(dst, b []byte, k kind, f *field, number uint64) ([]byte, error) {
	switch k {
	case kindString:
		return appendString(dst, b)
	case kindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"'), nil
	case kindBool:
		return strconv.AppendBool(dst, number != 0), nil
	case kindInt:
		return strconv.AppendInt(dst, int64(number), 10), nil
	case kindLeaf:
		return f.leaf(dst, b)
	case kindMessage:
		dst, err := w.message(append(dst, '{'), b, f.msg)
		return append(dst, '}'), err
	case kindInline, kindMap:
	}
	return dst, fmt.Errorf("%w: a value of kind %d", ErrUnsupported, k)
}

// elements appends a repeated field; b has each element with its tag.
func (w *writer) elements(dst, b []byte, f *field) ([]byte, error) {
	dst = append(dst, '[')
	for i := 0; i < len(b); {
		_, _, end, err := tag(b, i)
		if err != nil {
			return dst, err
		}
		from, to, number := end, 0, uint64(0)
		if f.wire() == wireVarint {
			number, to = varint(b, end)
		} else if from, to, err = chunk(b, end); err != nil {
			return dst, err
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = w.value(dst, b[from:to], f.kind, f, number); err != nil {
			return dst, err
		}
		i = to
	}
	return append(dst, ']'), nil
}

// entries appends a map; b has each entry, a message of a key (1) and a value (2), with its tag. Servers write them by their keys.
func (w *writer) entries(dst, b []byte, f *field) ([]byte, error) {
	dst = append(dst, '{')
	var last []byte
	for i := 0; i < len(b); {
		_, _, end, err := tag(b, i)
		if err != nil {
			return dst, err
		}
		from, to, err := chunk(b, end)
		if err != nil {
			return dst, err
		}
		name, value, err := entry(b[from:to])
		if err != nil {
			return dst, err
		}
		if i > 0 {
			if string(last) >= string(name) {
				return dst, fmt.Errorf("%w: the keys of a map are not in order", ErrUnsupported)
			}
			dst = append(dst, ',')
		}
		last = name
		if dst, err = appendString(dst, name); err != nil {
			return dst, err
		}
		if dst, err = w.value(append(dst, ':'), value, f.value, f, 0); err != nil {
			return dst, err
		}
		i = to
	}
	return append(dst, '}'), nil
}

// entry takes a map's entry apart; both of its fields are length-delimited.
func entry(b []byte) (name, value []byte, err error) {
	var seen [3]bool
	for i := 0; i < len(b); {
		num, wire, end, err := tag(b, i)
		if err != nil {
			return nil, nil, err
		}
		if num > 2 || wire != wireBytes || seen[num] {
			return nil, nil, fmt.Errorf("%w: a map's entry has field %d of wire type %d", ErrUnsupported, num, wire)
		}
		seen[num] = true
		from, to, err := chunk(b, end)
		if err != nil {
			return nil, nil, err
		}
		if num == 1 {
			name = b[from:to]
		} else {
			value = b[from:to]
		}
		i = to
	}
	return name, value, nil
}
