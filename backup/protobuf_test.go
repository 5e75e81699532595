package backup

import (
	"bytes"
	"reflect"
	"testing"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/testbed"
)

// TestProtobufSaysWhatJSONSays reads all that a cluster with applications has at one revision, in both encodings.
func TestProtobufSaysWhatJSONSays(t *testing.T) {
	for i, c := range testbed.NewClusters(t, versions...) {
		t.Run(versions[i], func(t *testing.T) {
			created, applied, err := apps.Objects()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Apply(t.Context(), append(created, applied...), testbed.ApplyOptions{}); err != nil { // what a version does not serve is left out
				t.Fatal(err)
			}
			client := newClient(t, c)
			disc, err := client.Discover(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			meta, err := client.List(t.Context(), kube.ListRequest{Path: "/api/v1/namespaces"}, func([]byte) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			kinds, objects := 0, 0
			for _, res := range disc.Resources {
				if !persisted(res) || res.Protobuf() == nil {
					continue
				}
				req := kube.ListRequest{Path: res.Path("", ""), ResourceVersion: meta.ResourceVersion, Exact: true, Limit: 7}
				plain := listed(t, client, res, req)
				req.Protobuf = res.Protobuf()
				same(t, res, plain, listed(t, client, res, req))
				if len(plain) > 0 {
					kinds++
					objects += len(plain)
				}
			}
			t.Logf("%d objects of %d kinds", objects, kinds)
			if kinds < 25 || objects < 150 {
				t.Errorf("only %d objects of %d kinds were compared", objects, kinds)
			}
		})
	}
}

type listedItem struct {
	head rawjson.Head
	raw  []byte
}

// listed reads a list, each object with its apiVersion and kind.
func listed(t *testing.T, client *kube.Client, res kube.Resource, req kube.ListRequest) (out []listedItem) {
	t.Helper()
	_, err := client.ListHeads(t.Context(), req, func(head *rawjson.Head, raw []byte, err error) error {
		if err != nil {
			return err
		}
		whole, err := head.WithTypeMeta(nil, raw, res.APIVersion(), res.Kind)
		h := *head
		h.APIVersion, h.Kind = "", "" // JSON has them at the list alone
		out = append(out, listedItem{h, whole})
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", res.GroupResource(), err)
	}
	return out
}

// same compares what two lists say. A server writes an object with the same bytes that we do, but an older one has "creationTimestamp": null
// in templates, as all had once.
func same(t *testing.T, res kube.Resource, want, got []listedItem) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d objects in JSON, %d in protobuf", res.GroupResource(), len(want), len(got))
	}
	for i := range want {
		if !reflect.DeepEqual(want[i].head, got[i].head) {
			t.Errorf("%s: the heads are\n%+v\n%+v", res.GroupResource(), want[i].head, got[i].head)
		}
		if !bytes.Equal(modern(want[i].raw), modern(got[i].raw)) {
			t.Errorf("%s:\n%s\n%s", res.GroupResource(), want[i].raw, got[i].raw)
		}
	}
}

func modern(raw []byte) []byte {
	raw = bytes.ReplaceAll(raw, []byte(`"creationTimestamp":null,`), nil)
	return bytes.ReplaceAll(raw, []byte(`"creationTimestamp":null`), nil)
}
