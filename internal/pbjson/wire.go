package pbjson

import "fmt"

// The wire types.
const (
	wireVarint = 0
	wireBytes  = 2
)

// varint reads one number at i and gives where it ends; 0 where there is none.
func varint(b []byte, i int) (v uint64, end int) {
	for shift := 0; i < len(b) && shift < 64; shift += 7 {
		c := b[i]
		i++
		if shift == 63 && c > 1 {
			return 0, 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, 0
}

// tag reads the number and wire type of a field.
func tag(b []byte, i int) (num int32, wire int, end int, err error) {
	v, end := varint(b, i)
	if end == 0 || v>>3 == 0 || v>>3 > 1<<29-1 {
		return 0, 0, 0, fmt.Errorf("%w: no field begins at byte %d", ErrUnsupported, i)
	}
	return int32(v >> 3), int(v & 7), end, nil
}

// chunk reads a length and gives where the bytes behind it begin and end.
func chunk(b []byte, i int) (from, to int, err error) {
	n, from := varint(b, i)
	if from == 0 || n > uint64(len(b)-from) {
		return 0, 0, fmt.Errorf("%w: the length at byte %d goes beyond the end", ErrUnsupported, i)
	}
	return from, from + int(n), nil
}

// span is where a field stands in its message.
type span struct {
	from, to int32 // the value; of a repeated field all of its elements with their tags
	there    bool
	value    uint64 // of a varint
}

// wire is the wire type of the field's elements.
func (f *field) wire() int {
	if f.kind == kindBool || f.kind == kindInt {
		return wireVarint
	}
	return wireBytes
}

// index finds each field of a message. It refuses what the table does not have, what stands twice, and a repeated
// field in two places: no server writes these.
func (t *Type) index(msg []byte, spans []span) error {
	for i := 0; i < len(msg); {
		num, wire, end, err := tag(msg, i)
		if err != nil {
			return err
		}
		at := 0
		if int(num) < len(t.byNum) {
			at = int(t.byNum[num])
		}
		if at == 0 {
			if i, err = t.pass(msg, end, num, wire); err != nil {
				return err
			}
			continue
		}
		f, s := &t.fields[at-1], &spans[at-1]
		if wire != f.wire() {
			return fmt.Errorf("%w: %s: field %d has wire type %d", ErrUnsupported, t.name, num, wire)
		}
		from, to := end, 0
		var value uint64
		if wire == wireVarint {
			if value, to = varint(msg, end); to == 0 {
				return fmt.Errorf("%w: %s: field %d is cut off", ErrUnsupported, t.name, num)
			}
		} else if from, to, err = chunk(msg, end); err != nil {
			return err
		}
		switch {
		case !s.there && f.repeated:
			*s = span{int32(i), int32(to), true, 0}
		case !s.there:
			*s = span{int32(from), int32(to), true, value}
		case f.repeated && s.to == int32(i):
			s.to = int32(to)
		default:
			return fmt.Errorf("%w: %s: field %d stands in two places", ErrUnsupported, t.name, num)
		}
		i = to
	}
	return nil
}

// pass goes over a field that the type once had, if there is nothing in it.
func (t *Type) pass(msg []byte, i int, num int32, wire int) (int, error) {
	for _, old := range t.past {
		if old == num && wire == wireBytes && i < len(msg) && msg[i] == 0 {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("%w: %s has a field %d", ErrUnsupported, t.name, num)
}
