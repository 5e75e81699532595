package pbjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"kedge.dev/kedge/internal/rawjson"
)

// proto is what the types of k8s.io/api can do.
type proto interface {
	Marshal() ([]byte, error)
	Unmarshal(data []byte) error
}

// persistent gives every kind that has lists, with its Go type.
func persistent() map[schema.GroupVersionKind]reflect.Type {
	out := map[schema.GroupVersionKind]reflect.Type{}
	known := scheme.Scheme.AllKnownTypes()
	for gvk, t := range known {
		list := gvk
		list.Kind += "List"
		if lt, ok := known[list]; ok && strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
			if items, ok := lt.FieldByName("Items"); ok && items.Type.Kind() == reflect.Slice && items.Type.Elem() == t {
				out[gvk] = t
			}
		}
	}
	return out
}

// withoutTable are the kinds that are asked for as JSON, and why.
var withoutTable = map[string]string{
	"CertificateSigningRequest": "ExtraValue is a list that is a message",
	"StatefulSet":               "its claims have an apiVersion and a kind in JSON",
	"Workload":                  "its groups hold groups",
}

// TestTables makes sure that no kind lost its table: what a cluster has most of would be read the slow way without a word.
func TestTables(t *testing.T) {
	kinds := persistent()
	if len(kinds) < 100 {
		t.Fatalf("only %d kinds", len(kinds))
	}
	for gvk, typ := range kinds {
		_, err := Of(typ)
		reason, expected := withoutTable[gvk.Kind]
		if (err != nil) != expected {
			t.Errorf("%s: %v (%s)", gvk, err, reason)
		}
	}
}

// TestSameAsJSON writes objects of every kind in both encodings: the JSON made from the one is, byte for byte, the other.
func TestSameAsJSON(t *testing.T) {
	for gvk, typ := range persistent() {
		table, err := Of(typ)
		if err != nil {
			continue // TestTables says which may be
		}
		k := &Kind{Type: table, Kind: gvk.Kind}
		k.APIVersion, _ = gvk.ToAPIVersionAndKind()
		f := filler{rand.New(rand.NewPCG(uint64(len(gvk.String())), 5))}
		for range rounds() {
			checkSame(t, k, typ, f)
		}
	}
}

func rounds() int {
	if testing.Short() {
		return 20
	}
	return 60
}

func checkSame(t *testing.T, k *Kind, typ reflect.Type, f filler) {
	t.Helper()
	filled := reflect.New(typ)
	f.fill(filled.Elem(), 0)
	wire, err := filled.Interface().(proto).Marshal()
	if err != nil {
		t.Fatal(k.Kind, err)
	}
	stored := reflect.New(typ).Interface().(proto)
	if err := stored.Unmarshal(wire); err != nil { // what a server has in memory after it has read its etcd
		t.Fatal(k.Kind, err)
	}
	plain, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(k.Kind, err)
	}
	want, err := rawjson.WithTypeMeta(nil, plain, k.APIVersion, k.Kind)
	if err != nil {
		t.Fatal(k.Kind, err)
	}
	wantHead, headErr := rawjson.ReadHead(want)
	var s Splitter
	got := 0
	_, err = s.SplitHeads(bytes.NewReader(listOf(k, wire)), k, func(head *rawjson.Head, raw []byte, err error) error {
		got++
		if err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%s: %v\n got %s\nwant %s", k.Kind, err, raw, want)
		}
		if headErr == nil && !reflect.DeepEqual(*head, wantHead) {
			t.Errorf("%s:\n got %+v\nwant %+v", k.Kind, *head, wantHead)
		}
		return nil
	})
	if err != nil || got != 1 {
		t.Errorf("%s: %d items, %v", k.Kind, got, err)
	}
}

