package restore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// maxRecord bounds one line of a journal.
const maxRecord = 4 << 20

// FileJournal keeps a journal in a local file, one JSON record a line. A record is handed to the kernel before Append returns,
// so it survives the kill of the process; Close also brings it to the disk.
type FileJournal struct {
	mu   sync.Mutex
	file *os.File
	torn bool // the last line has no end
	buf  bytes.Buffer
}

// OpenFileJournal opens the journal at path, or begins one, readable by its owner only: it holds the restore's spec. A
// journal that another process writes is refused.
func OpenFileJournal(path string) (*FileJournal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal %s: another process is at work with it: wait for it, or end it: %w", path, err), f.Close())
	}
	j := &FileJournal{file: f}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		_, err = f.ReadAt(last, info.Size()-1)
		j.torn = last[0] != '\n'
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal %s: %w", path, err), f.Close())
	}
	return j, nil
}

// Replay reads the file from its beginning.
func (j *FileJournal) Replay(ctx context.Context, fn func(Record) error) error {
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(j.file, 0, info.Size()), 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the journal %s: line %d: %w", j.file.Name(), n, err)
		}
		var rec Record
		if json.Unmarshal(line, &rec) != nil {
			continue // a kill cut it; its object is found in the target by its field manager
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}

// readLine gives one line without its end. A last line that has none was cut by a kill and counts as the end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxRecord:
			return nil, fmt.Errorf("it is longer than %d bytes", maxRecord)
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// Append writes the records in one write.
func (j *FileJournal) Append(_ context.Context, records ...Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.Reset()
	if j.torn {
		j.buf.WriteByte('\n')
	}
	enc := json.NewEncoder(&j.buf)
	enc.SetEscapeHTML(false)
	for i := range records {
		if err := enc.Encode(&records[i]); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	j.torn = false
	if _, err := j.file.Write(j.buf.Bytes()); err != nil {
		j.torn = true
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// Close brings the journal to the disk and lets go of it.
func (j *FileJournal) Close() error {
	return errors.Join(j.file.Sync(), j.file.Close())
}
