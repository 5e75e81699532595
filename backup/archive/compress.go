package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ageChunk is what age encrypts and authenticates at a time; reading one byte of it means reading all of it.
const ageChunk = 64 << 10

// windowSize is how far back a compressor looks. Each holds about twice as much of memory: with less room it would move all of it for every block. Half
// of a MiB takes two thirds of the time that one whole takes in that much less memory, and 2 % more space (real applications' manifests, 2 MiB frames).
const windowSize = 512 << 10

// Padding is a zstd skippable frame, which every zstd tool passes over.
const (
	skippableMagic  = 0x184D2A50
	skippableHeader = 8
	maxPadding      = ageChunk
)

// padding says how many bytes to put before a frame of size at offset, so that a reader of the frame alone does not
// fetch one chunk more than the frame's size needs. Wasting more than the frame itself is not worth it.
func padding(offset, size int64) int64 {
	in := offset % ageChunk
	pad := ageChunk - in
	if in == 0 || pad < skippableHeader || pad > size {
		return 0
	}
	if (in+size+ageChunk-1)/ageChunk <= (size+ageChunk-1)/ageChunk {
		return 0
	}
	return pad
}

// endPaddingFrom is the size from which on a file's end gets a chunk of its own.
const endPaddingFrom = 16 * ageChunk

// endPadding says how many bytes to put before the end of a file, which has size bytes, so that the end stands alone in the last chunk: a
// reader needs that chunk whatever else it reads, since it proves how long the file is. In a small file that would waste more than it saves.
func endPadding(offset, size int64) int64 {
	pad := ageChunk - offset%ageChunk
	if offset < endPaddingFrom || pad == ageChunk || pad < skippableHeader || pad+size > ageChunk {
		return 0
	}
	return pad
}

// skippable is a skippable frame of n bytes in all, its content zeros.
func skippable(n int64) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint32(b, skippableMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(n-skippableHeader))
	return b
}

// newEncoder makes an encoder for EncodeAll whose memory does not grow with the machine.
func newEncoder(level int) (*zstd.Encoder, error) {
	speed := zstd.SpeedDefault
	if level != 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(speed),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(windowSize),
		zstd.WithLowerEncoderMem(false),
		zstd.WithZeroFrames(true),
	)
	if err != nil {
		return nil, fmt.Errorf("open zstd encoder: %w", err)
	}
	return enc, nil
}

// newDecoder makes a decoder for DecodeAll that never writes beyond the capacity of its destination.
func newDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxFrameRaw),
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		return nil, fmt.Errorf("open zstd decoder: %w", err)
	}
	return dec, nil
}

// newStreamDecoder reads a stream of unknown length with little memory.
func newStreamDecoder(r io.Reader) (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("open zstd decoder: %w", err)
	}
	return dec, nil
}

// decompress takes a frame apart whose sizes the frame table states.
func decompress(dec *zstd.Decoder, frame, buf []byte, rawSize int64) ([]byte, error) {
	if rawSize < 0 || rawSize > maxFrameRaw {
		return nil, fmt.Errorf("%d bytes decompressed", rawSize)
	}
	if int64(cap(buf)) < rawSize {
		buf = make([]byte, 0, rawSize)
	}
	raw, err := dec.DecodeAll(frame, buf[:0:rawSize])
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != rawSize {
		return nil, fmt.Errorf("it has %d bytes decompressed, its table says %d", len(raw), rawSize)
	}
	return raw, nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// compressor is one worker of a Writer.
type compressor struct {
	w   *Writer
	enc *zstd.Encoder
	out []byte
}

// job is a frame on its way to a compressor.
type job struct {
	section *Section
	seq     int
	pending *pending
}

// packed is a compressed frame in the spool.
type packed struct {
	frame Frame
	items blob
	rows  blob
}

func (c *compressor) run() error {
	for {
		select {
		case j, ok := <-c.w.jobs:
			if !ok {
				return nil
			}
			if err := c.pack(j); err != nil {
				return err
			}
		case <-c.w.stopped:
			return nil
		}
	}
}

func (c *compressor) pack(j job) error {
	p := packed{frame: j.pending.frame}
	var err error
	c.out = c.enc.EncodeAll(j.pending.items, c.out[:0])
	p.frame.RawSize, p.frame.Size, p.frame.SHA256 = int64(len(j.pending.items)), int64(len(c.out)), hexSum(c.out)
	if p.items, c.out, err = c.w.spool.put(c.out); err != nil {
		return err
	}
	c.out = c.enc.EncodeAll(j.pending.rows, c.out[:0])
	p.frame.IndexRawSize, p.frame.Index.Size, p.frame.Index.SHA256 = int64(len(j.pending.rows)), int64(len(c.out)), hexSum(c.out)
	if p.rows, c.out, err = c.w.spool.put(c.out); err != nil {
		return err
	}
	c.w.release(j.pending)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	j.section.packed = append(j.section.packed, packedAt{j.seq, p})
	return nil
}

// packedAt is a packed frame with its place in its section.
type packedAt struct {
	seq int
	packed
}
