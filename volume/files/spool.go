package files

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// spool collects bytes, in memory first and in an unnamed file of dir once there are more than spoolMemory. It is not
// safe for concurrent use.
type spool struct {
	dir  string
	mem  []byte
	file *os.File
	size int64
}

// unnamedFile makes a file that nobody else can open, and that is gone when it is closed.
func unnamedFile(dir string) (*os.File, error) {
	if dir == "" {
		return nil, fmt.Errorf("open spool: SpoolDir is needed")
	}
	f, err := os.CreateTemp(dir, "kedge-files-*")
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return f, nil
}

func (s *spool) write(parts ...[]byte) error {
	for _, p := range parts {
		s.mem = append(s.mem, p...)
		s.size += int64(len(p))
	}
	if len(s.mem) < spoolMemory {
		return nil
	}
	return s.spill()
}

func (s *spool) spill() error {
	if s.file == nil {
		f, err := unnamedFile(s.dir)
		if err != nil {
			return err
		}
		s.file = f
	}
	if _, err := s.file.WriteAt(s.mem, s.size-int64(len(s.mem))); err != nil {
		return fmt.Errorf("write spool: %w (give it a folder with more room)", err)
	}
	s.mem = s.mem[:0]
	return nil
}

// section reads the bytes from..to; later writes do not disturb it as long as nobody writes while it is read.
func (s *spool) section(from, to int64) io.Reader {
	spilled := s.size - int64(len(s.mem))
	var parts []io.Reader
	if from < spilled {
		end := min(to, spilled)
		parts = append(parts, io.NewSectionReader(s.file, from, end-from))
		from = end
	}
	if from < to {
		parts = append(parts, bytes.NewReader(s.mem[from-spilled:to-spilled]))
	}
	return io.MultiReader(parts...)
}

func (s *spool) close() {
	s.mem, s.size = nil, 0
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}
