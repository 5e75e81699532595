package archive

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"testing"
)

// TestSpool: what is in the spool has no name, cannot be read from the disk, and comes back only as it was.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	s, err := newSpool(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	secret := bytes.Repeat([]byte("the cluster's secret; "), 100)
	var blobs []blob
	for range 3 {
		b, _, err := s.put(bytes.Clone(secret))
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the folder shows %v, %v", entries, err)
	}
	disk, err := io.ReadAll(io.NewSectionReader(s.file, 0, s.end.Load()))
	if err != nil || int64(len(disk)) != s.end.Load() || bytes.Contains(disk, []byte("secret")) {
		t.Errorf("%d bytes on the disk, or in the clear: %v", len(disk), err)
	}
	if bytes.Equal(disk[:len(secret)], disk[blobs[1].offset:blobs[1].offset+int64(len(secret))]) {
		t.Error("equal blobs look equal on the disk")
	}
	for _, b := range blobs {
		if got, err := s.get(b, nil); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("blob at %d: %v", b.offset, err)
		}
	}
	if _, err := s.file.WriteAt([]byte{disk[5] ^ 1}, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := s.get(blobs[0], nil); err == nil {
		t.Error("a flipped bit on the disk was not found")
	}
	if _, err := newSpool("", rand.Reader); !errors.Is(err, ErrInvalid) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := newSpool(dir+"/missing", rand.Reader); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}
