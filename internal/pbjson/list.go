package pbjson

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"kedge.dev/kedge/internal/rawjson"
)

// magic begins what API servers send in this encoding.
const magic = "k8s\x00"

// The fields of runtime.Unknown and its TypeMeta, of every list and of metav1.ListMeta.
const (
	unknownTypeMeta, unknownRaw, unknownEncoding, unknownType = 1, 2, 3, 4

	typeAPIVersion, typeKind = 1, 2

	listMetadata, listItems = 1, 2

	listResourceVersion, listContinue, listRemaining = 2, 3, 4
)

const (
	maxEnvelope = 1 << 20
	defaultItem = 64 << 20
	growth      = 1 << 20 // how much is believed of a length at a time
)

// Kind is one kind of object: its table and its names.
type Kind struct {
	Type             *Type
	APIVersion, Kind string
}

// Splitter reads lists. It keeps its memory from one list to the next; it serves one goroutine.
type Splitter struct {
	// MaxItem bounds the bytes of one item, in either encoding; 0 means 64 MiB.
	MaxItem int

	r     *bufio.Reader
	names names
	w     writer
	item  []byte
	json  []byte
}

// SplitHeads reads one list of objects of one kind from r, and calls fn for each: with its head, as rawjson.ReadHead would read it, and with
// its JSON, which begins with its apiVersion and kind. Both are valid during the call only. It stops at fn's first error, which it returns as it is. A list that ends
// early is an error that wraps io.ErrUnexpectedEOF, after the items before were given to fn.
// With ErrUnsupported the same list has to be asked for as JSON; the items that fn has had are what JSON would have given.
func (s *Splitter) SplitHeads(r io.Reader, k *Kind, fn func(head *rawjson.Head, raw []byte, err error) error) (rawjson.ListHead, error) {
	if s.r == nil {
		s.r, s.names = bufio.NewReaderSize(nil, 64<<10), names{}
	}
	s.r.Reset(r)
	defer s.r.Reset(nil)
	head := rawjson.ListHead{APIVersion: k.APIVersion, Kind: k.Kind + "List"}
	return head, s.envelope(&head, k, fn)
}

type itemFunc = func(head *rawjson.Head, raw []byte, err error) error

func (s *Splitter) envelope(head *rawjson.ListHead, k *Kind, fn itemFunc) error {
	begin, err := s.bytes(uint64(len(magic)), maxEnvelope)
	if err != nil {
		return err
	}
	if string(begin) != magic {
		return fmt.Errorf("%w: the answer does not begin as an API server's does", ErrUnsupported)
	}
	typed, listed := false, false
	for {
		num, n, err := s.field()
		switch {
		case errors.Is(err, io.EOF) && listed:
			return nil
		case err != nil:
			return cut(err)
		}
		if num == unknownRaw {
			if !typed || listed {
				return fmt.Errorf("%w: the envelope is out of order", ErrUnsupported)
			}
			listed = true
			if err := s.list(head, k, n, fn); err != nil {
				return err
			}
			continue
		}
		b, err := s.bytes(n, maxEnvelope)
		if err != nil {
			return err
		}
		switch {
		case num == unknownTypeMeta && !typed:
			typed = true
			if err := checkType(b, k, "List"); err != nil {
				return err
			}
		case num == unknownEncoding && len(b) == 0, num == unknownType:
		default:
			return fmt.Errorf("%w: the envelope has a field %d", ErrUnsupported, num)
		}
	}
}

// checkType wants the TypeMeta of a kind, or of what its name with the suffix is.
func checkType(b []byte, k *Kind, suffix string) error {
	var apiVersion, kind string
	err := each(b, func(num int32, b []byte, _ uint64) error {
		switch num {
		case typeAPIVersion:
			apiVersion = string(b)
		case typeKind:
			kind = string(b)
		}
		return nil
	})
	if err == nil && (apiVersion != k.APIVersion || kind != k.Kind+suffix) {
		err = fmt.Errorf("%w: the server sent %q of %q", ErrUnsupported, kind, apiVersion)
	}
	return err
}

