package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/plugins"
)

func testList(t *testing.T, store plugins.ObjectStore, _ Config) {
	all := []string{
		"A", "a-b", "a.b/x", "a/b", "a/b-c", "a/b.d/e", "a/b0", "a/c/d", "a0", "ab", "b/1", "b/10", "b/2", "z/ö", "z/日本",
	}
	slices.Sort(all)
	for i, key := range slices.Backward(all) {
		put(t, store, key, noise(uint64(i), i))
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b-", "a/b.", "a/b.d/", "a-", "b/1", "b/10", "z/", "z/ö", "x", "a/b/", "A", "nothing/here"} {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		if got := keys(t, store, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) shows\n%q, want\n%q", prefix, got, want)
		}
	}
	err := store.List(t.Context(), "", func(info plugins.ObjectInfo) error {
		if want := int64(slices.Index(all, info.Key)); info.Size != want || info.LastModified.IsZero() {
			t.Errorf("List describes %+v, want %d bytes and a time", info, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	enough := errors.New("enough")
	seen := 0
	err = store.List(t.Context(), "", func(plugins.ObjectInfo) error {
		if seen++; seen == 3 {
			return enough
		}
		return nil
	})
	if err != enough { //nolint:errorlint // the contract: as it is
		t.Errorf("List returns %v, want the callback's error as it is", err)
	}
	if seen != 3 {
		t.Errorf("List went on to %d objects after the callback's error", seen)
	}
	for _, prefix := range []string{"/", "../", "a//", "./", "a\x00"} {
		err := store.List(t.Context(), prefix, func(plugins.ObjectInfo) error { return nil })
		if !errors.Is(err, plugins.ErrInvalidKey) {
			t.Errorf("List(%q) gives %v, want an invalid key", prefix, err)
		}
	}
}

// testListWhileChanging deletes what the callback sees, as a sweep does, while others come.
func testListWhileChanging(t *testing.T, store plugins.ObjectStore, _ Config) {
	for i := range 20 {
		put(t, store, fmt.Sprintf("sweep/%02d/x", i), []byte("x"))
	}
	var seen []string
	err := store.List(t.Context(), "sweep/", func(info plugins.ObjectInfo) error {
		seen = append(seen, info.Key)
		if err := store.Delete(t.Context(), info.Key); err != nil {
			return err
		}
		_, err := store.Put(t.Context(), "other/"+info.Key, strings.NewReader("y"), plugins.PutOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 20 || !slices.IsSorted(seen) {
		t.Errorf("List shows %q", seen)
	}
	if got := keys(t, store, "sweep"); len(got) != 0 {
		t.Errorf("%q are left", got)
	}
	if got := keys(t, store, "other/"); len(got) != 20 {
		t.Errorf("of 20 new objects there are %d", len(got))
	}
}

func testManyKeys(t *testing.T, store plugins.ObjectStore, cfg Config) {
	want := make([]string, cfg.ManyKeys)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range want {
		want[i] = fmt.Sprintf("many/%06d", i)
		group.Go(func() error {
			_, err := store.Put(ctx, want[i], strings.NewReader("x"), plugins.PutOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	put(t, store, "maoz", nil)
	put(t, store, "mbny", nil)
	if got := keys(t, store, "many/"); !slices.Equal(got, want) {
		t.Errorf("List shows %d keys, want %d in their order", len(got), len(want))
	}
	if got := keys(t, store, ""); len(got) != len(want)+2 || !slices.IsSorted(got) {
		t.Errorf("List of all shows %d keys, want %d in their order", len(got), len(want)+2)
	}
}

func testInvalidKeys(t *testing.T, store plugins.ObjectStore, _ Config) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "./a", "../a", "a/../b", "a/./b", "a/../../b", "..\\a", "a\\b",
		"a\x00b", "a\nb", "a\x7f", "a\xffb", "\xc3", strings.Repeat("k", 256), strings.Repeat("a/", 450) + "b", ".kedge-x", "a/.kedge-unfinished/b",
		".kedge-unfinished/1",
	} {
		_, err := store.Put(t.Context(), key, strings.NewReader("x"), plugins.PutOptions{})
		wantError(t, err, plugins.ErrInvalidKey, "put", key)
		_, err = store.Get(t.Context(), key, 0, -1)
		wantError(t, err, plugins.ErrInvalidKey, "get", key)
		_, err = store.Stat(t.Context(), key)
		wantError(t, err, plugins.ErrInvalidKey, "stat", key)
		wantError(t, store.Delete(t.Context(), key), plugins.ErrInvalidKey, "delete", key)
	}
	if got := keys(t, store, ""); len(got) != 0 {
		t.Errorf("refused keys left %q", got)
	}
}

// testOddKeys stores under keys that are valid and that escaping gets wrong.
func testOddKeys(t *testing.T, store plugins.ObjectStore, cfg Config) {
	odd := []string{
		"space in name", " leading", "plus+sign", "per%cent", "per%20cent", "query?a=b&c=d", "hash#tag", "colon:at@", "quote\"'`", "brackets[]{}()<>",
		"semi;comma,", "tilde~!$^*=|", "...", "..a", "a..", ".hidden", "-dash", "ümläut", "日本語", "emoji-😀", "e\u0301", "é",
		strings.Repeat("s", 255), strings.Repeat("seven-b/", 112)[:cfg.LongestKey/8*8-8] + "end", "UPPER", "con", "a.b.c",
	}
	for i, key := range odd {
		put(t, store, key, []byte(fmt.Sprintf("%d %s", i, key)))
	}
	for i, key := range odd {
		if got := get(t, store, key, 0, -1); string(got) != fmt.Sprintf("%d %s", i, key) {
			t.Errorf("under %q is %.80q", key, got)
		}
	}
	slices.Sort(odd)
	if got := keys(t, store, ""); !slices.Equal(got, odd) {
		t.Errorf("List shows\n%q, want\n%q", got, odd)
	}
	for _, key := range odd {
		if got := keys(t, store, key); len(got) == 0 || got[0] != key {
			t.Errorf("List(%q) shows %q", key, got)
		}
		if err := store.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
		wantAbsent(t, store, key)
	}
}

// testFolders makes a key that is the folder of another: refused, or both are there.
func testFolders(t *testing.T, store plugins.ObjectStore, _ Config) {
	for i, pair := range [][2]string{{"folder/a", "folder"}, {"object", "object/a"}, {"deep", "deep/a/b/c"}} {
		put(t, store, pair[0], []byte("first"))
		for _, opts := range []plugins.PutOptions{{}, {IfNoneMatch: true}} {
			_, err := store.Put(t.Context(), pair[1], strings.NewReader("second"), opts)
			if err == nil {
				if err := store.Delete(t.Context(), pair[1]); err != nil {
					t.Error(err)
				}
				continue
			}
			wantError(t, err, plugins.ErrInvalidKey, "put", pair[1])
			wantAbsent(t, store, pair[1])
		}
		if err := store.Delete(t.Context(), pair[1]); err != nil {
			t.Errorf("Delete of what is not there: %v", err)
		}
		if got := get(t, store, pair[0], 0, -1); string(got) != "first" {
			t.Errorf("pair %d: the first object is %q", i, got)
		}
	}
}

func testDelete(t *testing.T, store plugins.ObjectStore, _ Config) {
	put(t, store, "delete/one", []byte("1"))
	put(t, store, "delete/one-more", []byte("1"))
	put(t, store, "delete/two", []byte("2"))
	put(t, store, "delete/two", []byte("2 again"))
	for range 2 {
		if err := store.Delete(t.Context(), "delete/one"); err != nil {
			t.Fatal(err)
		}
		wantAbsent(t, store, "delete/one")
		if err := store.Delete(t.Context(), "delete/two"); err != nil {
			t.Fatal(err)
		}
		wantAbsent(t, store, "delete/two")
	}
	if got := get(t, store, "delete/one-more", 0, -1); string(got) != "1" {
		t.Errorf("its neighbour is %q", got)
	}
	for _, key := range []string{"never/there", "delete", "delete/one-more/below"} {
		if err := store.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete of what is not there: %v", err)
		}
	}
	if got := keys(t, store, ""); !slices.Equal(got, []string{"delete/one-more"}) {
		t.Errorf("%q are left", got)
	}
}

// testRetention stores retained objects, small and in parts, and tries to get rid of them. The retention is short, so that the test's
// bucket can be cleaned.
func testRetention(t *testing.T, store plugins.ObjectStore, cfg Config) {
	until := time.Now().Add(time.Minute)
	if !cfg.Retention {
		_, err := store.Put(t.Context(), "kept", strings.NewReader("x"), plugins.PutOptions{RetainUntil: until})
		wantError(t, err, plugins.ErrUnsupported, "put", "kept")
		wantAbsent(t, store, "kept")
		return
	}
	for _, size := range []int{100, 12 << 20} {
		key := fmt.Sprintf("kept/%d", size)
		data := noise(9, size)
		_, err := store.Put(t.Context(), key, stream(data), plugins.PutOptions{IfNoneMatch: true, RetainUntil: until})
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, store.Delete(t.Context(), key), plugins.ErrRetained, "delete", key)
		_, err = store.Put(t.Context(), key, strings.NewReader("replaced"), plugins.PutOptions{})
		wantError(t, err, plugins.ErrRetained, "put", key)
		if got := get(t, store, key, 0, -1); string(got) != string(data) {
			t.Errorf("the retained object has become %d other bytes", len(got))
		}
		if got := keys(t, store, key); !slices.Equal(got, []string{key}) {
			t.Errorf("List shows %q", got)
		}
	}
	put(t, store, "free", []byte("x"))
	if err := store.Delete(t.Context(), "free"); err != nil {
		t.Errorf("an object without retention: %v", err)
	}
}

func testReopen(t *testing.T, store plugins.ObjectStore, cfg Config) {
	if cfg.Reopen == nil {
		t.Skip("the store does not outlive its process")
	}
	put(t, store, "kept/across", []byte("bytes"))
	again := cfg.Reopen(t, store)
	if got := get(t, again, "kept/across", 0, -1); string(got) != "bytes" {
		t.Errorf("a second store on the same place sees %q", got)
	}
	wantError(t, putNew(t, again, "kept/across", []byte("other")), plugins.ErrExists, "put", "kept/across")
	if again.String() != store.String() {
		t.Errorf("it is called %s, and was %s", again, store)
	}
}

// testCheck examines a good store: nothing fails, nothing stays.
func testCheck(t *testing.T, store plugins.ObjectStore, _ Config) {
	checker, ok := plugins.As[plugins.Checker](store)
	if !ok {
		t.Skip("the store cannot be examined")
	}
	for _, opts := range []plugins.CheckOptions{{}, {ReadOnly: true}} {
		findings := checker.Check(t.Context(), opts)
		if len(findings) == 0 {
			t.Errorf("Check(%+v) finds nothing at all", opts)
		}
		for _, f := range findings {
			if f.Level == plugins.LevelFailed || f.Name == "" || f.Detail == "" {
				t.Errorf("Check(%+v) finds %+v", opts, f)
			}
		}
	}
	if got := keys(t, store, ""); len(got) != 0 {
		t.Errorf("Check left %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	findings := checker.Check(ctx, plugins.CheckOptions{})
	if !slices.ContainsFunc(findings, func(f plugins.Finding) bool { return f.Level == plugins.LevelFailed }) {
		t.Errorf("a cancelled Check finds %+v", findings)
	}
}

func testName(t *testing.T, store plugins.ObjectStore, _ Config) {
	if name := store.String(); !strings.Contains(name, "://") || strings.HasSuffix(name, "/") {
		t.Errorf("the store calls itself %q, want a URL without a slash at its end", name)
	}
}
