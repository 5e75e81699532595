package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
)

// serveBroken answers reads of content, by cut bytes at a time, after which the connection breaks.
func serveBroken(content []byte, cut int, etag func(n int) string) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, r *http.Request) {
		if match := r.Header.Get("If-Match"); match != "" && match != etag(n) {
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "changed")
			return
		}
		start, end := 0, len(content)
		if asked, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			from, to, _ := strings.Cut(asked, "-")
			start, _ = strconv.Atoi(from)
			if to != "" {
				last, _ := strconv.Atoi(to)
				end = min(end, last+1)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, len(content)))
		}
		w.Header().Set("ETag", etag(n))
		w.Header().Set("Content-Length", strconv.Itoa(end-start))
		if w.Header().Get("Content-Range") != "" {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(content[start:min(end, start+cut)])
		if start+cut < end {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
}

func same(int) string { return `"v1"` }

func TestResume(t *testing.T) {
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	for _, c := range []struct{ offset, length int64 }{{0, -1}, {0, 1 << 20}, {1000, -1}, {1000, 300_000}, {5, 10}} {
		d := startDouble(t)
		store := d.open(t, s3.Options{})
		d.on("GetObject", serveBroken(content, 100_000, same))
		r, err := store.Get(t.Context(), "k", c.offset, c.length)
		if err != nil {
			t.Fatal(err)
		}
		want := content[c.offset:]
		if c.length >= 0 {
			want = content[c.offset : c.offset+c.length]
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: %d bytes, %v", c, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		sent := d.sent("GetObject")
		if n := (len(want) + 99_999) / 100_000; len(sent) != n {
			t.Errorf("%+v: %d requests, want %d", c, len(sent), n)
		}
		for i, request := range sent {
			if got := request.Header.Get("If-Match"); i > 0 && got != `"v1"` {
				t.Errorf("%+v: request %d has If-Match %q", c, i, got)
			}
		}
	}
}

func TestResumeChanged(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{})
	d.on("GetObject", serveBroken(make([]byte, 1000), 100, func(n int) string { return fmt.Sprintf(`"v%d"`, n) }))
	r, err := store.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if len(got) != 100 || err == nil || !strings.Contains(err.Error(), "replaced while it was read (read it again)") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestResumeGivesUp has every connection break before its first byte.
func TestResumeGivesUp(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{})
	d.on("GetObject", serveBroken(make([]byte, 1000), 0, same))
	r, err := store.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "1000 bytes left") {
		t.Errorf("%v", err)
	}
	if n := len(d.sent("GetObject")); n != 7 {
		t.Errorf("%d requests", n)
	}
}

// TestStall has the first connection hang, and the second one, after a cancel, as well.
func TestStall(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{Stall: 50 * time.Millisecond})
	content := make([]byte, 100_000)
	d.on("GetObject", func(n int, w http.ResponseWriter, r *http.Request) {
		if n > 1 {
			serveBroken(content, len(content), same)(n, w, r)
			return
		}
		w.Header().Set("ETag", same(n))
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:10])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	r, err := store.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || len(got) != len(content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestBadAnswers come from servers that do not keep to ranges.
func TestBadAnswers(t *testing.T) {
	for name, answer := range map[string]func(int, http.ResponseWriter, *http.Request){
		"ignores the range": func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) },
		"another range": func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-9/1000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 10))
		},
		"garbage": func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes x")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 10))
		},
		"more": func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-24/1000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 20))
		},
		"no length": func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-14/1000")
			w.WriteHeader(http.StatusPartialContent)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(make([]byte, 10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			store := d.open(t, s3.Options{})
			d.on("GetObject", answer)
			if r, err := store.Get(t.Context(), "k", 5, 10); err == nil {
				got, err := io.ReadAll(r)
				t.Errorf("reads %d bytes, %v", len(got), err)
				r.Close()
			}
		})
	}
}

func TestReadAfterCloseAndCancel(t *testing.T) {
	d := startDouble(t)
	store := d.open(t, s3.Options{})
	d.on("GetObject", serveBroken(make([]byte, 1000), 10, same))
	r, err := store.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	if r, err = store.Get(ctx, "k", 0, -1); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel(errors.New("the user pressed Ctrl-C"))
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("cancelled: %v", err)
	}
	var known *plugins.StoreError
	if _, err := io.ReadAll(r); !errors.As(err, &known) || known.Op != "get" || known.Key != "k" {
		t.Errorf("again: %v", err)
	}
}
