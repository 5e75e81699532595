package rawjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge means that an item, or what surrounds the items, is larger than allowed.
var ErrTooLarge = errors.New("larger than allowed")

// maxEnvelope bounds what stands beside the items of a list.
const maxEnvelope = 1 << 20

// ListHead is what stands beside the items of a list.
type ListHead struct {
	APIVersion, Kind   string
	ResourceVersion    string
	Continue           string
	RemainingItemCount *int64
	Items              int
}

// Splitter splits lists. It keeps its buffer from one list to the next; it serves one goroutine.
type Splitter struct {
	// MaxItem bounds the bytes of one item; 0 means 64 MiB.
	MaxItem int

	buf        []byte
	start, end int // the unread bytes
	heads      *headReader
	src        io.Reader
	err        error
}

// Split reads one list ({"kind":…,"items":[…]}) from r and calls fn for the bytes of each item, which are valid during
// the call only, without changing order or content. It stops at fn's first error and returns it as it is. The structure of
// the list is checked; what is inside an item only so far as is needed to find its end (ReadHead checks the rest).
// A list that ends early is an error that wraps io.ErrUnexpectedEOF, after the items before were given to fn.
func (s *Splitter) Split(r io.Reader, fn func(raw []byte) error) (ListHead, error) {
	return s.split(r, func(limit int) error {
		raw, err := s.value(limit)
		if err != nil {
			return err
		}
		return fn(raw)
	})
}

// SplitHeads is Split for a caller that wants the head of each item too, which costs less here than in a second pass: the items are
// checked wholly. Head and raw are valid during the call only. Of an item that ReadHead would refuse, fn gets the bytes and the error; the list goes
// on where fn returns nil.
func (s *Splitter) SplitHeads(r io.Reader, fn func(head *Head, raw []byte, err error) error) (ListHead, error) {
	return s.split(r, func(limit int) error {
		raw, bad, err := s.object(limit)
		if err != nil {
			return err
		}
		return fn(&s.heads.head, raw, bad)
	})
}

func (s *Splitter) split(r io.Reader, item func(limit int) error) (ListHead, error) {
	if s.buf == nil {
		s.buf = make([]byte, 64<<10)
	}
	s.start, s.end, s.src, s.err = 0, 0, r, nil
	defer func() { s.src = nil }()
	var head ListHead
	if err := s.list(&head, item); err != nil {
		return head, err
	}
	switch _, err := s.peek(); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return head, nil
	case err != nil:
		return head, err
	}
	return head, fmt.Errorf("%w: something follows the list", ErrSyntax)
}

func (s *Splitter) list(head *ListHead, item func(limit int) error) error {
	if err := s.expect('{', "a list"); err != nil {
		return err
	}
	if ch, err := s.peek(); err != nil {
		return err
	} else if ch == '}' {
		s.start++
		return nil
	}
	seenItems := false
	for {
		key, err := s.key()
		if err != nil {
			return err
		}
		if key == "items" {
			if seenItems {
				return fmt.Errorf("%w: a list has two times \"items\"", ErrSyntax)
			}
			seenItems = true
			err = s.items(head, item)
		} else {
			err = s.envelope(head, key)
		}
		if err != nil {
			return err
		}
		if done, err := s.next('}', "a list"); done || err != nil {
			return err
		}
	}
}

