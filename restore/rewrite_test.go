package restore

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/actions"
)

const archived = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"7",` +
	`"creationTimestamp":"2026-01-01T00:00:00Z","generation":2,"selfLink":"/x","labels":{"a":"b"},"annotations":{"k":"\u0041\"<"},` +
	`"finalizers":["example.com/keep","foregroundDeletion"],"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u1"}],` +
	`"managedFields":[{"manager":"m","operation":"Apply"}]},"data":{"n":"1e3"},"big":12345678901234567890,"status":{"x":1}}`

func TestRewrite(t *testing.T) {
	rw := rewriting{ref: plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: "n", Name: "a"}, kind: "ConfigMap", dropStatus: true}
	rw.relink = func(raw []byte) ([]byte, error) {
		return bytes.ReplaceAll(raw, []byte(`"u1"`), []byte(`"new"`)), nil
	}
	got, err := rw.rewrite(nil, []byte(archived))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"n","labels":{"a":"b"},"annotations":{"k":"\u0041\"<"},` +
		`"finalizers":["example.com/keep"],"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"new"}]},"data":{"n":"1e3"},"big":12345678901234567890}`
	if string(got.body) != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
	if string(got.status) != `{"x":1}` || string(got.managed) != `[{"manager":"m","operation":"Apply"}]` || got.deleting {
		t.Errorf("found %q %q %v", got.status, got.managed, got.deleting)
	}
	if !json.Valid(got.body) {
		t.Error("the result is no JSON")
	}
}

func TestRewriteRefuses(t *testing.T) {
	rw := rewriting{ref: plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: "n", Name: "a"}, kind: "ConfigMap"}
	for name, in := range map[string]string{
		"another name":        strings.Replace(archived, `"name":"a"`, `"name":"b"`, 1),
		"another namespace":   strings.Replace(archived, `"namespace":"n"`, `"namespace":"kube-system"`, 1),
		"another kind":        strings.Replace(archived, `"kind":"ConfigMap"`, `"kind":"Secret"`, 1),
		"another version":     strings.Replace(archived, `"apiVersion":"v1"`, `"apiVersion":"v2"`, 1),
		"two names":           strings.Replace(archived, `"name":"a"`, `"name":"a","name":"b"`, 1),
		"two metadata":        strings.Replace(archived, `"data":`, `"metadata":`, 1),
		"no metadata":         `{"apiVersion":"v1","kind":"ConfigMap"}`,
		"metadata is no map":  `{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}`,
		"cut":                 archived[:len(archived)-1],
		"finalizers no array": strings.Replace(archived, `["example.com/keep","foregroundDeletion"]`, `{}`, 1),
	} {
		if got, err := rw.rewrite(nil, []byte(in)); err == nil {
			t.Errorf("%s: accepted as %s", name, got.body)
		}
	}
}

// FuzzRewrite holds the bytes against a decoder: what is sent is the object less the server's fields, or nothing.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte(archived))
	f.Add([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"n"}}`))
	f.Add([]byte(` { "metadata" : { "namespace":"n", "name":"a", "deletionTimestamp":null } , "kind":"ConfigMap","apiVersion":"v1", "\u0061" : [1,2] } `))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rw := rewriting{ref: plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: "n", Name: "a"}, kind: "ConfigMap", dropStatus: true}
		got, err := rw.rewrite(nil, raw)
		if err != nil {
			return
		}
		var in, out map[string]any
		if err := json.Unmarshal(raw, &in); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if err := json.Unmarshal(got.body, &out); err != nil {
			t.Fatalf("%s is no JSON: %v", got.body, err)
		}
		meta := in["metadata"].(map[string]any)
		for _, field := range actions.ServerMetadata {
			delete(meta, field)
		}
		delete(meta, "finalizers")
		delete(out["metadata"].(map[string]any), "finalizers")
		delete(in, "status")
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("in  %v\nout %v", in, out)
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	rw := rewriting{ref: plugins.Ref{Version: "v1", Resource: "configmaps", Namespace: "n", Name: "a"}, kind: "ConfigMap", dropStatus: true}
	raw := []byte(strings.Replace(archived, `"n":"1e3"`, `"n":"`+strings.Repeat("x", 1500)+`"`, 1))
	buf := make([]byte, 0, 4096)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rw.rewrite(buf[:0], raw); err != nil {
			b.Fatal(err)
		}
	}
}
