//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// treeSpec says what a tree of files is like.
type treeSpec struct {
	files          int
	perFolder      int
	smallest, most int64 // bytes of a file
}

// written is when all files of a tree were written: long before any copy, so that no copy has to read one again because it may have changed
// within a tick of the clock.
var written = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// make writes the tree below dir, the same one each time, and gives the bytes in it. A tenth of the folders of a level are in each of the next.
func (s treeSpec) make(dir string) (int64, error) {
	rng := rand.New(rand.NewChaCha8([32]byte{1}))
	filler := newFiller(2)
	var total int64
	folder := dir
	for i := range s.files {
		if i%s.perFolder == 0 {
			n := i / s.perFolder
			folder = filepath.Join(dir, fmt.Sprintf("%03d", n/100), fmt.Sprintf("%02d", n%100))
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return 0, err
			}
		}
		size := s.smallest
		if s.most > s.smallest {
			size += rng.Int64N(s.most - s.smallest + 1)
		}
		path := filepath.Join(folder, fmt.Sprintf("file-%06d.dat", i))
		if err := filler.file(path, size); err != nil {
			return 0, err
		}
		total += size
	}
	return total, nil
}

// filler makes bytes of which half compress: of each 64, 32 are random and 32 one letter.
type filler struct {
	random *rand.ChaCha8
	buf    []byte
}

func newFiller(seed byte) *filler {
	return &filler{random: rand.NewChaCha8([32]byte{seed}), buf: make([]byte, 1<<20)}
}

func (f *filler) fill(p []byte) {
	f.random.Read(p) // it never fails
	for at := 0; at < len(p); at += 64 {
		for i := at + 32; i < min(at+64, len(p)); i++ {
			p[i] = byte('a' + at/64%13)
		}
	}
}

func (f *filler) file(path string, size int64) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	for left := size; left > 0; {
		part := f.buf[:min(left, int64(len(f.buf)))]
		f.fill(part)
		if _, err := out.Write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Chtimes(path, written, written)
}
