package archive_test

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/plugins/file"
)

// mixed is n objects of a few resources, about 2 KiB each.
func mixed(n int) *sample {
	r := mathrand.New(mathrand.NewPCG(9, 9))
	s := &sample{}
	for i := range 5 {
		s.sections = append(s.sections, makeSection(r, archive.SectionOptions{Group: "apps", Version: "v1", Resource: fmt.Sprintf("things%d", i), Sorted: true}, "Thing", 50, n/5, 1200+500*i))
	}
	return s
}

func (s *sample) size() (n int64) {
	for _, sec := range s.sections {
		for _, item := range sec.items {
			n += int64(len(item.raw))
		}
	}
	return n
}

// cpu is the processor time that the process has used: on a machine that others use too it says more than the clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rate reports objects per second of the clock and microseconds of processor time per object.
func rate(b *testing.B, objects int, since time.Duration) {
	b.Helper()
	b.ReportMetric(float64(objects)*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
	b.ReportMetric(float64((cpu(b)-since).Microseconds())/float64(objects*b.N), "cpu-us/object")
}

func BenchmarkWrite(b *testing.B) {
	const objects = 10000
	s := mixed(objects)
	for _, sorted := range []bool{true, false} {
		for i := range s.sections {
			s.sections[i].opts.Sorted = sorted
		}
		b.Run(fmt.Sprintf("sorted=%v", sorted), func(b *testing.B) {
			store, err := file.New(v1alpha1.FileLocation{Path: b.TempDir()}, file.Options{})
			if err != nil {
				b.Fatal(err)
			}
			l, _ := location(b, store)
			b.SetBytes(s.size())
			b.ReportAllocs()
			n, since := 0, cpu(b)
			for b.Loop() {
				write(b, l, writeOptions(b, "bench", fmt.Sprint("uid-", n)), s)
				n++
			}
			rate(b, objects, since)
		})
	}
}

// BenchmarkAdd is the hot path alone: what the goroutine that lists pays for each object, compression included.
func BenchmarkAdd(b *testing.B) {
	s := mixed(5000).sections[1]
	l, _ := location(b, newMemory())
	b.SetBytes(int64(len(s.items[0].raw)))
	b.ReportAllocs()
	_, err := l.Write(b.Context(), writeOptions(b, "bench", "uid"), func(ctx context.Context, w *archive.Writer) (*archive.Summary, error) {
		i := 0
		var out *archive.Section
		for b.Loop() {
			if i%len(s.items) == 0 {
				if out != nil {
					out.Abort()
				}
				var err error
				if out, err = w.Section(s.opts); err != nil {
					return nil, err
				}
			}
			item := s.items[i%len(s.items)]
			if err := out.Add(ctx, item.row, item.raw); err != nil {
				return nil, err
			}
			i++
		}
		return &archive.Summary{}, out.Close(ctx)
	})
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRead(b *testing.B) {
	const objects = 10000
	s := mixed(objects)
	store, err := file.New(v1alpha1.FileLocation{Path: b.TempDir()}, file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	l, keys := location(b, store)
	write(b, l, writeOptions(b, "bench", "uid"), s)
	e, err := l.Find(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, fn func(r *archive.Reader) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(s.size())
			b.ReportAllocs()
			since := cpu(b)
			for b.Loop() {
				r, err := l.OpenBackup(b.Context(), e, keys, archive.ReadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				if err := fn(r); err != nil {
					b.Fatal(err)
				}
			}
			rate(b, objects, since)
		})
	}
	run("rows", func(r *archive.Reader) error {
		return r.Rows(b.Context(), nil, func(int, archive.Row) error { return nil })
	})
	run("items", func(r *archive.Reader) error {
		group, ctx := errgroup.WithContext(b.Context())
		group.SetLimit(runtime.GOMAXPROCS(0))
		for i := range r.Record().Frames {
			group.Go(func() error { return r.Items(ctx, i, nothing) })
		}
		return group.Wait()
	})
	run("verify", func(*archive.Reader) error {
		res, err := archive.Verify(b.Context(), l, e, keys, archive.VerifyOptions{Deep: true})
		if err == nil && !res.OK() {
			err = fmt.Errorf("%v", res.Problems)
		}
		return err
	})
}
