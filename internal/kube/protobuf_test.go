package kube

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/rawjson"
)

var configMaps = Resource{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}

// delimited appends a length-delimited field.
func delimited(dst []byte, num int, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(num)<<3|2)
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// page is a page of ConfigMaps in protobuf. The object "new" has a field that no table knows.
func page(next string, names ...string) []byte {
	meta, err := (&metav1.ListMeta{ResourceVersion: "7", Continue: next}).Marshal()
	if err != nil {
		panic(err)
	}
	list := delimited(nil, 1, meta)
	for _, name := range names {
		item, err := (&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}).Marshal()
		if err != nil {
			panic(err)
		}
		if name == "new" {
			item = delimited(item, 99, []byte("of tomorrow"))
		}
		list = delimited(list, 2, item)
	}
	out := delimited([]byte("k8s\x00"), 1, delimited(delimited(nil, 1, []byte("v1")), 2, []byte("ConfigMapList")))
	return delimited(out, 2, list)
}

func jsonPage(next string, names ...string) string {
	items := make([]string, 0, len(names))
	for _, name := range names {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":%q},"json":true}`, name))
	}
	return fmt.Sprintf(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":%q},"items":[%s]}`, next, strings.Join(items, ","))
}

// TestListProtobuf lists three pages of which the second cannot be read in protobuf to its end: each object comes once, and what follows is read as
// JSON.
func TestListProtobuf(t *testing.T) {
	var accepts []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		accepts = append(accepts, r.URL.Query().Get("continue")+" "+r.Header.Get("Accept"))
		pages := map[string][]string{"": {"p2", "a", "b"}, "p2": {"p3", "c", "new", "d"}, "p3": {"", "e"}}
		p := pages[r.URL.Query().Get("continue")]
		if strings.HasPrefix(r.Header.Get("Accept"), protobufType) {
			w.Header().Set("Content-Type", protobufType)
			_, _ = w.Write(page(p[0], p[1:]...))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(jsonPage(p[0], p[1:]...)))
	})
	req := ListRequest{Path: configMaps.Path("", ""), ResourceVersion: "7", Exact: true, Protobuf: configMaps.Protobuf()}
	var got []string
	meta, err := c.ListHeads(t.Context(), req, func(head *rawjson.Head, raw []byte, err error) error {
		as := "protobuf"
		if strings.Contains(string(raw), `"json":true`) {
			as = "json"
		}
		got = append(got, head.Name+" "+as)
		return err
	})
	if err != nil || meta.Items < 6 || meta.Pages != 3 || !meta.FellBack {
		t.Fatalf("%+v, %v", meta, err)
	}
	if want := []string{"a protobuf", "b protobuf", "c protobuf", "new json", "d json", "e json"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if want := []string{" " + acceptProtobuf, "p2 " + acceptProtobuf, "p2 application/json", "p3 application/json"}; !slices.Equal(accepts, want) {
		t.Errorf("%q", accepts)
	}
}

// TestListProtobufRefused: a server refuses in protobuf too.
func TestListProtobufRefused(t *testing.T) {
	refusal := &metav1.Status{Status: metav1.StatusFailure, Code: 504, Message: "later", Reason: metav1.StatusReasonTimeout, Details: &metav1.StatusDetails{
		Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}},
	}}
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		raw, err := refusal.Marshal()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", protobufType)
		w.WriteHeader(http.StatusGatewayTimeout)
		_, _ = w.Write(delimited(delimited([]byte("k8s\x00"), 1, delimited(delimited(nil, 1, []byte("v1")), 2, []byte("Status"))), 2, raw))
	})
	req := ListRequest{Path: configMaps.Path("", ""), ResourceVersion: "7", Exact: true, Protobuf: configMaps.Protobuf()}
	_, err := c.ListHeads(t.Context(), req, func(*rawjson.Head, []byte, error) error { return nil })
	if !errors.Is(err, ErrRevisionGone) || !strings.Contains(err.Error(), "later") {
		t.Errorf("%v", err)
	}
}

// TestListProtobufOnlyOfARevision: an unpinned page cannot be read again.
func TestListProtobufOnlyOfARevision(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept"); got != "application/json" {
			t.Errorf("asked for %q", got)
		}
		_, _ = w.Write([]byte(jsonPage("", "a")))
	})
	_, err := c.ListHeads(t.Context(), ListRequest{Path: configMaps.Path("", ""), Protobuf: configMaps.Protobuf()}, func(*rawjson.Head, []byte, error) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// TestProtobufOf: what is not built in is read as JSON.
func TestProtobufOf(t *testing.T) {
	if configMaps.Protobuf() == nil {
		t.Error("config maps are read as JSON")
	}
	for _, r := range []Resource{
		{Group: "example.com", Version: "v1", Resource: "caches", Kind: "Cache"},
		{Group: "apps", Version: "v9", Resource: "deployments", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Resource: "statefulsets", Kind: "StatefulSet"},
	} {
		if r.Protobuf() != nil {
			t.Errorf("%s is read in protobuf", r.GroupResource())
		}
	}
}