// delimited appends a length-delimited field.
func delimited(dst []byte, num int, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(num)<<3|wireBytes)
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// listOf is a list as a server sends it.
func listOf(k *Kind, items ...[]byte) []byte {
	remaining := int64(7)
	meta, err := (&metav1.ListMeta{ResourceVersion: "4711", Continue: "more", RemainingItemCount: &remaining}).Marshal()
	if err != nil {
		panic(err)
	}
	list := delimited(nil, listMetadata, meta)
	for _, item := range items {
		list = delimited(list, listItems, item)
	}
	typeMeta := delimited(delimited(nil, typeAPIVersion, []byte(k.APIVersion)), typeKind, []byte(k.Kind+"List"))
	out := delimited([]byte(magic), unknownTypeMeta, typeMeta)
	out = delimited(out, unknownRaw, list)
	return delimited(delimited(out, unknownEncoding, nil), unknownType, nil)
}

func configMaps(t testing.TB) *Kind {
	t.Helper()
	table, err := Of(reflect.TypeFor[corev1.ConfigMap]())
	if err != nil {
		t.Fatal(err)
	}
	return &Kind{Type: table, APIVersion: "v1", Kind: "ConfigMap"}
}

func marshal(t testing.TB, p interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func small(t testing.TB) []byte {
	t.Helper()
	return marshal(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y", "z": ""}}, Data: map[string]string{"k": "v", "l": "w"}})
}

func TestListHead(t *testing.T) {
	k := configMaps(t)
	var s Splitter
	names := ""
	head, err := s.SplitHeads(bytes.NewReader(listOf(k, small(t), small(t))), k, func(h *rawjson.Head, _ []byte, _ error) error {
		names += h.Name
		return nil
	})
	if err != nil || names != "aa" {
		t.Fatalf("%q, %v", names, err)
	}
	remaining := int64(7)
	want := rawjson.ListHead{APIVersion: "v1", Kind: "ConfigMapList", ResourceVersion: "4711", Continue: "more", RemainingItemCount: &remaining, Items: 2}
	if !reflect.DeepEqual(head, want) {
		t.Errorf("%+v", head)
	}
}

// TestRefuses has what no table may pass over.
func TestRefuses(t *testing.T) {
	k := configMaps(t)
	item := small(t)
	meta := marshal(t, &metav1.ObjectMeta{Name: "a"})
	for name, list := range map[string][]byte{
		"a field of a newer server":             listOf(k, delimited(item, 9, []byte("x"))),
		"an empty field of a newer server":      listOf(k, delimited(item, 9, nil)),
		"a number of a newer server":            listOf(k, append(bytes.Clone(item), 9<<3, 0)),
		"another wire type":                     listOf(k, append(bytes.Clone(item), 4<<3|1, 0, 0, 0, 0, 0, 0, 0, 0)),
		"metadata twice":                        listOf(k, delimited(item, 1, meta)),
		"a map in two places":                   listOf(k, delimited(delimited(delimited(nil, 2, []byte("\x0a\x01a")), 3, []byte("\x0a\x01a")), 2, []byte("\x0a\x01b"))),
		"a map's keys out of order":             listOf(k, delimited(delimited(nil, 2, []byte("\x0a\x01b")), 2, []byte("\x0a\x01a"))),
		"a key twice":                           listOf(k, delimited(delimited(nil, 2, []byte("\x0a\x01b")), 2, []byte("\x0a\x01b"))),
		"a third field of an entry":             listOf(k, delimited(nil, 2, []byte("\x1a\x01b"))),
		"a cluster's name":                      listOf(k, delimited(nil, 1, delimited(nil, 15, []byte("east")))),
		"raw JSON that is none":                 listOf(k, delimited(nil, 1, delimited(nil, 17, delimited(nil, 7, delimited(nil, 1, []byte("{]")))))),
		"an item whose field is cut off":        listOf(k, item[:len(item)-1]),
		"a string that is no UTF-8":             listOf(k, delimited(nil, 1, marshal(t, &metav1.ObjectMeta{Name: "a\xff"}))),
		"a key that is no UTF-8":                listOf(k, delimited(nil, 2, []byte("\x0a\x01\xff"))),
		"another kind":                          listOf(&Kind{APIVersion: "v1", Kind: "Secret"}, item),
		"no magic":                              append([]byte("{\"k\""), listOf(k)...),
		"a list before its type":                delimited([]byte(magic), unknownRaw, nil),
		"two lists":                             delimited(listOf(k), unknownRaw, nil),
		"a list that is compressed":             delimited(listOf(k)[:len(listOf(k))-4], unknownEncoding, []byte("gzip")),
		"an item that is longer than its list":  delimited(delimited([]byte(magic), unknownTypeMeta, []byte("\x0a\x02v1\x12\x0dConfigMapList")), unknownRaw, []byte{2<<3 | 2, 100, 0}),
		"a length of eleven bytes":              append([]byte(magic), append([]byte{unknownTypeMeta<<3 | 2}, bytes.Repeat([]byte{0xff}, 11)...)...),
		"a field number that is zero":           append([]byte(magic), 2, 0),
		"a list with a field that lists do not": delimited(delimited([]byte(magic), unknownTypeMeta, []byte("\x0a\x02v1\x12\x0dConfigMapList")), unknownRaw, delimited(nil, 3, nil)),
	} {
		var s Splitter
		_, err := s.SplitHeads(bytes.NewReader(list), k, func(*rawjson.Head, []byte, error) error { return nil })
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefusesHalves has messages of kinds with more in them: values of their own, and fields that are always there. What is whole is taken.
func TestRefusesHalves(t *testing.T) {
	services, err := Of(reflect.TypeFor[corev1.Service]())
	if err != nil {
		t.Fatal(err)
	}
	claims, err := Of(reflect.TypeFor[corev1.ResourceQuota]())
	if err != nil {
		t.Fatal(err)
	}
	meta, status := delimited(nil, 1, marshal(t, &metav1.ObjectMeta{Name: "a"})), delimited(nil, 3, delimited(nil, 1, nil))
	port := func(target []byte) []byte {
		return append(delimited(delimited([]byte{3 << 3, 80, 5 << 3, 0}, 1, nil), 2, nil), delimited(nil, 4, target)...)
	}
	number := []byte{1 << 3, 0, 2 << 3, 80, 3<<3 | 2, 0}
	quota := func(quantity []byte) []byte {
		return slices.Concat(meta, delimited(nil, 2, delimited(nil, 1, delimited(delimited(nil, 1, []byte("cpu")), 2, quantity))), delimited(nil, 3, nil))
	}
	one := delimited(nil, 1, []byte("1"))
	for name, c := range map[string]struct {
		table *Type
		item  []byte
		taken bool
	}{
		"a port":                              {services, slices.Concat(meta, delimited(nil, 2, delimited(nil, 1, port(number))), status), true},
		"a port with a field of tomorrow":     {services, slices.Concat(meta, delimited(nil, 2, delimited(nil, 1, port(append(bytes.Clone(number), 4<<3, 1)))), status), false},
		"a port without a number":             {services, slices.Concat(meta, delimited(nil, 2, delimited(nil, 1, delimited(nil, 1, []byte("http")))), status), false},
		"a quantity":                          {claims, quota(one), true},
		"a quantity with a field of tomorrow": {claims, quota(delimited(bytes.Clone(one), 2, nil)), false},
	} {
		k := &Kind{Type: c.table, APIVersion: "v1", Kind: "X"}
		var s Splitter
		_, err := s.SplitHeads(bytes.NewReader(listOf(k, c.item)), k, func(_ *rawjson.Head, raw []byte, _ error) error {
			if !c.taken {
				t.Errorf("%s: %s", name, raw)
			}
			return nil
		})
		if errors.Is(err, ErrUnsupported) == c.taken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTakesWhatOldServersSend(t *testing.T) {
	k := configMaps(t)
	item := delimited(nil, 1, delimited(marshal(t, &metav1.ObjectMeta{Name: "a"}), 15, nil))
	var s Splitter
	_, err := s.SplitHeads(bytes.NewReader(listOf(k, item)), k, func(_ *rawjson.Head, raw []byte, _ error) error {
		if want := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`; string(raw) != want {
			t.Errorf("%s", raw)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCutOff cuts a list at every byte: what was given before counts, and the end is missed.
func TestCutOff(t *testing.T) {
	k := configMaps(t)
	whole := listOf(k, small(t), small(t))
	end := len(whole) - 4 // behind the list stand two empty fields of the envelope
	for n := range len(whole) {
		var s Splitter
		_, err := s.SplitHeads(bytes.NewReader(whole[:n]), k, func(*rawjson.Head, []byte, error) error { return nil })
		if n < end && !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrUnsupported) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func TestBounds(t *testing.T) {
	k := configMaps(t)
	big := marshal(t, &corev1.ConfigMap{Data: map[string]string{"k": strings.Repeat("\x01", 1000)}})
	for _, limit := range []int{100, 2000} { // of the message, and of its JSON, which is six times as long
		s := Splitter{MaxItem: limit}
		_, err := s.SplitHeads(bytes.NewReader(listOf(k, big)), k, func(*rawjson.Head, []byte, error) error { return nil })
		if !errors.Is(err, rawjson.ErrTooLarge) {
			t.Errorf("at most %d: %v", limit, err)
		}
	}
	mine := errors.New("mine")
	var s Splitter
	if _, err := s.SplitHeads(bytes.NewReader(listOf(k, big)), k, func(*rawjson.Head, []byte, error) error { return mine }); err != mine { //nolint:errorlint // it is returned as it is
		t.Errorf("%v", err)
	}
}

// FuzzItem takes any bytes for an object: none panics, and what is taken is JSON, with the head that its JSON has.
func FuzzItem(f *testing.F) {
	f.Add(small(f))
	pod := &corev1.Pod{}
	filler{rand.New(rand.NewPCG(1, 2))}.fill(reflect.ValueOf(pod).Elem(), 0)
	f.Add(marshal(f, pod))
	table, err := Of(reflect.TypeFor[corev1.Pod]())
	if err != nil {
		f.Fatal(err)
	}
	kinds := []*Kind{configMaps(f), {Type: table, APIVersion: "v1", Kind: "Pod"}}
	f.Fuzz(func(t *testing.T, item []byte) {
		for _, k := range kinds {
			s := Splitter{MaxItem: 1 << 20}
			_, err := s.SplitHeads(bytes.NewReader(listOf(k, item)), k, func(head *rawjson.Head, raw []byte, _ error) error {
				if !json.Valid(raw) {
					t.Errorf("no JSON: %s", raw)
				}
				if read, err := rawjson.ReadHead(raw); err == nil && read.Name != head.Name && json.Valid([]byte(read.Name)) {
					t.Errorf("name %q and %q", head.Name, read.Name)
				}
				return nil
			})
			if err != nil && !errors.Is(err, ErrUnsupported) && !errors.Is(err, rawjson.ErrTooLarge) {
				t.Errorf("%v", err)
			}
		}
	})
}

// FuzzList takes any bytes for an answer.
func FuzzList(f *testing.F) {
	k := configMaps(f)
	f.Add(listOf(k, small(f), small(f)))
	f.Fuzz(func(t *testing.T, list []byte) {
		_, _ = Status(list)
		s := Splitter{MaxItem: 1 << 20}
		_, err := s.SplitHeads(bytes.NewReader(list), k, func(*rawjson.Head, []byte, error) error { return nil })
		if err != nil && !errors.Is(err, ErrUnsupported) && !errors.Is(err, rawjson.ErrTooLarge) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v", err)
		}
	})
}

// BenchmarkSplitHeads is one page of the size that lists ask for; bytes are those of the JSON.
func BenchmarkSplitHeads(b *testing.B) {
	table, err := Of(reflect.TypeFor[corev1.Pod]())
	if err != nil {
		b.Fatal(err)
	}
	k := &Kind{Type: table, APIVersion: "v1", Kind: "Pod"}
	f := filler{rand.New(rand.NewPCG(3, 4))}
	items := make([][]byte, 0, 100)
	for range cap(items) {
		pod := &corev1.Pod{}
		f.fill(reflect.ValueOf(pod).Elem(), 0)
		items = append(items, marshal(b, pod))
	}
	list := listOf(k, items...)
	var s Splitter
	var size int64
	for b.Loop() {
		size = 0
		_, err := s.SplitHeads(bytes.NewReader(list), k, func(_ *rawjson.Head, raw []byte, _ error) error {
			size += int64(len(raw))
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
}
