package s3_test

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"time"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
)

// TestGate shuts the gate while a request is answered: neither the SDK's next attempt nor the next part of an upload is sent, and nobody
// waits out the attempts that are left.
func TestGate(t *testing.T) {
	for _, c := range []struct {
		name, op string // the request at whose first answer the gate is shut
		size     int
		answer   func(http.ResponseWriter) // nil: the usual one
		never    []string
	}{
		{name: "attempts", op: "PutObject", size: 1, answer: func(w http.ResponseWriter) { refuse(w, http.StatusServiceUnavailable, "SlowDown", "slow") }},
		{name: "parts", op: "CreateMultipartUpload", size: 12 << 20, answer: func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>`))
		}, never: []string{"UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDouble(t)
			g := gate.New(time.Hour, gate.Clocks(time.Now))
			g.Renewed(g.Read())
			d.on(c.op, func(_ int, w http.ResponseWriter, _ *http.Request) {
				g.Shut("the lease is another's")
				c.answer(w)
			})
			store := d.open(t, s3.Options{Gate: g, WholeSize: -1})
			_, err := store.Put(t.Context(), "key", bytes.NewReader(make([]byte, c.size)), plugins.PutOptions{})
			if !errors.Is(err, gate.ErrShut) {
				t.Errorf("%v", err)
			}
			if n := len(d.sent(c.op)); n != 1 {
				t.Errorf("%s was sent %d times", c.op, n)
			}
			for _, op := range c.never {
				if n := len(d.sent(op)); n != 0 {
					t.Errorf("%s was sent %d times", op, n)
				}
			}
			if err := store.Delete(t.Context(), "key"); !errors.Is(err, gate.ErrShut) || len(d.sent("DeleteObject")) != 0 {
				t.Errorf("delete: %v", err)
			}
			if _, err := store.Stat(t.Context(), "key"); !errors.Is(err, plugins.ErrNotFound) {
				t.Errorf("reading: %v", err)
			}
		})
	}
}
