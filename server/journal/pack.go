package journal

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxPlain bounds what one Secret may unpack to.
const maxPlain = 8 << 20

// encoder is shared: one takes megabytes to make, and EncodeAll may be called from everywhere at once.
var encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(512<<10), zstd.WithLowerEncoderMem(true))
})

// pack compresses the data of one Secret.
func pack(plain []byte) ([]byte, error) {
	e, err := encoder()
	if err != nil {
		return nil, err
	}
	return e.EncodeAll(plain, nil), nil
}

// unpack is the reverse of pack, for bytes that anybody may have written.
func unpack(packed []byte) ([]byte, error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	plain, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress it: %w", err)
	}
	return plain, nil
}
