//go:build unix

package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Figures are what was measured.
type Figures struct {
	// FirstSync is from the start of the process until every backup of the bucket was shown, with its status.
	FirstSync time.Duration
	// Memory in bytes is the largest that the process had: while it showed the backups, while nothing happened, or after a start beside them.
	Memory int64
	// API and S3 are requests while nothing happened, for so long as Idle.
	API, S3 Tally
	Idle    time.Duration
}

// Measure has a server show the backups of a world, and then nothing to do for some minutes; then another, which finds everything shown.
func Measure(ctx context.Context, w *World, idle time.Duration, out io.Writer) (*Figures, error) {
	f := &Figures{Idle: idle}
	began := time.Now()
	err := w.withServer(ctx, func(s *Server) error {
		if err := s.WaitSynced(ctx); err != nil {
			return err
		}
		f.FirstSync = time.Since(began)
		if err := w.Check(ctx); err != nil {
			return err
		}
		if err := s.report(out, fmt.Sprintf("first sync (%.1f s)", f.FirstSync.Seconds()), f); err != nil {
			return err
		}
		if err := s.Watch(ctx, 30*time.Second); err != nil { // what the first sync set off is over then
			return err
		}
		if err := s.report(out, "after that", f); err != nil {
			return err
		}
		if err := s.Watch(ctx, idle); err != nil {
			return err
		}
		return s.report(out, "idle", f)
	})
	if err != nil {
		return nil, err
	}
	idleAPI, idleS3 := f.API, f.S3
	err = w.withServer(ctx, func(s *Server) error {
		if err := s.WaitHealthy(ctx); err != nil {
			return err
		}
		if err := s.Watch(ctx, 30*time.Second); err != nil {
			return err
		}
		return s.report(out, "second start", f)
	})
	f.API, f.S3 = idleAPI, idleS3
	return f, err
}

func (w *World) withServer(ctx context.Context, fn func(*Server) error) error {
	s, err := w.Serve(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.Stop())
}

// report prints and notes what was seen since the last one.
func (s *Server) report(out io.Writer, what string, f *Figures) error {
	memory, err := s.PeakMemory()
	if err != nil {
		return err
	}
	f.Memory = max(f.Memory, memory)
	if f.API, f.S3, err = s.Requests(); err != nil {
		return err
	}
	fmt.Fprintf(out, "server %s: peak memory %d MiB; API: %d requests: %s; S3: %d requests: %s\n", what, memory>>20, f.API.Total(), f.API, f.S3.Total(), f.S3)
	return nil
}
