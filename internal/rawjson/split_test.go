package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		items    []string
		head     ListHead
		err      error
	}{
		{"typed", `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"abc"},"items":[{"a":1},{"b":"}]"}]}` + "\n",
			[]string{`{"a":1}`, `{"b":"}]"}`}, ListHead{APIVersion: "v1", Kind: "PodList", ResourceVersion: "7", Continue: "abc", Items: 2}, nil},
		{"metadata after the items", `{"apiVersion":"a/v1","items":[{"x":"\"{"}],"kind":"AList","metadata":{"resourceVersion":"9"}}`,
			[]string{`{"x":"\"{"}`}, ListHead{APIVersion: "a/v1", Kind: "AList", ResourceVersion: "9", Items: 1}, nil},
		{"no items", `{"items":[],"metadata":{}}`, nil, ListHead{}, nil},
		{"null items", ` { "items" : null } `, nil, ListHead{}, nil},
		{"empty", `{}`, nil, ListHead{}, nil},
		{"spaces", "{ \"items\" : [ {\"a\": 1} ,\n {} ] }", []string{`{"a": 1}`, `{}`}, ListHead{Items: 2}, nil},
		{"escapes", `{"items":[{"a":"\\"},{"b":"\\\""}]}`, []string{`{"a":"\\"}`, `{"b":"\\\""}`}, ListHead{Items: 2}, nil},
		{"cut in an item", `{"items":[{"a":1},{"b":`, []string{`{"a":1}`}, ListHead{Items: 1}, io.ErrUnexpectedEOF},
		{"cut after the items", `{"items":[{"a":1}]`, []string{`{"a":1}`}, ListHead{Items: 1}, io.ErrUnexpectedEOF},
		{"nothing", ``, nil, ListHead{}, io.ErrUnexpectedEOF},
		{"not a list", `[]`, nil, ListHead{}, ErrSyntax},
		{"an item that is no object", `{"items":[1]}`, nil, ListHead{}, ErrSyntax},
		{"items twice", `{"items":[],"items":[]}`, nil, ListHead{}, ErrSyntax},
		{"something behind", `{"items":[]}x`, nil, ListHead{}, ErrSyntax},
		{"no comma", `{"items":[{}{}]}`, []string{`{}`}, ListHead{Items: 1}, ErrSyntax},
		{"too large", `{"items":[{"a":"` + strings.Repeat("x", 300) + `"}]}`, nil, ListHead{}, ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, reader := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
				var items []string
				s := Splitter{MaxItem: 200, buf: make([]byte, 16)}
				head, err := s.Split(reader, func(raw []byte) error { items = append(items, string(raw)); return nil })
				if !errors.Is(err, c.err) || (c.err == nil && err != nil) {
					t.Fatalf("error %v, want %v", err, c.err)
				}
				if strings.Join(items, "\n") != strings.Join(c.items, "\n") {
					t.Errorf("items %q, want %q", items, c.items)
				}
				if err == nil && head != c.head {
					t.Errorf("head %+v, want %+v", head, c.head)
				}
			}
		})
	}
}

func TestSplitStopsAtTheCallersError(t *testing.T) {
	stop := errors.New("stop")
	var s Splitter
	_, err := s.Split(strings.NewReader(`{"items":[{},{}]}`), func([]byte) error { return stop })
	if err != stop { //nolint:errorlint // the very same error comes back
		t.Fatalf("error %v", err)
	}
}

