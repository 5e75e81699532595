package rawjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestMembers(t *testing.T) {
	var many strings.Builder
	many.WriteByte('{')
	for i := range 40 {
		fmt.Fprintf(&many, `"k%d":%d,`, i, i)
	}
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"empty", `{}`, true},
		{"nested", ` { "a" : {"b":[1,2,"x"]}, "c":null } `, true},
		{"escaped key", `{"\u0061":1}`, true},
		{"twice", `{"a":1,"\u0061":2}`, false},
		{"twice, late", many.String() + `"k39":1}`, false},
		{"many", many.String() + `"k40":1}`, true},
		{"not an object", `[]`, false},
		{"cut", `{"a":`, false},
		{"more behind", `{} {}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string]any{}
			err := Members([]byte(c.in), func(key string, value []byte) error {
				var v any
				if err := json.Unmarshal(value, &v); err != nil {
					t.Errorf("value of %q: %v", key, err)
				}
				got[key] = v
				return nil
			})
			if (err == nil) != c.ok {
				t.Fatalf("got %v, want ok %v", err, c.ok)
			}
			if !c.ok {
				if !errors.Is(err, ErrSyntax) {
					t.Errorf("%v is no ErrSyntax", err)
				}
				return
			}
			var want map[string]any
			if err := json.Unmarshal([]byte(c.in), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestElements(t *testing.T) {
	var got []string
	err := Elements([]byte(` [ 1, {"a":[2]} ,"x"] `), func(v []byte) error {
		got = append(got, string(v))
		return nil
	})
	if err != nil || !reflect.DeepEqual(got, []string{"1", `{"a":[2]}`, `"x"`}) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := Elements([]byte(`{}`), func([]byte) error { return nil }); !errors.Is(err, ErrSyntax) {
		t.Errorf("an object passed as an array: %v", err)
	}
}
