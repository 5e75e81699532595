package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/file"
)

const imageSize = 20*plugins.BlockSize + 100

// image makes a sparse file with some bytes at the start of some blocks.
func image(t *testing.T, name string, blocks map[int64]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	target, err := file.CreateImage(path, imageSize)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range blocks {
		if err := target.WriteBlock(t.Context(), i, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	made, err := target.Complete(t.Context(), int64(len(blocks)))
	if err != nil || made.ID != path || made.SizeBytes != imageSize || made.State != plugins.SnapshotCompleted {
		t.Fatalf("completed %+v, %v", made, err)
	}
	return path
}

func TestImage(t *testing.T) {
	old := image(t, "old", map[int64]string{0: "a", 3: "same", 7: "changes", 9: "goes", 20: "end"})
	now := image(t, "new", map[int64]string{0: "a", 3: "same", 7: "changed", 12: "comes", 20: "END"})
	for _, c := range []struct {
		base string
		want string
	}{
		{"", "[0 3 7 12 20]"},
		{old, "[7 -9 12 20]"},
		{now, "[]"},
	} {
		img, err := file.OpenImage(now, c.base)
		if err != nil {
			t.Fatal(err)
		}
		var listed []int64
		buf := make([]byte, plugins.BlockSize)
		err = img.Blocks(t.Context(), func(b plugins.Block) error {
			if b.Gone {
				listed = append(listed, -b.Index)
				return nil
			}
			listed = append(listed, b.Index)
			n, err := img.ReadBlock(t.Context(), b, buf)
			if err == nil && (int64(n) != min(plugins.BlockSize, imageSize-b.Index*plugins.BlockSize) || bytes.Trim(buf[:n], "\x00") == nil) {
				err = fmt.Errorf("block %d has %d bytes", b.Index, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		// A file system that allocates more than a block at a time lists more; nothing that is wanted is missing.
		if got := fmt.Sprint(listed); got != c.want && (c.base != "" || !slices.Contains(listed, 12)) {
			t.Errorf("compared with %q: %v, not %s", c.base, got, c.want)
		}
		if img.Base() != c.base || img.SizeBytes() != imageSize {
			t.Errorf("base %q, size %d", img.Base(), img.SizeBytes())
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestImageRefuses(t *testing.T) {
	path := image(t, "one", nil)
	if _, err := file.CreateImage(path, 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("created over a file: %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.OpenImage(path, short); !errors.Is(err, plugins.ErrNoBase) {
		t.Errorf("opened with a base of another size: %v", err)
	}
	if _, err := file.OpenImage(t.TempDir(), ""); err == nil {
		t.Error("opened a folder")
	}
	target, err := file.CreateImage(filepath.Join(t.TempDir(), "new"), imageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := target.WriteBlock(t.Context(), 20, make([]byte, 101)); err == nil {
		t.Error("wrote beyond the end")
	}
	if err := target.WriteBlock(t.Context(), -1, []byte("x")); err == nil {
		t.Error("wrote before the start")
	}
	if _, err := target.Complete(t.Context(), 1); err == nil {
		t.Error("completed without a block")
	}
}
