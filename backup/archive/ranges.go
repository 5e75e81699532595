package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"

	"kedge.dev/kedge/plugins"
)

const (
	ageTag       = 16                // what each chunk of an age file is longer than its plaintext
	sealedChunk  = ageChunk + ageTag // a chunk as stored
	ageNonce     = 16
	headSize     = 1 << 10   // more than the header of a file with one recipient
	wholeSize    = 192 << 10 // files up to this size are read at once
	cachedChunks = 8
)

// sealedFile reads parts of an encrypted file. Each read is one range request for whole chunks; chunks at the borders
// are kept for the neighbours. It is safe for concurrent use.
type sealedFile struct {
	store    plugins.ObjectStore
	key      string
	size     int64
	identity age.Identity

	mu     sync.Mutex
	opened bool
	head   []byte // header and nonce, or the whole file
	whole  bool
	tail   extent
	body   int64        // where the first chunk begins
	file   age.Identity // holds the file's key
	cache  [cachedChunks]extent
	next   int
}

// extent is a run of bytes of a file.
type extent struct {
	offset int64
	bytes  []byte
}

func (e extent) end() int64 { return e.offset + int64(len(e.bytes)) }

// extents are the parts of a file that were fetched, as age reads them.
type extents []extent

var errNotFetched = errors.New("read outside of what was fetched")

// ReadAt implements io.ReaderAt. Extents may overlap; the one that has most of what is asked for answers.
func (x extents) ReadAt(p []byte, off int64) (int, error) {
	var best []byte
	for _, e := range x {
		if off >= e.offset && off < e.end() && e.end()-off > int64(len(best)) {
			best = e.bytes[off-e.offset:]
		}
	}
	if n := copy(p, best); n < len(p) {
		return n, errNotFetched
	}
	return len(p), nil
}

// errShort and errLong mean that a file does not end where its record says.
var (
	errShort = errors.New("the file is shorter than its record says")
	errLong  = errors.New("the file is longer than its record says")
)

// fetchEnd reads exactly n bytes, which must be the last ones: it asks for one more.
func (f *sealedFile) fetchEnd(ctx context.Context, offset, n int64, buf []byte) ([]byte, error) {
	b, err := f.fetch(ctx, offset, n+1, buf)
	switch {
	case err == nil:
		return nil, errLong
	case errors.Is(err, errShort) && int64(len(b)) == n:
		return b, nil
	}
	return nil, err
}