// list reads the list itself, n bytes.
func (s *Splitter) list(head *rawjson.ListHead, k *Kind, n uint64, fn itemFunc) error {
	limit := s.MaxItem
	if limit <= 0 {
		limit = defaultItem
	}
	for n > 0 {
		num, size, used, err := s.fieldOf(n)
		if err != nil {
			return cut(err)
		}
		n -= used
		switch num {
		case listMetadata:
			b, err := s.bytes(size, maxEnvelope)
			if err != nil {
				return err
			}
			if err := listMeta(head, b); err != nil {
				return err
			}
		case listItems:
			b, err := s.bytes(size, limit)
			if err != nil {
				return err
			}
			if err := s.give(b, k, limit, fn); err != nil {
				return err
			}
			head.Items++
		default:
			return fmt.Errorf("%w: the list has a field %d", ErrUnsupported, num)
		}
	}
	return nil
}

func listMeta(head *rawjson.ListHead, b []byte) error {
	return each(b, func(num int32, b []byte, v uint64) error {
		switch num {
		case listResourceVersion:
			head.ResourceVersion = string(b)
		case listContinue:
			head.Continue = string(b)
		case listRemaining:
			remaining := int64(v)
			head.RemainingItemCount = &remaining
		}
		return nil
	})
}

// give writes one item's JSON and hands it on.
func (s *Splitter) give(item []byte, k *Kind, limit int, fn itemFunc) error {
	head, err := s.names.head(item)
	if err != nil {
		return err
	}
	s.json = append(s.json[:0], `{"apiVersion":"`...)
	s.json = append(append(s.json, k.APIVersion...), `","kind":"`...)
	s.json = append(append(s.json, k.Kind...), '"')
	s.w.spans, s.w.depth = s.w.spans[:0], 0
	if s.json, err = s.w.message(s.json, item, k.Type); err != nil {
		return err
	}
	s.json = append(s.json, '}')
	if len(s.json) > limit {
		return fmt.Errorf("an item of the list: %w", rawjson.ErrTooLarge)
	}
	head.APIVersion, head.Kind = k.APIVersion, k.Kind
	return fn(&head, s.json, nil)
}

// field reads the number and the length of a length-delimited field.
func (s *Splitter) field() (num int32, size uint64, err error) {
	num, size, _, err = s.fieldOf(1<<63 - 1)
	return num, size, err
}

// fieldOf is field for one that must end, with its value, within so many bytes. It says how many that is.
func (s *Splitter) fieldOf(left uint64) (num int32, size, used uint64, err error) {
	key, a, err := s.varint()
	if err != nil {
		return 0, 0, 0, err
	}
	if key&7 != wireBytes || key>>3 == 0 || key>>3 > 1<<29-1 {
		return 0, 0, 0, fmt.Errorf("%w: a list has field %d of wire type %d", ErrUnsupported, key>>3, key&7)
	}
	size, b, err := s.varint()
	if err != nil {
		return 0, 0, 0, cut(err)
	}
	used = a + b + size
	if size > left || used > left {
		return 0, 0, 0, fmt.Errorf("%w: a length goes beyond the end", ErrUnsupported)
	}
	return int32(key >> 3), size, used, nil
}

// varint reads a number and says how many bytes it has. io.EOF means that there is not one byte.
func (s *Splitter) varint() (v, used uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		c, err := s.r.ReadByte()
		if err != nil {
			if used > 0 {
				err = cut(err)
			}
			return 0, 0, err
		}
		used++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, used, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: a number has more than ten bytes", ErrUnsupported)
}

// bytes reads n bytes, which are valid until the next call. Memory grows with what arrives, not with what was announced.
func (s *Splitter) bytes(n uint64, limit int) ([]byte, error) {
	if n > uint64(limit) {
		return nil, fmt.Errorf("%d bytes: %w", n, rawjson.ErrTooLarge)
	}
	s.item = s.item[:0]
	for len(s.item) < int(n) {
		from := len(s.item)
		to := min(int(n), max(cap(s.item), from+growth))
		if to > cap(s.item) {
			s.item = append(make([]byte, 0, max(to, min(int(n), 2*cap(s.item)))), s.item...)
		}
		s.item = s.item[:to]
		if _, err := io.ReadFull(s.r, s.item[from:to]); err != nil {
			return nil, cut(err)
		}
	}
	return s.item, nil
}

// cut is the error of a reader that ended where more had to come.
func cut(err error) error {
	if err == io.EOF { //nolint:errorlint // as io.Reader has it
		return io.ErrUnexpectedEOF
	}
	return err
}
