package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
)

// TestFolderGoesMeanwhile has Deletes empty and remove the folder that Puts are about to use.
func TestFolderGoesMeanwhile(t *testing.T) {
	path := t.TempDir()
	var group errgroup.Group
	for worker := range 8 {
		store := open(t, path)
		group.Go(func() error {
			key := fmt.Sprintf("a/deep/folder/%d", worker)
			for i := range 50 {
				if _, err := store.Put(t.Context(), key, strings.NewReader("x"), plugins.PutOptions{IfNoneMatch: i%2 == 0}); err != nil {
					return err
				}
				if err := store.Delete(t.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, path); len(left) != 1 {
		t.Errorf("%q are left, want the folder of unfinished writes alone", left)
	}
}

// tree lists all that is below path.
func tree(t *testing.T, path string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(path, func(name string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(path, name); rel != "." {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestUnfinishedWrites finds that what a dead process left is invisible, and goes once it is old, and that a living write stays.
func TestUnfinishedWrites(t *testing.T) {
	path := t.TempDir()
	dir := filepath.Join(path, ".kedge-unfinished")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1-old", "1-young"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "1-old"), old, old); err != nil {
		t.Fatal(err)
	}
	store := open(t, path)
	err := store.List(t.Context(), "", func(info plugins.ObjectInfo) error {
		t.Errorf("List shows %s", info.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(tree(t, path)), "[.kedge-unfinished .kedge-unfinished/1-young]"; got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
}

// TestOutside plants links that lead out of the folder; no operation follows them.
func TestOutside(t *testing.T) {
	path, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"file": secret, "folder": outside, "relative": "../" + filepath.Base(outside) + "/secret"} {
		if err := os.Symlink(target, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	store := open(t, path)
	for _, key := range []string{"file", "folder/secret", "relative"} {
		if r, err := store.Get(t.Context(), key, 0, -1); err == nil {
			data, _ := io.ReadAll(r)
			t.Errorf("Get(%q) reads %q", key, data)
		}
		if _, err := store.Stat(t.Context(), key); err == nil {
			t.Errorf("Stat(%q) finds something", key)
		}
		_, _ = store.Put(t.Context(), key, strings.NewReader("changed"), plugins.PutOptions{})
		_ = store.Delete(t.Context(), key)
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("outside there is %q, %v", got, err)
	}
	if left := tree(t, outside); len(left) != 1 {
		t.Errorf("outside there are %q", left)
	}
}

// TestOddFiles has things in the folder that are no objects.
func TestOddFiles(t *testing.T) {
	path := t.TempDir()
	if err := exec.CommandContext(t.Context(), "mkfifo", filepath.Join(path, "pipe")).Run(); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, "bad\xffname"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := open(t, path)
	if _, err := store.Get(t.Context(), "pipe", 0, -1); !errors.Is(err, plugins.ErrNotFound) {
		t.Errorf("Get of a pipe gives %v", err)
	}
	err := store.List(t.Context(), "", func(info plugins.ObjectInfo) error {
		t.Errorf("List shows %q", info.Key)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestReaderKeepsItsFile replaces and deletes a file while it is read.
func TestReaderKeepsItsFile(t *testing.T) {
	store := open(t, t.TempDir())
	want := bytes.Repeat([]byte("old"), 100_000)
	if _, err := store.Put(t.Context(), "a/b", bytes.NewReader(want), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := store.Get(t.Context(), "a/b", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "a/b", strings.NewReader("new"), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(head, rest...), want) {
		t.Errorf("read %d bytes, %v", len(head)+len(rest), err)
	}
}

func TestNewErrors(t *testing.T) {
	path := t.TempDir()
	object := filepath.Join(path, "file")
	if err := os.WriteFile(object, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"empty":   {"", "the path is empty (name a folder)"},
		"missing": {filepath.Join(path, "missing"), "no such file or directory (name a folder that exists, or create it)"},
		"a file":  {object, "not a directory (name a folder that exists, or create it)"},
	} {
		_, err := file.New(v1alpha1.FileLocation{Path: c.path}, file.Options{})
		if !errors.Is(err, plugins.ErrConfig) || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v, want a misconfiguration that ends in %q", name, err, c.want)
		}
	}
	created := filepath.Join(path, "new/folder")
	store, err := file.New(v1alpha1.FileLocation{Path: created}, file.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := store.String(), "file://"+created; got != want {
		t.Errorf("it is called %s, want %s", got, want)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			store := open(b, b.TempDir())
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := store.Put(b.Context(), "folder/object", bytes.NewReader(data), plugins.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	const size = 16 << 20
	store := open(b, b.TempDir())
	if _, err := store.Put(b.Context(), "object", bytes.NewReader(make([]byte, size)), plugins.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		r, err := store.Get(b.Context(), "object", 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
