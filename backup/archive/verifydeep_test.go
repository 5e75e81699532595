package archive

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestNothingExtra: between and behind frames there is what belongs there, and nothing else.
func TestNothingExtra(t *testing.T) {
	enc, err := newEncoder(0)
	if err != nil {
		t.Fatal(err)
	}
	end := enc.EncodeAll(tarEnd(), nil)
	hidden := enc.EncodeAll([]byte("hidden"), nil)
	if err := expectTail(end, tarEnd()); err != nil {
		t.Errorf("the end of a tar: %v", err)
	}
	if err := expectTail(enc.EncodeAll(nil, nil), nil); err != nil {
		t.Errorf("the end of an index: %v", err)
	}
	for name, rest := range map[string][]byte{
		"nothing": nil, "something else": hidden, "more before": append(bytes.Clone(hidden), end...), "more behind": append(bytes.Clone(end), hidden...),
		"twice": append(bytes.Clone(end), end...), "no zstd": []byte("hidden"), "only padding": skippable(20), "one zero more": enc.EncodeAll(make([]byte, 2*tarBlock+1), nil),
	} {
		if err := expectTail(rest, tarEnd()); err == nil {
			t.Errorf("%s behind the last frame was taken", name)
		}
	}
	for name, padding := range map[string][]byte{
		"content": append(skippable(100)[:99], 1), "another kind": append([]byte{0x51}, skippable(100)[1:]...), "short": skippable(99), "a frame": append(bytes.Clone(hidden), make([]byte, 100)...),
	} {
		if err := expectPadding(bytes.NewReader(padding), 100); err == nil {
			t.Errorf("padding with %s was taken", name)
		}
	}
	if err := expectPadding(bytes.NewReader(skippable(100)), 100); err != nil {
		t.Error(err)
	}
	for _, rest := range [][]byte{end, append(skippable(100), end...), append(skippable(skippableHeader), end...)} {
		if got, err := withoutPadding(rest); err != nil || !bytes.Equal(got, end) {
			t.Errorf("%d bytes before the end are taken for it: %v", len(got), err)
		}
	}
	for name, rest := range map[string][]byte{
		"padding with content": append(append(skippable(100)[:99], 1), end...), "cut padding": skippable(100)[:50],
	} {
		if _, err := withoutPadding(rest); err == nil {
			t.Errorf("%s before the end was taken", name)
		}
	}
}

// TestCheckItem: an item is what its path, its JSON and its row say, all three.
func TestCheckItem(t *testing.T) {
	const text = `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"a","name":"x"}}`
	row := Row{Ref: pod("a", "x"), Kind: "Pod", Size: int64(len(text)), SHA256: hexSum([]byte(text))}
	if err := checkItem(row.Ref, []byte(text), []Row{row}, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{`"v1"`, `"v2"`}, {`"Pod"`, `"Secret"`}, {`"a"`, `"b"`}, {`"x"`, `"y"`}, {`}}`, `}} `}, {`}}`, `}`}, {`{"api`, `["api`}} {
		if err := checkItem(row.Ref, []byte(strings.Replace(text, c[0], c[1], 1)), []Row{row}, 0); err == nil {
			t.Errorf("%s became %s, and was taken", c[0], c[1])
		}
	}
	for name, change := range map[string]func(*Row){
		"name": func(r *Row) { r.Name = "y" }, "kind": func(r *Row) { r.Kind = "Secret" }, "size": func(r *Row) { r.Size++ }, "hash": func(r *Row) { r.SHA256 = "" },
	} {
		lie := row
		change(&lie)
		if err := checkItem(row.Ref, []byte(text), []Row{lie}, 0); err == nil {
			t.Errorf("a row with another %s was taken", name)
		}
	}
}

// TestMessages: an error says what is damaged, where, and what to do; a problem says it on one line.
func TestMessages(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{(&DamageError{Backup: "b/u", File: "f", Offset: 7, Detail: "it is cut"}).Error(), "backup b/u: file f at byte 7 is damaged: it is cut (run \"kedge backup verify --deep\" to see how far it goes, and use another backup or an undamaged copy of the bucket)"},
		{(&DamageError{File: "kedge.json", Offset: -1, Detail: "it is cut", Err: errShort, Remedy: "mend it"}).Error(), "file kedge.json is damaged: it is cut: the file is shorter than its record says (mend it)"},
		{(&AmbiguousError{Name: "n", UIDs: []string{"a", "b"}}).Error(), `2 backups are called "n": name one by its uid: a, b`},
		{fmt.Sprint(Problem{"f", -1, "gone"}, "; ", Problem{"f", 3, "odd"}), "f: gone; f at byte 3: odd"},
	} {
		if c.got != c.want {
			t.Errorf("%q\nwant %q", c.got, c.want)
		}
	}
}
