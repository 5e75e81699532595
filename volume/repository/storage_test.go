package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/repositorytest"
)

var testNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// data is what kopia hands to PutBlob.
type data []byte

func (d data) Length() int                        { return len(d) }
func (d data) WriteTo(w io.Writer) (int64, error) { n, err := w.Write(d); return int64(n), err }
func (d data) Reader() io.ReadSeekCloser          { return nopCloser{bytes.NewReader(d)} }
func (nopCloser) Close() error                    { return nil }
func text(b *bytes.Buffer) string                 { return b.String() }
func (o *output) Length() int                     { return o.Len() }
func get(s *storage, id blob.ID, at, n int64) (string, error) {
	var o output
	err := s.GetBlob(context.Background(), id, at, n, &o)
	return text(&o.Buffer), err
}

type (
	nopCloser struct{ *bytes.Reader }
	output    struct{ bytes.Buffer }
)

func storages(t *testing.T) map[string]*storage {
	t.Helper()
	folder, err := file.New(v1alpha1.FileLocation{Path: t.TempDir()}, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	clock := repositorytest.NewClock(testNow)
	all := map[string]*storage{
		"memory": {store: repositorytest.NewStore(clock.Now), now: clock.Now},
		"folder": {store: folder, layout: LayoutFolder, now: time.Now},
	}
	for _, s := range all {
		s.writes = semaphore.NewWeighted(2)
	}
	return all
}

// TestStorage is what kopia asks of a blob storage.
func TestStorage(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if _, err := get(s, "pabsent", 0, -1); !errors.Is(err, blob.ErrBlobNotFound) {
				t.Errorf("get of what is not there: %v", err)
			}
			if _, err := s.GetMetadata(ctx, "pabsent"); !errors.Is(err, blob.ErrBlobNotFound) {
				t.Errorf("metadata of what is not there: %v", err)
			}
			if err := s.DeleteBlob(ctx, "pabsent"); err != nil {
				t.Errorf("delete of what is not there: %v", err)
			}
			var at time.Time
			for _, id := range []blob.ID{"p1", "p2", "q1", "kopia.repository"} {
				if err := s.PutBlob(ctx, id, data("content of "+id), blob.PutOptions{GetModTime: &at}); err != nil || at.IsZero() {
					t.Fatalf("put: %v, %v", err, at)
				}
			}
			if err := s.PutBlob(ctx, "p1", data("other"), blob.PutOptions{DoNotRecreate: true}); !errors.Is(err, blob.ErrBlobAlreadyExists) {
				t.Errorf("put over: %v", err)
			}
			if err := s.PutBlob(ctx, "p1", data("new content"), blob.PutOptions{}); err != nil {
				t.Errorf("replace: %v", err)
			}
			if err := s.PutBlob(ctx, "p1", data("x"), blob.PutOptions{SetModTime: testNow}); !errors.Is(err, blob.ErrSetTimeUnsupported) {
				t.Errorf("put with a time: %v", err)
			}
			checkRanges(t, s)
			checkList(t, s)
			if m, err := s.GetMetadata(ctx, "p1"); err != nil || m.BlobID != "p1" || m.Length != 11 || m.Timestamp.IsZero() {
				t.Errorf("metadata %v, %v", m, err)
			}
			if err := s.DeleteBlob(ctx, "p1"); err != nil {
				t.Error(err)
			}
			if _, err := s.GetMetadata(ctx, "p1"); !errors.Is(err, blob.ErrBlobNotFound) {
				t.Errorf("metadata of what was deleted: %v", err)
			}
		})
	}
}

func checkRanges(t *testing.T, s *storage) {
	t.Helper()
	for _, c := range []struct {
		offset, length int64
		want           string
		bad            bool
	}{
		{0, -1, "new content", false},
		{4, -1, "new content", false}, // all, whatever the offset
		{4, 7, "content", false},
		{0, 3, "new", false},
		{0, 0, "", false},
		{11, 0, "", false},
		{4, 8, "", true},
		{12, 1, "", true},
		{-1, 1, "", true},
	} {
		got, err := get(s, "p1", c.offset, c.length)
		switch {
		case c.bad && !errors.Is(err, blob.ErrInvalidRange):
			t.Errorf("get %d bytes at %d: %q, %v", c.length, c.offset, got, err)
		case !c.bad && (err != nil || got != c.want):
			t.Errorf("get %d bytes at %d: %q, %v", c.length, c.offset, got, err)
		}
	}
}

