package archive

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// spool keeps blobs in a file that has no name and whose key dies with the process: what it holds are a cluster's
// Secrets. It is safe for concurrent use.
type spool struct {
	file *os.File
	aead cipher.AEAD
	end  atomic.Int64
}

// blob is where one sequence of bytes lies in a spool.
type blob struct {
	offset int64
	size   int32 // of the plaintext
}

func newSpool(dir string, rand io.Reader) (*spool, error) {
	if dir == "" {
		return nil, fmt.Errorf("open spool: %w: SpoolDir is needed", ErrInvalid)
	}
	var key [32]byte
	if _, err := io.ReadFull(rand, key[:]); err != nil {
		return nil, fmt.Errorf("open spool: read random: %w", err)
	}
	block, err := aes.NewCipher(key[:])
	clear(key[:])
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	file, err := os.CreateTemp(dir, "kedge-spool-*")
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return &spool{file: file, aead: aead}, nil
}

func (s *spool) close() { _ = s.file.Close() }

// nonce is the offset: the key is used for this file only, and no offset twice.
func (s *spool) nonce(dst *[12]byte, offset int64) []byte {
	binary.BigEndian.PutUint64(dst[4:], uint64(offset))
	return dst[:]
}

// put appends a blob. It encrypts in place: what plain held is gone, and its memory comes back for the next call.
func (s *spool) put(plain []byte) (blob, []byte, error) {
	b := blob{size: int32(len(plain))}
	n := int64(len(plain) + s.aead.Overhead())
	b.offset = s.end.Add(n) - n
	var nonce [12]byte
	sealed := s.aead.Seal(plain[:0], s.nonce(&nonce, b.offset), plain, nil)
	if _, err := s.file.WriteAt(sealed, b.offset); err != nil {
		return b, sealed, fmt.Errorf("write spool: %w (give it a folder with more room)", err)
	}
	return b, sealed, nil
}

// get reads a blob into buf, which it grows if it must.
func (s *spool) get(b blob, buf []byte) ([]byte, error) {
	n := int(b.size) + s.aead.Overhead()
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := s.file.ReadAt(buf, b.offset); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	var nonce [12]byte
	plain, err := s.aead.Open(buf[:0], s.nonce(&nonce, b.offset), buf, nil)
	if err != nil {
		return nil, fmt.Errorf("read spool: the disk returned other bytes than were written: %w", err)
	}
	return plain, nil
}

// part is one piece of a file that is put together from a spool: padding, then a blob or literal bytes.
type part struct {
	padding int64
	blob    blob
	literal []byte
}

// assembly reads parts one after another.
type assembly struct {
	spool *spool
	parts []part
	cur   []byte
	buf   []byte
}

// Read implements io.Reader.
func (a *assembly) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if len(a.parts) == 0 {
			return 0, io.EOF
		}
		if err := a.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// Len is how many bytes are left.
func (a *assembly) Len() int {
	n := len(a.cur)
	for _, p := range a.parts {
		n += int(p.padding) + len(p.literal) + int(p.blob.size)
	}
	return n
}

func (a *assembly) next() error {
	next := &a.parts[0]
	switch {
	case next.padding > 0:
		a.cur = skippable(next.padding)
		next.padding = 0
		return nil
	case next.literal != nil:
		a.cur = next.literal
	default:
		cur, err := a.spool.get(next.blob, a.buf)
		if err != nil {
			return err
		}
		a.cur, a.buf = cur, cur[:0]
	}
	a.parts = a.parts[1:]
	return nil
}
