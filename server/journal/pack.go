package journal

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// maxPlain bounds what one Secret may unpack to.
const maxPlain = 8 << 20

// pack compresses the data of one Secret.
func pack(plain []byte) ([]byte, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	defer encoder.Close()
	return encoder.EncodeAll(plain, nil), nil
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
