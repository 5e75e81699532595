package term

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Color is one way to make text stand out: the number of an SGR escape sequence (ECMA-48).
type Color string

// The styles in use.
const (
	Bold   Color = "1"
	Dim    Color = "2"
	Red    Color = "31"
	Green  Color = "32"
	Yellow Color = "33"
	Cyan   Color = "36"
)

// Style wraps text in a style where on is set, and leaves it as it is elsewhere.
func (u *UI) Style(on bool, c Color, text string) string {
	if !on || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Clean makes text that came from elsewhere (an archive, a server) safe for one line of a terminal: control characters,
// among them those that start escape sequences, line breaks and marks that turn the writing direction, become "?", and bytes
// that are not UTF-8 the replacement character.
func Clean(text string) string { return clean(text, false) }

// CleanText is Clean for text of several lines: line breaks and tabs stay.
func CleanText(text string) string { return clean(text, true) }

func clean(text string, multiline bool) string {
	if isPlain(text) {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case multiline && (r == '\n' || r == '\t'):
			return r
		case unicode.IsControl(r), isBidi(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
}

// isPlain is the fast way out: printable ASCII only.
func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return false
		}
	}
	return true
}

// isBidi tells the marks of Unicode's bidirectional algorithm (UAX #9), with which a name can be made to read as another.
func isBidi(r rune) bool {
	return r == '\u061c' || r == '\u200e' || r == '\u200f' || (r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069')
}
