package download

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// The bounds of a part.
const (
	// fullAt is where a part takes no more, in compressed bytes. What the compressor still holds then is less than 200 KiB, so that a part with
	// its encryption and its base64 fits into an object of the API (1.5 MiB).
	fullAt = 500 << 10
	// maxRaw bounds what a part unpacks to.
	maxRaw = 32 << 20
	// step is how much is given to the compressor at once.
	step = 64 << 10
)

// Part is a piece of an answer.
type Part struct {
	// Data is zstd in age.
	Data []byte
	// Next is where the rest begins; nil at the end.
	Next *int64
}

// errFull ends the making of an answer of which a part is enough.
var errFull = errors.New("the part is full")

// window is the writer of a whole answer that keeps a part of it: from an offset on, as much as a part takes.
type window struct {
	skip   int64
	taken  int64
	packed bytes.Buffer
	zip    *zstd.Encoder
}

func newWindow(offset int64) (*window, error) {
	w := &window{skip: offset}
	var err error
	w.zip, err = zstd.NewWriter(&w.packed, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	return w, err
}

// Write takes the next bytes of the answer; errFull says that the part needs no more.
func (w *window) Write(p []byte) (int, error) {
	n := len(p)
	if w.skip > 0 {
		cut := min(w.skip, int64(len(p)))
		w.skip -= cut
		p = p[cut:]
	}
	for len(p) > 0 {
		if w.packed.Len() >= fullAt || w.taken >= maxRaw {
			return 0, errFull
		}
		now := p[:min(len(p), step)]
		if _, err := w.zip.Write(now); err != nil {
			return 0, err
		}
		w.taken += int64(len(now))
		p = p[len(now):]
	}
	return n, nil
}

// seal ends the part and encrypts it.
func (w *window) seal(offset int64, full bool, to age.Recipient) (*Part, error) {
	if err := w.zip.Close(); err != nil {
		return nil, fmt.Errorf("compress the answer: %w", err)
	}
	if w.skip > 0 {
		return nil, fmt.Errorf("spec.offset: %d is beyond the end of the answer, which has %d bytes", offset, offset-w.skip)
	}
	var sealed bytes.Buffer
	encrypt, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt the answer: %w", err)
	}
	if _, err := io.Copy(encrypt, &w.packed); err != nil {
		return nil, fmt.Errorf("encrypt the answer: %w", err)
	}
	if err := encrypt.Close(); err != nil {
		return nil, fmt.Errorf("encrypt the answer: %w", err)
	}
	p := &Part{Data: sealed.Bytes()}
	if full {
		next := offset + w.taken
		p.Next = &next
	}
	return p, nil
}

// openPart is the reverse: it writes the bytes of a part to w and says how many they are.
func openPart(data []byte, id age.Identity, w io.Writer) (int64, error) {
	packed, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return 0, fmt.Errorf("decrypt the answer: %w", err)
	}
	plain, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return 0, fmt.Errorf("decompress the answer: %w", err)
	}
	defer plain.Close()
	n, err := io.Copy(w, io.LimitReader(plain, maxRaw+step+1))
	if err != nil {
		return n, fmt.Errorf("read the answer: %w", err)
	}
	if n > maxRaw+step {
		return n, errors.New("read the answer: it is larger than a server makes it")
	}
	return n, nil
}
