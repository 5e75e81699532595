package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"kedge.dev/kedge/restore"
)

// The bounds of what is kept of a restore.
const (
	pieceSize = 700 << 10
	maxPieces = 64
	maxReport = 256 << 20 // decompressed
	maxLog    = 8 << 20   // of one attempt
	maxEnd    = 64 << 10  // of that, what is kept free for how it ends
	logChunk  = 2 << 20   // before compression
)

// reportHead begins the first Secret of a report, which is written last: where it is, the report is whole.
type reportHead struct {
	Pieces int    `json:"pieces"`
	SHA256 string `json:"sha256"` // of the pieces, joined
}

// PutReport keeps the report of a restore for as long as its object is there. A report that is there already stays.
func PutReport(ctx context.Context, store *Store, report *restore.Report) error {
	s := series{store, "report"}
	members, err := s.members(ctx)
	if err != nil || len(members) > 0 && members[0].n == 1 {
		return err
	}
	if err := s.remove(ctx, members); err != nil { // of a process that was killed on its way
		return err
	}
	var packed bytes.Buffer
	encoder, err := zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	if err := errors.Join(json.NewEncoder(encoder).Encode(report), encoder.Close()); err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	sum := sha256.Sum256(packed.Bytes())
	pieces := slices.Collect(slices.Chunk(packed.Bytes(), pieceSize))
	if len(pieces) > maxPieces {
		return fmt.Errorf("keep the report: %d bytes, compressed, are more than Secrets shall hold", packed.Len())
	}
	for i := len(pieces) - 1; i > 0; i-- {
		if err := s.create(ctx, i+1, pieces[i]); err != nil {
			return fmt.Errorf("keep the report: %w", err)
		}
	}
	head, err := json.Marshal(reportHead{Pieces: len(pieces), SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	if err := s.create(ctx, 1, slices.Concat(head, []byte("\n"), pieces[0])); err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	return nil
}

// ReadReport gives the report that PutReport kept; nil where there is none.
func ReadReport(ctx context.Context, store *Store) (*restore.Report, error) {
	s := series{store, "report"}
	numbers, err := s.numbers(ctx)
	if err != nil || !slices.Contains(numbers, 1) {
		return nil, err
	}
	first, err := s.get(ctx, 1)
	if err != nil {
		return nil, err
	}
	line, piece, _ := bytes.Cut(first, []byte("\n"))
	var head reportHead
	if err := json.Unmarshal(line, &head); err != nil || head.Pieces < 1 || head.Pieces > maxPieces {
		return nil, s.damaged(1, errors.New("it does not begin as a report does"))
	}
	packed := slices.Clone(piece)
	for n := 2; n <= head.Pieces; n++ {
		piece, err := s.get(ctx, n)
		if err != nil {
			return nil, err
		}
		packed = append(packed, piece...)
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != head.SHA256 {
		return nil, s.damaged(1, errors.New("its pieces are not those that it names"))
	}
	report, err := decodeReport(packed)
	if err != nil {
		return nil, s.damaged(1, err)
	}
	return report, nil
}

func decodeReport(packed []byte) (*restore.Report, error) {
	decoder, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	report := &restore.Report{}
	if err := json.NewDecoder(io.LimitReader(decoder, maxReport)).Decode(report); err != nil {
		return nil, err
	}
	return report, nil
}

// Log collects the log lines of one attempt at a restore; what is too much is counted. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	lines   bytes.Buffer
	dropped int
	ending  bool
}

// End has the next lines be those on how the attempt ends. They are taken where there is room for no others.
func (l *Log) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
}

// Write takes one line.
func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := maxLog
	if !l.ending {
		most -= maxEnd
	}
	if l.lines.Len()+len(line) > most {
		l.dropped++
		return len(line), nil
	}
	return l.lines.Write(line)
}

// Keep writes the lines behind those of earlier attempts.
func (l *Log) Keep(ctx context.Context, store *Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		fmt.Fprintf(&l.lines, "{\"level\":\"WARN\",\"msg\":\"lines were left out: the log is too long\",\"lines\":%d}\n", l.dropped)
	}
	s := series{store, "log"}
	numbers, err := s.numbers(ctx)
	if err != nil {
		return err
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	for rest := l.lines.Bytes(); len(rest) > 0; next++ {
		chunk := firstLines(rest, logChunk)
		rest = rest[len(chunk):]
		packed, err := pack(chunk)
		if err != nil {
			return fmt.Errorf("keep the log: %w", err)
		}
		if err := s.create(ctx, next, packed); err != nil {
			return fmt.Errorf("keep the log: %w", err)
		}
	}
	l.lines.Reset()
	return nil
}

// CopyLog writes the log of all attempts to w, JSON lines.
func CopyLog(ctx context.Context, store *Store, w io.Writer) error {
	s := series{store, "log"}
	numbers, err := s.numbers(ctx)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		packed, err := s.get(ctx, n)
		if err != nil {
			return err
		}
		plain, err := unpack(packed)
		if err != nil {
			return s.damaged(n, err)
		}
		if _, err := w.Write(plain); err != nil {
			return err
		}
	}
	return nil
}
