package pbjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"

	"kedge.dev/kedge/internal/rawjson"
)

// decoded writes a value by its Go type's own methods, which pass over what they do not know: its fields are 1 to most.
func decoded[T any, P interface {
	*T
	Unmarshal(data []byte) error
	json.Marshaler
}](most int32) leaf {
	return func(dst, msg []byte) ([]byte, error) {
		var seen int32
		err := each(msg, func(num int32, _ []byte, _ uint64) error {
			if num > most || seen&(1<<num) != 0 {
				return fmt.Errorf("%w: %T has a field %d", ErrUnsupported, *new(T), num)
			}
			seen |= 1 << num
			return nil
		})
		if err != nil {
			return dst, err
		}
		var v T
		if err := P(&v).Unmarshal(msg); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		text, err := P(&v).MarshalJSON()
		if err != nil {
			return dst, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return appendCompact(dst, text)
	}
}

var decodedQuantity = decoded[resource.Quantity](1)

// appendQuantity writes a quantity, which may have no string at all.
func appendQuantity(dst, msg []byte) ([]byte, error) {
	if len(msg) == 0 {
		return append(dst, `"0"`...), nil
	}
	return decodedQuantity(dst, msg)
}

// appendTime writes a metav1.Time: seconds alone count in both encodings.
func appendTime(dst, msg []byte) ([]byte, error) {
	if len(msg) == 0 {
		return append(dst, "null"...), nil
	}
	var seconds uint64
	for i := 0; i < len(msg); {
		num, wire, end, err := tag(msg, i)
		if err != nil {
			return dst, err
		}
		v, to := varint(msg, end)
		if num > 2 || wire != wireVarint || to == 0 {
			return dst, fmt.Errorf("%w: a time has field %d of wire type %d", ErrUnsupported, num, wire)
		}
		if num == 1 {
			seconds = v
		}
		i = to
	}
	t := time.Unix(int64(seconds), 0).UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		return dst, fmt.Errorf("%w: a time in the year %d", ErrUnsupported, y)
	}
	if t.IsZero() {
		return append(dst, "null"...), nil
	}
	dst = append(dst, '"')
	dst = t.AppendFormat(dst, time.RFC3339)
	return append(dst, '"'), nil
}

// appendRaw writes what holds JSON in its field 1: FieldsV1, RawExtension.
func appendRaw(dst, msg []byte) ([]byte, error) {
	if len(msg) == 0 {
		return append(dst, "null"...), nil
	}
	num, wire, end, err := tag(msg, 0)
	if err != nil {
		return dst, err
	}
	from, to, err := chunk(msg, end)
	if err != nil {
		return dst, err
	}
	if num != 1 || wire != wireBytes || to != len(msg) {
		return dst, fmt.Errorf("%w: raw JSON is in field %d of wire type %d", ErrUnsupported, num, wire)
	}
	if from == to {
		return append(dst, "null"...), nil
	}
	return appendCompact(dst, msg[from:to])
}

// appendCompact appends JSON as encoding/json does what a MarshalJSON gives it: without space, and with <, >, & and the two line ends
// of JavaScript escaped.
func appendCompact(dst, text []byte) ([]byte, error) {
	if err := rawjson.Check(text); err != nil {
		return dst, fmt.Errorf("%w: raw JSON: %w", ErrUnsupported, err)
	}
	for _, c := range []byte(" \t\r\n<>&\xe2") {
		if bytes.IndexByte(text, c) < 0 { // which the processor does many bytes at a time
			continue
		}
		var compact, escaped bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		json.HTMLEscape(&escaped, compact.Bytes())
		text = escaped.Bytes()
		break
	}
	return append(dst, text...), nil
}

// plain marks the bytes that a JSON string of encoding/json has as they are.
var plain = func() (table [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return table
}()

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string as encoding/json writes it. What is no UTF-8 it refuses: in JSON the server replaces it.
func appendString(dst, s []byte) ([]byte, error) {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		if s[i] < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			dst = appendEscaped(dst, s[i])
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && size == 1 {
			return dst, fmt.Errorf("%w: a string is no UTF-8", ErrUnsupported)
		}
		if r == '\u2028' || r == '\u2029' {
			dst = append(append(dst, s[start:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			i += size
			start = i
			continue
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"'), nil
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