func checkList(t *testing.T, s *storage) {
	t.Helper()
	for _, key := range []string{Folder + "/deeper/x.f", Folder + "/.shards", "backups/p9", KeyFolder + "/1.age"} {
		if s.layout == LayoutBucket && key == Folder+"/.shards" {
			continue
		}
		if _, err := s.store.Put(t.Context(), key, bytes.NewReader(nil), plugins.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[blob.ID][]blob.ID{"": {"kopia.repository", "p1", "p2", "q1"}, "p": {"p1", "p2"}, "p2": {"p2"}, "z": nil} {
		all, err := blob.ListAllBlobs(t.Context(), s, prefix)
		ids := blob.IDsFromMetadata(all)
		slices.Sort(ids)
		if err != nil || !slices.Equal(ids, want) {
			t.Errorf("list %q: %v, %v", prefix, ids, err)
		}
	}
	stop := errors.New("enough")
	if err := s.ListBlobs(t.Context(), "", func(blob.Metadata) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a list that was stopped returned %v", err)
	}
}

// TestRetention: what is put with retention is protected for that time from then on, an extension counts from its own moment, and a delete of what
// is protected is put off.
func TestRetention(t *testing.T) {
	s := storages(t)["memory"]
	clock := repositorytest.NewClock(testNow)
	store := repositorytest.NewStore(clock.Now)
	s.store, s.now = store, clock.Now
	there := func() bool {
		_, err := s.GetMetadata(t.Context(), "p1")
		return err == nil
	}
	put := blob.PutOptions{RetentionMode: blob.Governance, RetentionPeriod: 24 * time.Hour}
	if err := s.PutBlob(t.Context(), "p1", data("x"), put); err != nil {
		t.Fatal(err)
	}
	clock.Advance(23 * time.Hour)
	if err := s.DeleteBlob(t.Context(), "p1"); err != nil || !there() {
		t.Fatalf("delete of what is protected: %v, there %v", err, there())
	}
	if err := s.ExtendBlobRetention(t.Context(), "p1", blob.ExtendOptions{RetentionPeriod: 48 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(47 * time.Hour)
	if err := s.DeleteBlob(t.Context(), "p1"); err != nil || !there() {
		t.Fatalf("delete of what is protected for longer: %v, there %v", err, there())
	}
	clock.Advance(2 * time.Hour)
	if err := s.DeleteBlob(t.Context(), "p1"); err != nil || there() {
		t.Fatalf("delete after retention: %v, there %v", err, there())
	}
	if err := storages(t)["folder"].ExtendBlobRetention(t.Context(), "p1", blob.ExtendOptions{RetentionPeriod: time.Hour}); !errors.Is(err, blob.ErrUnsupportedObjectLock) {
		t.Errorf("extension in a folder: %v", err)
	}
}

// TestFailureEndsTheCall: kopia would ask for the list of indexes for ever.
func TestFailureEndsTheCall(t *testing.T) {
	s := storages(t)["memory"]
	store := repositorytest.NewStore(time.Now)
	s.store = store
	ctx, stop := guard(t.Context())
	defer stop()
	if err := s.GetBlob(ctx, "pabsent", 0, -1, &output{}); !errors.Is(err, blob.ErrBlobNotFound) || ctx.Err() != nil {
		t.Fatalf("what is not there is no failure: %v, %v", err, ctx.Err())
	}
	store.DieAt(1, false)
	if err := s.ListBlobs(ctx, "x", func(blob.Metadata) error { return nil }); !errors.Is(err, repositorytest.ErrDead) {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(ctx), repositorytest.ErrDead) {
		t.Errorf("the call goes on: %v", context.Cause(ctx))
	}
}

// TestSizedReader reads a blob as stores do: as a whole, from the middle on, and again.
func TestSizedReader(t *testing.T) {
	content := data("the content of a pack")
	r := &sizedReader{data: content, r: content.Reader(), size: int64(len(content))}
	if err := iotest.TestReader(r, content); err != nil {
		t.Error(err)
	}
	for _, from := range []int64{0, 4} {
		if _, err := r.Seek(from, io.SeekStart); err != nil || r.Len() != len(content)-int(from) {
			t.Fatalf("%d bytes from %d on, %v", r.Len(), from, err)
		}
		var out bytes.Buffer
		if n, err := r.WriteTo(&out); err != nil || n != int64(out.Len()) || out.String() != string(content[from:]) || r.Len() != 0 {
			t.Errorf("wrote %q (%d) from %d on, %d are left, %v", out.String(), n, from, r.Len(), err)
		}
	}
}
