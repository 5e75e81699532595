package transform

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	// maxEntries and maxValue bound one mapping and each of its strings.
	maxEntries = 10000
	maxValue   = 4096
)

// mapping is one map of old values to new ones.
type mapping struct {
	field    string // "transforms.images"
	exact    map[string]*target
	prefixes []*target // the longest first
	// needles are byte strings of which an object must hold one for the mapping to have something to do.
	needles [][]byte
}

// target is what one entry of a mapping makes of a value.
type target struct {
	field    string // "transforms.images[\"old/*\"]"
	from, to string // without the "*" of prefixes
	prefix   bool   // from is a prefix
	whole    bool   // of a prefix: to replaces the whole value, not the prefix
	used     atomic.Bool
}

// mappingRules say what a mapping allows.
type mappingRules struct {
	prefixes bool                      // keys may end in "*"
	all      bool                      // a key may be "*" alone
	removes  bool                      // a new value may be empty
	check    func(value string) string // says what is wrong with a key or a new value; "" is good
	// needle gives the byte string that stands in every object that holds the key, from the key; unset, the key itself.
	needle func(from string) string
}

// newMapping checks a map and compiles it; nil where nothing is to be mapped. An entry that maps a value to itself is left out.
func newMapping(field string, values map[string]string, rules mappingRules) (*mapping, error) {
	if len(values) > maxEntries {
		return nil, fmt.Errorf("%s: has %d entries, more than the %d allowed: use prefixes", field, len(values), maxEntries)
	}
	m := &mapping{field: field, exact: map[string]*target{}}
	var errs []error
	for _, from := range slices.Sorted(maps.Keys(values)) {
		t := &target{field: fmt.Sprintf("%s[%q]", field, from), from: from, to: values[from]}
		if err := t.compile(rules); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.field, err))
			continue
		}
		m.add(t, rules)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(m.exact)+len(m.prefixes) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(m.prefixes, func(a, b *target) int { return cmp.Compare(len(b.from), len(a.from)) })
	return m, nil
}

func (m *mapping) add(t *target, rules mappingRules) {
	if t.from == t.to && !t.whole {
		return
	}
	if t.prefix {
		m.prefixes = append(m.prefixes, t)
	} else {
		m.exact[t.from] = t
	}
	needle := t.from
	if rules.needle != nil {
		needle = rules.needle(t.from)
	}
	if strings.ContainsFunc(needle, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }) {
		needle = "" // JSON may write such characters in several ways
	}
	m.needles = append(m.needles, []byte(needle))
}

func (t *target) compile(rules mappingRules) error {
	switch {
	case len(t.from) > maxValue || len(t.to) > maxValue:
		return fmt.Errorf("is longer than %d bytes", maxValue)
	case t.from == "":
		return errors.New("the old value is empty: write the value that objects have now")
	case t.to == "" && !rules.removes:
		return errors.New("the new value is empty: write one, or remove the field with a modifier")
	}
	if err := t.compilePrefix(rules); err != nil {
		return err
	}
	if rules.check == nil {
		return nil
	}
	for _, v := range []string{t.from, t.to} {
		if v == "" && rules.removes {
			continue
		}
		if wrong := rules.check(v); wrong != "" {
			return fmt.Errorf("%q %s", v, wrong)
		}
	}
	return nil
}

// compilePrefix takes the "*" off an entry for a prefix.
func (t *target) compilePrefix(rules mappingRules) error {
	from, prefix := strings.CutSuffix(t.from, "*")
	to, keeps := strings.CutSuffix(t.to, "*")
	switch {
	case strings.Contains(t.from+t.to, "*") && !rules.prefixes:
		return errors.New("holds a \"*\": these values are mapped one by one; use a modifier for patterns")
	case strings.Contains(from+to, "*"):
		return errors.New("holds a \"*\" before its end: only the last character may be one, and stands for the rest of the value")
	case prefix && from == "" && !rules.all:
		return errors.New("stands for every value: begin the prefix with what those to be mapped have in common")
	case keeps && !prefix:
		return errors.New("the new value ends in \"*\", but the old one does not: end both in \"*\" to replace a prefix")
	}
	t.prefix, t.whole = prefix, prefix && !keeps
	if prefix {
		t.from, t.to = from, to
	}
	return nil
}

// find gives the entry that a value falls under: its own, else the longest prefix; nil where none does.
func (m *mapping) find(s string) *target {
	if t := m.exact[s]; t != nil {
		return t
	}
	for _, t := range m.prefixes {
		if strings.HasPrefix(s, t.from) {
			return t
		}
	}
	return nil
}

// apply gives the new value for one that falls under the entry, and notes that the entry was of use.
func (t *target) apply(s string) string {
	if !t.used.Load() {
		t.used.Store(true)
	}
	if t.prefix && !t.whole {
		return t.to + s[len(t.from):]
	}
	return t.to
}

// lookup gives the new value; ok says that there is one and that it differs.
func (m *mapping) lookup(s string) (to string, ok bool) {
	t := m.find(s)
	if t == nil {
		return "", false
	}
	to = t.apply(s)
	return to, to != s
}

// unused gives the fields of the entries that no value fell under.
func (m *mapping) unused() []string {
	var out []string
	for _, t := range m.exact {
		if !t.used.Load() {
			out = append(out, t.field)
		}
	}
	for _, t := range m.prefixes {
		if !t.used.Load() {
			out = append(out, t.field)
		}
	}
	slices.Sort(out)
	return out
}
