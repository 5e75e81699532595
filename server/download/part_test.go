package download

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/pool"
)

// TestParts cuts answers of all sorts into parts and puts them together again.
func TestParts(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 3<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer []byte
		parts  int
	}{
		"empty":       {nil, 1},
		"short":       {[]byte("hello"), 1},
		"noise":       {noise, 5},
		"one letter":  {bytes.Repeat([]byte("a"), maxRaw+1), 2},
		"exactly max": {bytes.Repeat([]byte("a"), maxRaw), 1},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			parts := 0
			for offset := int64(0); ; parts++ {
				w, err := newWindow(offset)
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.Write(c.answer)
				full := errors.Is(err, errFull)
				if err != nil && !full {
					t.Fatal(err)
				}
				p, err := w.seal(offset, full, id.Recipient())
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Data) > 750<<10 {
					t.Errorf("a part has %d bytes", len(p.Data))
				}
				if _, err := openPart(p.Data, id, &got); err != nil {
					t.Fatal(err)
				}
				if p.Next == nil {
					break
				}
				offset = *p.Next
			}
			if !bytes.Equal(got.Bytes(), c.answer) || parts+1 > c.parts+1 || parts+1 < min(c.parts, 2) {
				t.Errorf("%d bytes in %d parts, want %d in about %d", got.Len(), parts+1, len(c.answer), c.parts)
			}
		})
	}
	w, err := newWindow(10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("short")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.seal(10, false, id.Recipient()); err == nil || !strings.Contains(err.Error(), "spec.offset") {
		t.Errorf("an offset beyond the end: %v", err)
	}
}

func FuzzOpenPart(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	w, err := newWindow(0)
	if err != nil {
		f.Fatal(err)
	}
	p, err := w.seal(0, false, id.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		if _, err := openPart(data, id, &b); err == nil && b.Len() > maxRaw+step {
			t.Error("too much was read")
		}
	})
}

// TestExpiry removes requests that have their answer, when their time has come and not before.
func TestExpiry(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := metav1.NewTime(now)
	d := &v1alpha1.DownloadRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "kedge", Name: "d", UID: "u"}}
	d.Status.Phase, d.Status.CompletionTime = v1alpha1.RequestDone, &at
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(d).WithStatusSubresource(d).Build()
	r := &Reconciler{Client: c, Pool: pool.New[*Part](1, 1), Now: func() time.Time { return now }}
	request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(d)}
	now = now.Add(time.Minute)
	result, err := r.Reconcile(t.Context(), request)
	if err != nil || result.RequeueAfter != keepFor-time.Minute {
		t.Fatalf("after a minute: %+v, %v", result, err)
	}
	now = now.Add(keepFor)
	if _, err := r.Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), request.NamespacedName, d); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the request is still there: %v", err)
	}
}
