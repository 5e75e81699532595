// Package rawjson reads Kubernetes objects and lists as bytes: it splits a list into its items and finds the few fields
// that selection and index need, without decoding the rest.
package rawjson

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxDepth bounds the nesting of arrays and objects, as encoding/json does.
const MaxDepth = 10000

// ErrSyntax means that bytes are not the JSON that they should be.
var ErrSyntax = errors.New("invalid JSON")

// cursor walks over one JSON text and checks all that it passes (RFC 8259). Where the text ends too early, i is its length.
type cursor struct {
	b     []byte
	i     int
	depth int
}

func (c *cursor) fail(what string) error {
	return fmt.Errorf("%w at byte %d: %s", ErrSyntax, c.i, what)
}

// space skips white space and gives the byte that follows, 0 at the end.
func (c *cursor) space() byte {
	for c.i < len(c.b) {
		ch := c.b[c.i]
		if ch > ' ' || (ch != ' ' && ch != '\n' && ch != '\t' && ch != '\r') {
			return ch
		}
		c.i++
	}
	return 0
}

// skip passes one value.
func (c *cursor) skip() error {
	switch ch := c.space(); {
	case ch == '{':
		return c.object(nil)
	case ch == '[':
		return c.array(nil)
	case ch == '"':
		_, err := c.rawString()
		return err
	case ch == '-' || (ch >= '0' && ch <= '9'):
		return c.number()
	case ch == 't':
		return c.literal("true")
	case ch == 'f':
		return c.literal("false")
	case ch == 'n':
		return c.literal("null")
	}
	return c.fail("a value is missing")
}

// null passes a null and says whether there was one.
func (c *cursor) null() (bool, error) {
	if c.space() != 'n' {
		return false, nil
	}
	return true, c.literal("null")
}

// object passes an object. For each key it calls field, which must pass the value; a nil field skips them all.
func (c *cursor) object(field func(key []byte) error) error {
	if c.space() != '{' {
		return c.fail("an object is missing")
	}
	if c.depth++; c.depth > MaxDepth {
		return c.fail("nested too deeply")
	}
	c.i++
	if c.space() == '}' {
		return c.closed()
	}
	for {
		if c.space() != '"' {
			return c.fail("a key is missing")
		}
		key, err := c.rawString()
		if err != nil {
			return err
		}
		if c.space() != ':' {
			return c.fail("a colon is missing")
		}
		c.i++
		if field == nil {
			err = c.skip()
		} else {
			err = field(key)
		}
		if err != nil {
			return err
		}
		switch c.space() {
		case ',':
			c.i++
		case '}':
			return c.closed()
		default:
			return c.fail("an object is not closed")
		}
	}
}

// array passes an array. For each element it calls elem, which must pass it; a nil elem skips them all.
func (c *cursor) array(elem func() error) error {
	if c.space() != '[' {
		return c.fail("an array is missing")
	}
	if c.depth++; c.depth > MaxDepth {
		return c.fail("nested too deeply")
	}
	c.i++
	if c.space() == ']' {
		return c.closed()
	}
	if elem == nil {
		elem = c.skip
	}
	for {
		if err := elem(); err != nil {
			return err
		}
		switch c.space() {
		case ',':
			c.i++
		case ']':
			return c.closed()
		default:
			return c.fail("an array is not closed")
		}
	}
}

func (c *cursor) closed() error {
	c.i++
	c.depth--
	return nil
}

func (c *cursor) literal(want string) error {
	if rest := c.b[c.i:]; len(rest) < len(want) && string(rest) == want[:len(rest)] {
		c.i = len(c.b)
		return c.fail("a value is cut short")
	}
	if len(c.b)-c.i < len(want) || string(c.b[c.i:c.i+len(want)]) != want {
		return c.fail("a value is missing")
	}
	c.i += len(want)
	return nil
}

func (c *cursor) digits() bool {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] >= '0' && c.b[c.i] <= '9' {
		c.i++
	}
	return c.i > start
}

func (c *cursor) number() error {
	if c.b[c.i] == '-' {
		c.i++
	}
	switch {
	case c.i < len(c.b) && c.b[c.i] == '0':
		c.i++
	case !c.digits():
		return c.fail("a number is malformed")
	}
	if c.i < len(c.b) && c.b[c.i] == '.' {
		c.i++
		if !c.digits() {
			return c.fail("a number is malformed")
		}
	}
	if c.i < len(c.b) && (c.b[c.i]|0x20) == 'e' {
		c.i++
		if c.i < len(c.b) && (c.b[c.i] == '+' || c.b[c.i] == '-') {
			c.i++
		}
		if !c.digits() {
			return c.fail("a number is malformed")
		}
	}
	return nil
}

// plain marks the bytes that stand for themselves inside a string.
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != '"' && i != '\\'
	}
	return t
}()

// rawString passes a string and gives it with its quotes.
func (c *cursor) rawString() ([]byte, error) {
	start := c.i
	b, i := c.b, c.i+1
	for {
		for i < len(b) && plain[b[i]] {
			i++
		}
		if i >= len(b) {
			c.i = i
			return nil, c.fail("a string is not closed")
		}
		if b[i] == '"' {
			c.i = i + 1
			return b[start:c.i], nil
		}
		c.i = i
		if b[i] != '\\' {
			return nil, c.fail("a control character stands in a string")
		}
		n := escape(b[i:])
		if n == 0 {
			if len(b)-i < len(`\u0000`) {
				c.i = len(b) // perhaps only cut short
			}
			return nil, c.fail("an escape in a string is malformed")
		}
		i += n
	}
}

// escape gives the length of the escape sequence that b starts with, 0 where it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, h := range b[2:6] {
			if (h < '0' || h > '9') && ((h|0x20) < 'a' || (h|0x20) > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// text decodes a string that was passed with its quotes.
func text(quoted []byte) (string, error) {
	inner := quoted[1 : len(quoted)-1]
	for _, ch := range inner {
		if ch == '\\' || ch >= 0x80 {
			var s string
			if err := json.Unmarshal(quoted, &s); err != nil {
				return "", fmt.Errorf("%w: %w", ErrSyntax, err)
			}
			return s, nil
		}
	}
	return string(inner), nil
}

// keyText gives a key that was passed with its quotes; where it has escapes they are decoded.
func keyText(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	for _, ch := range inner {
		if ch == '\\' || ch >= 0x80 {
			s, err := text(quoted)
			if err != nil {
				return inner
			}
			return []byte(s)
		}
	}
	return inner
}

// str passes a string or a null, which counts as "".
func (c *cursor) str() (string, error) {
	if null, err := c.null(); null || err != nil {
		return "", err
	}
	if c.space() != '"' {
		return "", c.fail("a string is missing")
	}
	quoted, err := c.rawString()
	if err != nil {
		return "", err
	}
	return text(quoted)
}

// boolean passes true, false or null; null counts as false.
func (c *cursor) boolean() (bool, error) {
	switch c.space() {
	case 't':
		return true, c.literal("true")
	case 'f':
		return false, c.literal("false")
	case 'n':
		return false, c.literal("null")
	}
	return false, c.fail("true or false is missing")
}

// end checks that nothing but white space follows.
func (c *cursor) end() error {
	if c.space() != 0 || c.i < len(c.b) {
		return c.fail("something follows the value")
	}
	return nil
}
