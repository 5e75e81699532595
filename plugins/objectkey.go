package plugins

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The limits of a key. A segment must fit a file name, and the whole key an S3 key (1024 bytes) with room for a prefix.
const (
	MaxKeyBytes     = 900
	MaxSegmentBytes = 255
)

// ReservedSegment begins the segments that stores keep for themselves, such as a folder of unfinished writes. No key has one.
const ReservedSegment = ".kedge-"

// CheckKey says whether key may name an object; the error wraps ErrInvalidKey and says what is wrong with it.
func CheckKey(key string) error {
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrInvalidKey, len(key), MaxKeyBytes)
	}
	if err := checkBytes(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return fmt.Errorf("%w: %q has an empty segment", ErrInvalidKey, key)
		case segment == "." || segment == "..":
			return fmt.Errorf("%w: %q has a segment %q", ErrInvalidKey, key, segment)
		case len(segment) > MaxSegmentBytes:
			return fmt.Errorf("%w: a segment of %d bytes is longer than %d", ErrInvalidKey, len(segment), MaxSegmentBytes)
		case strings.HasPrefix(segment, ReservedSegment):
			return fmt.Errorf("%w: %q has a segment that begins with %q, which stores keep for themselves", ErrInvalidKey, key, ReservedSegment)
		}
	}
	return nil
}

// CheckPrefix says whether prefix may be listed: it is any beginning of a valid key, or empty.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKeyBytes {
		return fmt.Errorf("%w: a prefix of %d bytes is longer than %d", ErrInvalidKey, len(prefix), MaxKeyBytes)
	}
	if err := checkBytes(prefix); err != nil {
		return err
	}
	segments := strings.Split(prefix, "/")
	for i, segment := range segments {
		whole := i < len(segments)-1
		switch {
		case whole && (segment == "" || segment == "." || segment == ".."):
			return fmt.Errorf("%w: the prefix %q has a segment %q", ErrInvalidKey, prefix, segment)
		case len(segment) > MaxSegmentBytes:
			return fmt.Errorf("%w: a segment of %d bytes is longer than %d", ErrInvalidKey, len(segment), MaxSegmentBytes)
		}
	}
	return nil
}

// checkBytes refuses what a listing in XML or a file name cannot carry.
func checkBytes(key string) error {
	if !utf8.ValidString(key) {
		return fmt.Errorf("%w: %q is not UTF-8", ErrInvalidKey, key)
	}
	for _, r := range key {
		if r < 0x20 || r == 0x7f || r == '\\' || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("%w: %q has the character %q", ErrInvalidKey, key, r)
		}
	}
	return nil
}
