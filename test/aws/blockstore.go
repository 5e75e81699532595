package aws

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// blockSize is how many bytes a block of a snapshot has ("EBS direct APIs: concepts" of the Amazon EBS User Guide).
const blockSize = 512 << 10

type digest = [sha256.Size]byte

// blockStore keeps each block once, in one file. Blocks of deleted snapshots stay.
type blockStore struct {
	file *os.File

	mu     sync.Mutex
	end    int64
	places map[digest]int64
}

func openBlocks(path string) (*blockStore, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the store of blocks: %w", err)
	}
	return &blockStore{file: file, places: map[digest]int64{}}, nil
}

func (s *blockStore) close() error { return s.file.Close() }

// put stores a block that has the hash.
func (s *blockStore) put(sum digest, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.places[sum]; ok {
		return nil
	}
	if _, err := s.file.WriteAt(data, s.end); err != nil {
		return fmt.Errorf("store a block: %w", err)
	}
	s.places[sum] = s.end
	s.end += int64(len(data))
	return nil
}

func (s *blockStore) get(sum digest) ([]byte, error) {
	s.mu.Lock()
	place, ok := s.places[sum]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no block %x", sum[:4])
	}
	data := make([]byte, blockSize)
	if _, err := s.file.ReadAt(data, place); err != nil {
		return nil, fmt.Errorf("read a block: %w", err)
	}
	return data, nil
}

// capture stores every block of a sparse file in which anything was ever written.
func (s *blockStore) capture(path string) (map[int32]digest, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a volume: %w", err)
	}
	defer file.Close()
	found := map[int32]digest{}
	data := make([]byte, blockSize)
	for offset := int64(0); ; {
		begin, err := file.Seek(offset, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return found, nil // nothing but a hole from here on
		}
		if err != nil {
			return nil, fmt.Errorf("seek data of a volume: %w", err)
		}
		end, err := file.Seek(begin, seekHole)
		if err != nil {
			return nil, fmt.Errorf("seek a hole of a volume: %w", err)
		}
		offset = begin - begin%blockSize
		for ; offset < end; offset += blockSize {
			if _, err := file.ReadAt(data, offset); err != nil && !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read a volume: %w", err)
			}
			sum := sha256.Sum256(data)
			if err := s.put(sum, data); err != nil {
				return nil, err
			}
			found[int32(offset/blockSize)] = sum
		}
	}
}

// restore writes blocks to a sparse file of so many bytes.
func (s *blockStore) restore(path string, size int64, blocks map[int32]digest) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make a volume: %w", err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return fmt.Errorf("make a volume: %w", err)
	}
	for index, sum := range blocks {
		data, err := s.get(sum)
		if err != nil {
			return err
		}
		if _, err := file.WriteAt(data, int64(index)*blockSize); err != nil {
			return fmt.Errorf("write a volume: %w", err)
		}
	}
	return file.Close()
}
