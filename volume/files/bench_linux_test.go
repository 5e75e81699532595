package files

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/fs/localfs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	"github.com/kopia/kopia/snapshot/upload"
	"golang.org/x/sys/unix"
)

// The trees of the benchmarks: many small files, and few large ones, half of whose bytes compress.
var benchTrees = []struct {
	name        string
	files, size int
}{{"small", 5000, 4 << 10}, {"large", 4, 32 << 20}}

func benchTree(b *testing.B, dir string, files, size int) int64 {
	b.Helper()
	random := rand.NewChaCha8([32]byte{1})
	old := time.Unix(1_700_000_000, 0)
	content := make([]byte, size)
	for i := range files {
		_, _ = random.Read(content[:size/2])
		path := filepath.Join(dir, fmt.Sprintf("d%d/e%d/file%d", i%10, i%100, i))
		writeFile(b, path, string(content))
		if err := os.Chtimes(path, old, old); err != nil {
			b.Fatal(err)
		}
	}
	return int64(files) * int64(size)
}

// kopiaCopy does what kopia's program does for "snapshot create", with the settings of a Copier.
func (r *testRepo) kopiaCopy(b *testing.B, dir string, source snapshot.SourceInfo, prev []*snapshot.Manifest) *snapshot.Manifest {
	b.Helper()
	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = w.Close(wctx) }()
	entry, err := localfs.NewEntry(dir)
	if err != nil {
		b.Fatal(err)
	}
	u := upload.NewUploader(w)
	u.ParallelUploads = defaultParallel
	man, err := u.Upload(wctx, entry, kopiaPolicy(), source, prev...)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := snapshot.SaveSnapshot(wctx, w, man); err != nil {
		b.Fatal(err)
	}
	if err := w.Flush(wctx); err != nil {
		b.Fatal(err)
	}
	return man
}

func (r *testRepo) kedgeCopy(b *testing.B, dir string, source snapshot.SourceInfo, prev []*snapshot.Manifest) *snapshot.Manifest {
	b.Helper()
	wctx, w, err := r.NewWriter(r.ctx, repo.WriteSessionOptions{Purpose: "test"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = w.Close(wctx) }()
	res, err := newCopier(b).Copy(wctx, w, CopyRequest{Dir: dir, Source: source, Previous: prev})
	if err != nil {
		b.Fatal(err)
	}
	return res.Manifest
}

// cpuTime is what this process has used so far. On a machine that others use too it says more than the clock does.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// withCPU runs one round of a benchmark, and reports its processor time.
func withCPU(b *testing.B, total *time.Duration, round func()) {
	b.Helper()
	before := cpuTime()
	round()
	*total += cpuTime() - before
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "cpu-ms/op")
}

type copyFunc func(b *testing.B, dir string, source snapshot.SourceInfo, prev []*snapshot.Manifest) *snapshot.Manifest

func eachEngine(b *testing.B, run func(b *testing.B, dir string, size int64, engine func(*testRepo) copyFunc)) {
	b.Helper()
	for _, tree := range benchTrees {
		dir := b.TempDir()
		size := benchTree(b, dir, tree.files, tree.size)
		b.Run(tree.name+"/kedge", func(b *testing.B) {
			run(b, dir, size, func(r *testRepo) copyFunc { return r.kedgeCopy })
		})
		b.Run(tree.name+"/kopia", func(b *testing.B) {
			run(b, dir, size, func(r *testRepo) copyFunc { return r.kopiaCopy })
		})
	}
}

// BenchmarkFirst copies to a new repository.
func BenchmarkFirst(b *testing.B) {
	eachEngine(b, func(b *testing.B, dir string, size int64, engine func(*testRepo) copyFunc) {
		b.Helper()
		b.SetBytes(size)
		b.ReportAllocs()
		var cpu time.Duration
		for range b.N {
			b.StopTimer()
			r := newRepo(b)
			b.StartTimer()
			withCPU(b, &cpu, func() { engine(r)(b, dir, testSource, nil) })
		}
	})
}

// BenchmarkUnchanged copies again what did not change.
func BenchmarkUnchanged(b *testing.B) {
	eachEngine(b, func(b *testing.B, dir string, size int64, engine func(*testRepo) copyFunc) {
		b.Helper()
		b.SetBytes(size)
		b.ReportAllocs()
		r := newRepo(b)
		man := engine(r)(b, dir, testSource, nil)
		var cpu time.Duration
		b.ResetTimer()
		for range b.N {
			withCPU(b, &cpu, func() { engine(r)(b, dir, testSource, []*snapshot.Manifest{man}) })
		}
	})
}

// BenchmarkRestore restores to a new folder.
func BenchmarkRestore(b *testing.B) {
	eachEngine(b, func(b *testing.B, dir string, size int64, engine func(*testRepo) copyFunc) {
		b.Helper()
		b.SetBytes(size)
		b.ReportAllocs()
		r := newRepo(b)
		man := engine(r)(b, dir, testSource, nil)
		kedge := filepath.Base(b.Name()) == "kedge"
		var cpu time.Duration
		b.ResetTimer()
		for n := range b.N {
			target := filepath.Join(b.TempDir(), fmt.Sprint(n))
			withCPU(b, &cpu, func() {
				if !kedge {
					r.kopiaRestore(b, man, target)
				} else if _, err := newRestorer(b).Restore(r.ctx, r, RestoreRequest{Manifest: man, Target: target}); err != nil {
					b.Fatal(err)
				}
			})
		}
	})
}

// kopiaRestore does what kopia's program does for "restore".
func (r *testRepo) kopiaRestore(b *testing.B, man *snapshot.Manifest, target string) {
	b.Helper()
	root, err := snapshotfs.SnapshotRoot(r, man)
	if err != nil {
		b.Fatal(err)
	}
	out := &restore.FilesystemOutput{TargetPath: target, OverwriteDirectories: true, OverwriteFiles: true, OverwriteSymlinks: true}
	if err := out.Init(r.ctx); err != nil {
		b.Fatal(err)
	}
	if _, err := restore.Entry(r.ctx, r, out, root, restore.Options{Parallel: defaultWriters, RestoreDirEntryAtDepth: 1 << 30}); err != nil {
		b.Fatal(err)
	}
}