func (s *Splitter) key() (string, error) {
	ch, err := s.peek()
	if err != nil {
		return "", err
	}
	if ch != '"' {
		return "", fmt.Errorf("%w: a key of the list is missing", ErrSyntax)
	}
	raw, err := s.value(maxEnvelope)
	if err != nil {
		return "", err
	}
	var key string
	if err := json.Unmarshal(raw, &key); err != nil {
		return "", fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return key, s.expect(':', "a colon")
}

func (s *Splitter) envelope(head *ListHead, key string) error {
	raw, err := s.value(maxEnvelope)
	if err != nil {
		return err
	}
	switch key {
	case "apiVersion":
		err = json.Unmarshal(raw, &head.APIVersion)
	case "kind":
		err = json.Unmarshal(raw, &head.Kind)
	case "metadata":
		var meta struct {
			ResourceVersion    string `json:"resourceVersion"`
			Continue           string `json:"continue"`
			RemainingItemCount *int64 `json:"remainingItemCount"`
		}
		err = json.Unmarshal(raw, &meta)
		head.ResourceVersion, head.Continue, head.RemainingItemCount = meta.ResourceVersion, meta.Continue, meta.RemainingItemCount
	default:
		if !json.Valid(raw) {
			err = errors.New("a field of the list is malformed")
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

func (s *Splitter) items(head *ListHead, item func(limit int) error) error {
	ch, err := s.peek()
	if err != nil {
		return err
	}
	if ch == 'n' {
		return s.envelope(head, "")
	}
	if err := s.expect('[', "an array of items"); err != nil {
		return err
	}
	if ch, err = s.peek(); err != nil {
		return err
	} else if ch == ']' {
		s.start++
		return nil
	}
	limit := s.MaxItem
	if limit <= 0 {
		limit = 64 << 20
	}
	for {
		if ch, err := s.peek(); err != nil {
			return err
		} else if ch != '{' {
			return fmt.Errorf("%w: item %d of the list is not an object", ErrSyntax, head.Items)
		}
		if err := item(limit); err != nil {
			return err
		}
		head.Items++
		if done, err := s.next(']', "the array of items"); done || err != nil {
			return err
		}
	}
}

// next passes a comma, or the closing byte, and says which.
func (s *Splitter) next(closing byte, what string) (done bool, err error) {
	ch, err := s.peek()
	if err != nil {
		return false, err
	}
	s.start++
	switch ch {
	case ',':
		return false, nil
	case closing:
		return true, nil
	}
	return false, fmt.Errorf("%w: %s is not closed", ErrSyntax, what)
}

func (s *Splitter) expect(want byte, what string) error {
	ch, err := s.peek()
	if err != nil {
		return err
	}
	if ch != want {
		return fmt.Errorf("%w: %s is missing", ErrSyntax, what)
	}
	s.start++
	return nil
}

// peek skips white space and gives the next byte without passing it.
func (s *Splitter) peek() (byte, error) {
	for {
		for s.start < s.end {
			switch ch := s.buf[s.start]; ch {
			case ' ', '\n', '\t', '\r':
				s.start++
			default:
				return ch, nil
			}
		}
		if err := s.fill(maxEnvelope); err != nil {
			return 0, err
		}
	}
}

// fill reads more behind the unread bytes, which may be at most limit.
func (s *Splitter) fill(limit int) error {
	if s.err != nil {
		return s.err
	}
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	if s.end == len(s.buf) {
		if s.end > limit {
			return fmt.Errorf("value of over %d bytes is %w", limit, ErrTooLarge)
		}
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	for range 100 {
		n, err := s.src.Read(s.buf[s.end:])
		s.end += n
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		s.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// value passes one value, of at most limit bytes, and gives it; it stays valid until more is read.
func (s *Splitter) value(limit int) ([]byte, error) {
	var f finder
	off := 0
	for {
		n, done := f.find(s.buf[s.start+off : s.end])
		off += n
		if off > limit {
			return nil, fmt.Errorf("value of over %d bytes is %w", limit, ErrTooLarge)
		}
		if done {
			raw := s.buf[s.start : s.start+off]
			s.start += off
			return raw, nil
		}
		if f.depth > MaxDepth {
			return nil, fmt.Errorf("%w: nested too deeply", ErrSyntax)
		}
		if err := s.fill(limit); err != nil {
			return nil, err
		}
	}
}

// object passes one object and reads its head into s.heads on the way. Bad says what is wrong with the object where its end was found all the same.
func (s *Splitter) object(limit int) (raw []byte, bad, err error) {
	if s.heads == nil {
		s.heads = newHeadReader()
		s.heads.names = map[string]string{}
	}
	for {
		r := s.heads
		r.reset(s.buf[s.start:s.end])
		bad := r.object(r.onTop)
		switch {
		case bad == nil && r.i > limit:
			return nil, nil, fmt.Errorf("value of over %d bytes is %w", limit, ErrTooLarge)
		case bad == nil:
			raw = s.buf[s.start : s.start+r.i]
			s.start += r.i
			return raw, nil, nil
		case r.i < len(r.b):
			raw, err = s.value(limit)
			return raw, bad, err
		case len(r.b) > limit:
			return nil, nil, fmt.Errorf("value of over %d bytes is %w", limit, ErrTooLarge)
		}
		if err := s.fill(limit); err != nil {
			return nil, nil, err
		}
	}
}

// finder finds the end of a value that comes in pieces.
type finder struct {
	depth    int
	inString bool
	escaped  bool
	scalar   bool
}

// structural marks the bytes that matter outside of strings.
var structural = func() (t [256]bool) {
	for _, ch := range `"{}[]` {
		t[ch] = true
	}
	return t
}()

// find gives how many bytes of b belong to the value and whether its end was among them.
func (f *finder) find(b []byte) (n int, done bool) {
	i := 0
	if f.depth == 0 && !f.inString && len(b) > 0 {
		if ch := b[0]; !f.scalar && ch != '"' && ch != '{' && ch != '[' {
			f.scalar = true
		}
		if f.scalar {
			return endOfScalar(b)
		}
	}
	for i < len(b) {
		if f.inString {
			if i = f.str(b, i); f.inString {
				return i, false
			}
			if f.depth == 0 {
				return i, true
			}
			continue
		}
		for i < len(b) && !structural[b[i]] {
			i++
		}
		if i == len(b) {
			break
		}
		switch b[i] {
		case '"':
			f.inString = true
		case '{', '[':
			f.depth++
		default:
			if f.depth--; f.depth <= 0 {
				return i + 1, true
			}
		}
		i++
	}
	return i, false
}

// str passes the rest of a string.
func (f *finder) str(b []byte, i int) int {
	if f.escaped && i < len(b) {
		f.escaped = false
		i++
	}
	for i < len(b) {
		for i < len(b) && b[i] != '"' && b[i] != '\\' {
			i++
		}
		if i == len(b) {
			return i
		}
		if b[i] == '"' {
			f.inString = false
			return i + 1
		}
		if i+1 == len(b) {
			f.escaped = true
			return i + 1
		}
		i += 2
	}
	return i
}

// endOfScalar finds the end of a number or a literal.
func endOfScalar(b []byte) (int, bool) {
	for i, ch := range b {
		switch ch {
		case ',', '}', ']', ':', ' ', '\n', '\t', '\r', '{', '[', '"':
			return i, true
		}
	}
	return len(b), false
}
