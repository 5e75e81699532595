package pbjson

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler fills objects with values of every shape that a server may store.
type filler struct{ *rand.Rand }

var words = []string{"", "a", "kedge.dev/name", "two words", "<a href=\"x\">&amp;</a>", "tab\tline\nquote\"back\\slash", "\x01\x1f\x7f", "grüße 世界 🚢", "\u2028\u2029", "ends\u00e2", "{}"}

func (f filler) text() string { return words[f.IntN(len(words))] }

var raws = []string{"{}", `{"f:metadata":{"f:labels":{".":{},"f:app":{}}}}`, `{"k:{\"name\":\"a b<&>\"}":{".":{}}}`, `{"x": [1, 2.5e3, null, true], "y":"é"}`, `"text"`, "null"}

func (f filler) raw() []byte { return []byte(raws[f.IntN(len(raws))]) }

func (f filler) fill(v reflect.Value, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		if f.IntN(4) > 0 {
			p.Time = time.Unix(f.Int64N(4e9)-1e9, 0)
		}
		return
	case *metav1.MicroTime:
		if f.IntN(4) > 0 {
			p.Time = time.UnixMicro(f.Int64N(4e15))
		}
		return
	case *metav1.Duration:
		p.Duration = time.Duration(f.Int64N(1e13))
		return
	case *resource.Quantity:
		*p = resource.MustParse([]string{"0", "500m", "1Gi", "1.5", "100k", "3e3", "-7", "1Ti"}[f.IntN(8)])
		return
	case *intstr.IntOrString:
		*p = []intstr.IntOrString{intstr.FromInt32(0), intstr.FromInt32(8080), intstr.FromString("http"), intstr.FromString("25%")}[f.IntN(4)]
		return
	case *metav1.FieldsV1:
		p.SetRawBytes(f.raw())
		return
	case *runtime.RawExtension:
		if f.IntN(4) > 0 {
			p.Raw = f.raw()
		}
		return
	case *metav1.TypeMeta:
		return
	}
	f.kind(v, depth)
}

func (f filler) kind(v reflect.Value, depth int) {
	rare := f.IntN(3) == 0 || depth > 14 // nothing of what may be nothing
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int32:
		v.SetInt(int64(int32(f.Uint32()) >> f.IntN(32)))
	case reflect.Int64, reflect.Int:
		v.SetInt(int64(f.Uint64()) >> f.IntN(64))
	case reflect.Uint8:
		v.SetUint(f.Uint64N(256))
	case reflect.Pointer:
		if !rare {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if rare {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), f.IntN(4), 4))
		for i := range v.Len() {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		if rare {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range f.IntN(4) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key, depth+1)
			f.fill(value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.fill(field, depth+1)
		}
	default:
		panic(fmt.Sprintf("fill %s", v.Type()))
	}
}
