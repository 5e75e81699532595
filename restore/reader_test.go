package restore

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/testbed"
)

// TestReaderRoom: what is done with gives its room back, and what is written is kept only where it is parked.
func TestReaderRoom(t *testing.T) {
	raw := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	r := newReader(nil)
	r.room = 10
	has := func(when string, room int, want ...int32) {
		t.Helper()
		if r.room != room || len(r.cache) != len(want) {
			t.Errorf("%s: %d objects and room for %d, want %d and %d", when, len(r.cache), r.room, len(want), room)
		}
		for _, i := range want {
			if r.cache[i] == nil {
				t.Errorf("%s: object %d is not kept", when, i)
			}
		}
	}
	r.keepRead(1, raw(6))
	r.keepRead(1, raw(6))
	r.keepRead(2, raw(6))
	has("full", 4, 1)
	r.forget(1)
	r.forget(1)
	r.forget(7)
	has("forgotten", 10)
	r.keepRead(2, raw(6))
	r.keepRead(3, raw(4))
	has("full again", 0, 2, 3)
	r.renumber([]int32{0, 1, 0, -1})
	has("renumbered", 4, 0)
	r.keepRead(4, raw(1))
	r.write(func(i int32) bool { return i == 4 })
	has("only what is to be written", 9, 4)
	r.keepRead(5, raw(1))
	has("read to be written", 9, 4)
	r.keep(5, raw(5))
	r.keep(6, raw(5))
	has("parked", 4, 4, 5)
}

// TestParkedIsKept restores more than the reader has room for: an object that is tried again and again is not read for each try.
func TestParkedIsKept(t *testing.T) {
	const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: NS, annotations: {a: "of about as many bytes as the object that waits, and some more"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: waits, namespace: NS}
`
	cluster := testbed.SharedCluster(t, "1.36.3")
	refusals := 0
	cfg := answering(cluster.Kedge(t), func(req *http.Request, body string) *http.Response {
		if !createsOf(req, body, "waits") || refusals == 4 {
			return nil
		}
		refusals++
		return status(http.StatusForbidden, "Forbidden", `configmaps "waits" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1`)
	})
	m := fromYAML(t, in("parked", manifests))
	m.reads = make([]int, len(m.chunks))
	e := engineFor(clientFor(t, cfg), m)
	req := request("parked")
	req.Spec.WaitTimeout.Duration = time.Minute
	p, err := e.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	p.reader.room = len(m.chunks[0].raws[0]) // the namespace takes all of it
	namespace := p.find(m.chunks[0].rows[0].Ref)
	if err := p.read(t.Context(), []int32{namespace}, func(int32, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	r, err := e.Run(t.Context(), p)
	if err != nil || r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 2 || refusals != 4 {
		t.Fatalf("%v, %d refusals, %+v", err, refusals, r)
	}
	if m.reads[0] != 1 || m.reads[1] != 2 {
		t.Errorf("the chunks were read %v times, want once and, for the check and the first try, twice", m.reads)
	}
	if p.reader.room != len(m.chunks[0].raws[0]) || len(p.reader.cache) != 0 {
		t.Errorf("the reader still keeps %d objects, with room for %d", len(p.reader.cache), p.reader.room)
	}
}