// TestSplitHeads cuts the text at every byte between two reads: heads, bytes and errors are those of ReadHead.
func TestSplitHeads(t *testing.T) {
	objects := []string{
		sampleObject, `{}`, `{"metadata":{"name":"\u00e9\\"},"a":[true,false,null,-1.5e3]}`, `{"metadata":{"name":"x","name":"y"}}`, `{"a":nul}`, `{"metadata":{"labels":{"a":"b"}}}`,
	}
	list := `{"kind":"L","items":[` + strings.Join(objects, ",") + `],"metadata":{"resourceVersion":"1"}}`
	for cut := range len(list) {
		s := Splitter{buf: make([]byte, 32)}
		n := 0
		head, err := s.SplitHeads(io.MultiReader(strings.NewReader(list[:cut]), strings.NewReader(list[cut:])), func(head *Head, raw []byte, bad error) error {
			want, wantErr := ReadHead([]byte(objects[n]))
			if string(raw) != objects[n] || (bad == nil) != (wantErr == nil) || (bad == nil && !cmp.Equal(*head, want)) {
				t.Errorf("cut %d, item %d: %s, %v", cut, n, raw, bad)
			}
			n++
			return nil
		})
		if err != nil || n != len(objects) || head.ResourceVersion != "1" || head.Items != n {
			t.Fatalf("cut %d: %d items, %+v, %v", cut, n, head, err)
		}
	}
	var s Splitter
	if _, err := s.SplitHeads(strings.NewReader(list[:len(list)/2]), func(*Head, []byte, error) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	s.MaxItem = 100
	if _, err := s.SplitHeads(strings.NewReader(list), func(*Head, []byte, error) error { return nil }); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

// FuzzSplit holds the splitter against encoding/json: whatever that accepts as a list of objects gives the same items.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		`{"kind":"L","items":[{"a":[1,2,{"b":"\u0041\\\""}]},{}],"metadata":{"resourceVersion":"1"}}`,
		`{"items":null}`, `{"items":[{"metadata":{"name":"x"}}],"x":-1.5e3}`, `{"items":[]}`, `{"items":[{"a":"` + "\x00" + `"}]}`, `{"a":1,"items":[{}] , "b":true}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var items [][]byte
		s := Splitter{buf: make([]byte, 16)}
		_, err := s.Split(iotest.HalfReader(bytes.NewReader(in)), func(raw []byte) error {
			items = append(items, bytes.Clone(raw))
			return nil
		})
		var want map[string]json.RawMessage
		if json.Unmarshal(in, &want) != nil || want == nil {
			return
		}
		var elems []json.RawMessage
		if raw, ok := want["items"]; ok && json.Unmarshal(raw, &elems) != nil {
			return
		}
		for _, e := range elems {
			if e[0] != '{' {
				return
			}
		}
		if err != nil {
			if errors.Is(err, ErrSyntax) {
				return // stricter by intent: two items fields, an envelope of another shape
			}
			t.Fatalf("refused %q: %v", in, err)
		}
		if len(items) != len(elems) {
			t.Fatalf("%d items of %q, want %d", len(items), in, len(elems))
		}
		n := 0
		heads := Splitter{buf: make([]byte, 16)}
		_, err = heads.SplitHeads(iotest.HalfReader(bytes.NewReader(in)), func(_ *Head, raw []byte, bad error) error {
			if _, err := ReadHead(items[n]); !bytes.Equal(raw, items[n]) || (bad == nil) != (err == nil) {
				t.Fatalf("item %d of %q: %q with %v and without %v", n, in, raw, bad, err)
			}
			n++
			return nil
		})
		if err != nil {
			t.Fatalf("with heads %q is refused: %v", in, err)
		}
		for i, e := range elems {
			if !bytes.Equal(items[i], e) {
				t.Fatalf("item %d is %q, want %q", i, items[i], e)
			}
		}
	})
}

func sampleList(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"kind":"DeploymentList","apiVersion":"apps/v1","metadata":{"resourceVersion":"12"},"items":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(sampleObject)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func BenchmarkSplitHeads(b *testing.B) {
	list := sampleList(1000)
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	var s Splitter
	for b.Loop() {
		if _, err := s.SplitHeads(bytes.NewReader(list), func(_ *Head, _ []byte, err error) error { return err }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	list := sampleList(1000)
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	var s Splitter
	for b.Loop() {
		if _, err := s.Split(bytes.NewReader(list), func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
