package block

import (
	"context"
	"sync"
	"time"

	"kedge.dev/kedge/plugins"
)

// buffers are blocks' worth of memory that workers share; their number bounds the workers.
type buffers chan []byte

func newBuffers(n int) buffers {
	b := make(buffers, n)
	for range n {
		b <- nil // made when first taken
	}
	return b
}

// take waits for a buffer; the error is the context's.
func (b buffers) take(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case buf := <-b:
		if buf == nil {
			buf = make([]byte, blockSize)
		}
		return buf, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (b buffers) give(buf []byte) { b <- buf }

// meter counts, and tells.
type meter struct {
	now   func() time.Time
	tell  func(Progress)
	start time.Time

	mu sync.Mutex
	p  Progress
}

func newMeter(now func() time.Time, tell func(Progress), sizeBytes int64) *meter {
	return &meter{now: now, tell: tell, start: now(), p: Progress{SizeBytes: sizeBytes}}
}

// add counts blocks that are to do.
func (m *meter) add(blocks []plugins.Block, sizeBytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		m.p.TotalBytes += blockLength(b.Index, sizeBytes)
	}
}

// listed says that no more blocks will be added.
func (m *meter) listed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Listed = true
}

// offset says up to where all is done.
func (m *meter) offset(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Offset = min(max(m.p.Offset, bytes), m.p.SizeBytes)
}

// block counts a block that is done.
func (m *meter) block(b plugins.Block, sizeBytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Blocks++
	m.p.Bytes += blockLength(b.Index, sizeBytes)
	m.p.Elapsed = m.now().Sub(m.start)
	if s := m.p.Elapsed.Seconds(); s > 0 {
		m.p.BytesPerSecond = float64(m.p.Bytes) / s
	}
	if m.tell != nil {
		m.tell(m.p)
	}
}
