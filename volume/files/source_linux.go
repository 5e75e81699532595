package files

import (
	"errors"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// source reads a file, and does not read its holes: they are zeros by definition.
type source struct {
	in     *os.File
	size   int64 // when it was opened
	sparse bool
	read   *atomic.Int64 // counts bytes that were read

	at    int64
	until int64 // the end of the run that at is in
	data  bool  // that run is data, not a hole
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if !s.sparse {
		n, err := s.in.Read(p)
		s.read.Add(int64(n))
		return n, err
	}
	if s.at >= s.size {
		return 0, io.EOF
	}
	if s.at >= s.until {
		if err := s.run(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), s.until-s.at)]
	if !s.data {
		clear(p)
		s.at += int64(len(p))
		return len(p), nil
	}
	n, err := s.in.ReadAt(p, s.at)
	s.at += int64(n)
	s.read.Add(int64(n))
	if n > 0 && errors.Is(err, io.EOF) { // it was cut short; the next read says so
		err = nil
	}
	return n, err
}

// run finds the run that begins at s.at.
func (s *source) run() error {
	next, err := s.in.Seek(s.at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // a hole to the end
		s.data, s.until = false, s.size
		return nil
	case errors.Is(err, unix.EINVAL): // a file system without holes
		s.data, s.until = true, s.size
		return nil
	case err != nil:
		return err
	case next > s.at:
		s.data, s.until = false, min(next, s.size)
		return nil
	}
	end, err := s.in.Seek(s.at, unix.SEEK_HOLE)
	if err != nil {
		return err
	}
	s.data, s.until = true, min(end, s.size)
	return nil
}
