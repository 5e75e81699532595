package pbjson

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Type is how one Go type looks in both encodings. It is made once and read by many goroutines.
type Type struct {
	name   string
	fields []field // in the order of the JSON
	byNum  []int16 // index into fields by the number of the field, plus one
	past   []int32 // numbers that older servers send with nothing in them
	object bool    // it has an apiVersion and a kind, which protobuf does not have
}

// field is one field of a message.
type field struct {
	num      int32
	key      string // `"name":`; empty for what has its fields in place
	kind     kind
	value    kind  // of the values of a map
	msg      *Type // of kindMessage, and of a map's values
	leaf     leaf  // of kindLeaf, and of a map's values
	repeated bool
	pointer  bool
	omit     bool // left out where it is empty
	omitZero bool // a leaf that is left out where it is zero
}

type kind uint8

const (
	kindString kind = iota
	kindBytes
	kindBool
	kindInt
	kindMessage
	kindInline // a message whose fields stand in the JSON of the one that has it
	kindLeaf   // a message that is one JSON value
	kindMap
)

// leaf writes one message as one JSON value.
type leaf func(dst, msg []byte) ([]byte, error)

// leaves are the types that write their JSON themselves.
var leaves = map[reflect.Type]leaf{
	reflect.TypeFor[metav1.Time]():          appendTime,
	reflect.TypeFor[metav1.MicroTime]():     decoded[metav1.MicroTime](2),
	reflect.TypeFor[metav1.Duration]():      decoded[metav1.Duration](1),
	reflect.TypeFor[resource.Quantity]():    appendQuantity,
	reflect.TypeFor[intstr.IntOrString]():   decoded[intstr.IntOrString](3),
	reflect.TypeFor[metav1.FieldsV1]():      appendRaw,
	reflect.TypeFor[runtime.RawExtension](): appendRaw,
}

// past names fields that types once had: older servers send them empty.
var past = map[reflect.Type][]int32{
	reflect.TypeFor[metav1.ObjectMeta](): {15}, // clusterName, gone since 1.24
}

var types sync.Map // reflect.Type to *Type or error

// Of makes the table of a struct type. The error says which field has no place in it.
func Of(t reflect.Type) (*Type, error) { return build(t, nil) }

// build gives a type's table, which is made once; above are the types that it is part of.
func build(t reflect.Type, above []reflect.Type) (*Type, error) {
	if known, ok := types.Load(t); ok {
		if err, failed := known.(error); failed {
			return nil, err
		}
		return known.(*Type), nil //nolint:forcetypeassert // it holds nothing else
	}
	if slices.Contains(above, t) {
		return nil, fmt.Errorf("%s holds itself", t)
	}
	made, err := table(t, append(slices.Clip(above), t))
	if err != nil {
		types.Store(t, err)
		return nil, err
	}
	types.Store(t, made)
	return made, nil
}

func table(t reflect.Type, above []reflect.Type) (*Type, error) {
	out := &Type{name: t.String(), past: past[t]}
	for sf := range t.Fields() {
		f, ok, err := fieldOf(sf, above)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, sf.Name, err)
		}
		out.object = out.object || !ok
		if ok {
			out.fields = append(out.fields, f)
		}
	}
	return out, out.number()
}

// number makes the index by number, and refuses what stands twice.
func (t *Type) number() error {
	keys := map[string]bool{}
	for i, f := range t.fields {
		for _, key := range f.keys() {
			if keys[key] {
				return fmt.Errorf("%s has two fields %s", t.name, key)
			}
			keys[key] = true
		}
		if f.num < 1 || f.num > 1000 {
			return fmt.Errorf("%s: field number %d", t.name, f.num)
		}
		for int(f.num) >= len(t.byNum) {
			t.byNum = append(t.byNum, 0)
		}
		if t.byNum[f.num] != 0 {
			return fmt.Errorf("%s has two fields %d", t.name, f.num)
		}
		t.byNum[f.num] = int16(i + 1)
	}
	return nil
}

func (f *field) keys() []string {
	if f.kind != kindInline {
		return []string{f.key}
	}
	var out []string
	for _, inner := range f.msg.fields {
		out = append(out, inner.keys()...)
	}
	return out
}

// fieldOf reads the tags of one field; ok is false for one that is in neither encoding.
func fieldOf(sf reflect.StructField, above []reflect.Type) (f field, ok bool, err error) {
	pb, hasNum := sf.Tag.Lookup("protobuf")
	name, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
	inline := sf.Anonymous && name == ""
	switch {
	case inline && sf.Type == reflect.TypeFor[metav1.TypeMeta](): // the items of a list have none
		return field{}, false, nil
	case !hasNum || pb == "-" || name == "-" || !sf.IsExported() || name == "" && !inline:
		return field{}, false, fmt.Errorf("its tags are %q", sf.Tag)
	}
	words := strings.Split(pb, ",")
	num, err := strconv.ParseInt(words[1], 10, 32)
	if err != nil {
		return field{}, false, fmt.Errorf("its tags are %q", sf.Tag)
	}
	f = field{num: int32(num)}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			f.omit = true
		case "omitzero":
			f.omitZero = true
		case "", "inline":
		default:
			return field{}, false, fmt.Errorf("its tags are %q", sf.Tag)
		}
	}
	if !inline {
		f.key = `"` + name + `":`
	}
	return f, true, f.of(sf.Type, inline, above)
}

// of sets what follows from the field's Go type.
func (f *field) of(t reflect.Type, inline bool, above []reflect.Type) (err error) {
	switch {
	case t.Kind() == reflect.Map:
		f.kind, f.repeated = kindMap, true
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("a map by %s", t.Key())
		}
		f.value, f.msg, f.leaf, err = single(t.Elem(), above)
		return err
	case t.Kind() == reflect.Pointer:
		f.pointer = true
		t = t.Elem()
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8: // whatever the tag says: it is sometimes wrong
		f.repeated = true
		f.kind, f.msg, f.leaf, err = single(t.Elem(), above)
		return err
	}
	f.kind, f.msg, f.leaf, err = single(t, above)
	if err == nil && inline {
		if f.kind != kindMessage || f.pointer {
			return fmt.Errorf("%s stands in place", t)
		}
		f.kind = kindInline
	}
	if err == nil && f.omitZero && (f.kind != kindLeaf || f.pointer) {
		return fmt.Errorf("%s is left out where it is zero", t)
	}
	return err
}

// single is the kind of one value.
func single(t reflect.Type, above []reflect.Type) (kind, *Type, leaf, error) {
	if l, ok := leaves[t]; ok {
		return kindLeaf, nil, l, nil
	}
	for _, own := range []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()} {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return 0, nil, nil, fmt.Errorf("%s has a JSON of its own", t)
		}
	}
	switch t.Kind() { //nolint:exhaustive // the other kinds are in no message
	case reflect.String:
		return kindString, nil, nil, nil
	case reflect.Bool:
		return kindBool, nil, nil, nil
	case reflect.Int32, reflect.Int64:
		return kindInt, nil, nil, nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return kindBytes, nil, nil, nil
		}
	case reflect.Struct:
		m, err := build(t, above)
		if err == nil && m.object {
			err = fmt.Errorf("%s may have an apiVersion and a kind", t)
		}
		return kindMessage, m, nil, err
	}
	return 0, nil, nil, fmt.Errorf("no value of %s is known", t)
}
