package archive

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// logFrame is how much of a log is compressed at a time.
const logFrame = 256 << 10

// logSpool collects a backup's log, JSON lines, compressed and spooled as it grows.
type logSpool struct {
	now   func() time.Time
	spool *spool

	mu      sync.Mutex
	enc     *zstd.Encoder
	lines   bytes.Buffer
	handler slog.Handler
	parts   []part
	err     error
}

func newLogSpool(s *spool, now func() time.Time) (*logSpool, error) {
	enc, err := newEncoder(0)
	if err != nil {
		return nil, err
	}
	l := &logSpool{now: now, spool: s, enc: enc}
	l.handler = slog.NewJSONHandler(&l.lines, &slog.HandlerOptions{Level: slog.LevelDebug})
	return l, nil
}

func (l *logSpool) add(ctx context.Context, level slog.Level, msg string, attrs []slog.Attr) {
	rec := slog.NewRecord(l.now().UTC(), level, msg, 0)
	rec.AddAttrs(attrs...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	if l.err = l.handler.Handle(ctx, rec); l.err == nil && l.lines.Len() >= logFrame {
		l.err = l.flush()
	}
}

func (l *logSpool) flush() error {
	b, _, err := l.spool.put(l.enc.EncodeAll(l.lines.Bytes(), nil))
	l.lines.Reset()
	l.parts = append(l.parts, part{blob: b})
	return err
}

// close returns the parts of the log's file.
func (l *logSpool) close() ([]part, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = l.flush() // an empty log is an empty frame
	}
	return l.parts, l.err
}
