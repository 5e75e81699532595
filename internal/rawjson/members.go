package rawjson

import "slices"

// Members calls fn with each key of the object that raw holds, decoded, and with the bytes of its value, both valid as long as
// raw is. It checks all of raw, and stops at fn's first error, which it returns as it is. A key that stands twice is an error.
func Members(raw []byte, fn func(key string, value []byte) error) error {
	c := cursor{b: raw}
	var seen [32]string
	var more map[string]bool
	n := 0
	err := c.object(func(quoted []byte) error {
		key, err := text(quoted)
		if err != nil {
			return err
		}
		if slices.Contains(seen[:min(n, len(seen))], key) {
			return c.fail("a key stands twice")
		}
		switch {
		case n < len(seen):
			seen[n] = key
		case more[key]:
			return c.fail("a key stands twice")
		default:
			if more == nil {
				more = map[string]bool{}
			}
			more[key] = true
		}
		n++
		value, err := c.value()
		if err != nil {
			return err
		}
		return fn(key, value)
	})
	if err != nil {
		return err
	}
	return c.end()
}

// Elements calls fn with the bytes of each element of the array that raw holds.
func Elements(raw []byte, fn func(value []byte) error) error {
	c := cursor{b: raw}
	err := c.array(func() error {
		value, err := c.value()
		if err != nil {
			return err
		}
		return fn(value)
	})
	if err != nil {
		return err
	}
	return c.end()
}

// Text decodes a JSON string; null counts as "".
func Text(raw []byte) (string, error) {
	c := cursor{b: raw}
	s, err := c.str()
	if err != nil {
		return "", err
	}
	return s, c.end()
}

// value passes one value and gives its bytes, without space around it.
func (c *cursor) value() ([]byte, error) {
	c.space()
	start := c.i
	if err := c.skip(); err != nil {
		return nil, err
	}
	return c.b[start:c.i], nil
}

// Check says whether raw is one JSON value and nothing else.
func Check(raw []byte) error {
	c := cursor{b: raw}
	if err := c.skip(); err != nil {
		return err
	}
	return c.end()
}