// fetch reads exactly n bytes. With errShort it returns those that there are.
func (f *sealedFile) fetch(ctx context.Context, offset, n int64, buf []byte) ([]byte, error) {
	r, err := f.store.Get(ctx, f.key, offset, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	got, err := readFull(r, buf)
	return buf[:got], err
}

// readFull fills buf. Only a clean end of the object before that is errShort; a connection that broke is its own error.
func readFull(r io.Reader, buf []byte) (int, error) {
	got := 0
	for got < len(buf) {
		n, err := r.Read(buf[got:])
		got += n
		switch {
		case got == len(buf):
		case errors.Is(err, io.EOF):
			return got, errShort
		case err != nil:
			return got, err
		}
	}
	return got, nil
}

// open reads the header and the last chunk, once.
func (f *sealedFile) open(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened {
		return nil
	}
	whole := f.size <= wholeSize
	n := min(f.size, headSize)
	if whole {
		n = f.size
	}
	fetch := f.fetch
	if whole {
		fetch = f.fetchEnd
	}
	head, err := fetch(ctx, 0, n, nil)
	if err != nil {
		return err
	}
	header, err := age.ExtractHeader(bytes.NewReader(head))
	if err != nil {
		return &cipherError{0, err}
	}
	fileKey, err := age.DecryptHeader(header, f.identity)
	if err != nil {
		return &cipherError{0, err}
	}
	body := int64(len(header)) + ageNonce
	if f.size < body+ageTag {
		return &cipherError{0, io.ErrUnexpectedEOF}
	}
	if !whole {
		last := (f.size - body - 1) / sealedChunk
		f.tail.offset = body + last*sealedChunk
		if f.tail.bytes, err = f.fetchEnd(ctx, f.tail.offset, f.size-f.tail.offset, nil); err != nil {
			return err
		}
	}
	f.head, f.whole, f.body, f.file, f.opened = head, whole, body, age.NewInjectedFileKeyIdentity(fileKey), true
	return nil
}

// cipherError is a file that does not decrypt.
type cipherError struct {
	offset int64
	err    error
}

func (e *cipherError) Error() string { return e.err.Error() }
func (e *cipherError) Unwrap() error { return e.err }

// buffers are what one read needs; they are used again.
type buffers struct {
	sealed []byte
	plain  []byte
	raw    []byte
}

// read gives n bytes of plaintext from offset on, in buf.plain.
func (f *sealedFile) read(ctx context.Context, offset, n int64, buf *buffers) ([]byte, error) {
	if err := f.open(ctx); err != nil {
		return nil, err
	}
	if offset < 0 || n < 1 || offset+n > f.size {
		return nil, errShort
	}
	first, last := offset/ageChunk, (offset+n-1)/ageChunk
	have, err := f.gather(ctx, first, last, buf)
	if err != nil {
		return nil, err
	}
	r, size, err := age.DecryptReaderAt(have, f.size, f.file)
	if err != nil {
		return nil, &cipherError{offset, err}
	}
	if offset+n > size {
		return nil, errShort
	}
	if int64(cap(buf.plain)) < n {
		buf.plain = make([]byte, n)
	}
	buf.plain = buf.plain[:n]
	if got, err := r.ReadAt(buf.plain, offset); err != nil && (!errors.Is(err, io.EOF) || int64(got) != n) {
		return nil, &cipherError{offset + int64(got), err}
	}
	f.remember(have, first, last)
	return buf.plain, nil
}

// gather has the chunks first to last at hand: from memory at the borders, and else with one request.
func (f *sealedFile) gather(ctx context.Context, first, last int64, buf *buffers) (extents, error) {
	if f.whole {
		return extents{{0, f.head}}, nil
	}
	have := extents{{0, f.head}, f.tail}
	from, to := f.body+first*sealedChunk, min(f.body+(last+1)*sealedChunk, f.size)
	f.mu.Lock()
	for _, e := range append(f.cache[:], f.tail) {
		if len(e.bytes) == 0 {
			continue
		}
		if e.offset == from && e.end() <= to {
			have, from = append(have, e), e.end()
		} else if e.end() == to && e.offset >= from {
			have, to = append(have, e), e.offset
		}
	}
	f.mu.Unlock()
	if from >= to {
		return have, nil
	}
	b, err := f.fetch(ctx, from, to-from, buf.sealed)
	if err != nil {
		return nil, err
	}
	buf.sealed = b
	return append(have, extent{from, b}), nil
}

// remember keeps copies of the chunks at both borders, unless they are at hand already.
func (f *sealedFile) remember(have extents, first, last int64) {
	if f.whole {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fetched := have[len(have)-1]
	for _, chunk := range []int64{first, last} {
		from := f.body + chunk*sealedChunk
		to := min(from+sealedChunk, f.size)
		if from < fetched.offset || to > fetched.end() || from >= f.tail.offset || f.remembers(from) {
			continue
		}
		slot := &f.cache[f.next%cachedChunks]
		f.next++
		*slot = extent{from, bytes.Clone(fetched.bytes[from-fetched.offset : to-fetched.offset])}
	}
}

func (f *sealedFile) remembers(offset int64) bool {
	for _, e := range f.cache {
		if e.offset == offset && len(e.bytes) > 0 {
			return true
		}
	}
	return false
}

// fileError turns what a read of the file met into the error for the caller: a DamageError, unless the store just failed.
func fileError(backup, file string, offset int64, err error) error {
	var cipher *cipherError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &cipher):
		return &DamageError{Backup: backup, File: file, Offset: cipher.offset, Detail: "it does not decrypt", Err: cipher.err}
	case errors.Is(err, plugins.ErrNotFound):
		return &DamageError{Backup: backup, File: file, Offset: -1, Detail: "it is missing", Err: err}
	case errors.Is(err, plugins.ErrRange), errors.Is(err, errShort):
		return &DamageError{Backup: backup, File: file, Offset: offset, Detail: "it is cut short", Err: err}
	case errors.Is(err, errLong):
		return &DamageError{Backup: backup, File: file, Offset: -1, Detail: "there are bytes after its end", Err: err}
	}
	return fmt.Errorf("backup %s: %w", backup, err)
}
