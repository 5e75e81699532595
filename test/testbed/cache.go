//go:build unix

package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// CacheEnv names the environment variable that overrides where built programs are kept.
const CacheEnv = "KEDGE_TESTBED_CACHE"

// CacheDir is where built programs are kept: $KEDGE_TESTBED_CACHE, or kedge/testbed in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (set %s to choose one): %w", CacheEnv, err)
	}
	return filepath.Join(base, "kedge", "testbed"), nil
}

// A recipe makes one program, in one version.
type recipe struct {
	name    string // "kubernetes-v1.36.3": the folder in the cache
	advice  string // how long a cold build takes, for people
	version string // of whatever the recipe itself decides; a change rebuilds
	// build makes everything in folder out, with src as a place to work in that stays for the next time.
	build func(ctx context.Context, src, out string, progress *progress) error
}

// ensure returns the folder that holds what the recipe makes, and makes it where it is missing. Of any number of callers in any
// number of processes one builds and the others wait; a build that is cut short leaves nothing that looks finished.
func ensure(ctx context.Context, r recipe) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	done := filepath.Join(cache, "bin", r.name+"-r"+r.version)
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	p := newProgress(os.Stderr, r.name)
	unlock, err := lock(ctx, filepath.Join(cache, "lock", r.name), p)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(done); err == nil { // by another process, while this one waited
		return done, nil
	}
	return done, makeInto(ctx, r, cache, done, p)
}

func makeInto(ctx context.Context, r recipe, cache, done string, p *progress) error {
	src := filepath.Join(cache, "src", r.name)
	for _, dir := range []string{src, filepath.Dir(done)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	out, err := os.MkdirTemp(filepath.Dir(done), ".building-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(out) }()
	p.say("building, once (%s)", r.advice)
	stop := p.tick(ctx)
	err = r.build(ctx, src, out, p)
	stop()
	if err != nil {
		return fmt.Errorf("build %s: %w", r.name, err)
	}
	if err := os.Chmod(out, 0o755); err != nil {
		return err
	}
	if err := os.Rename(out, done); err != nil {
		return err
	}
	p.say("built")
	return nil
}

// lock takes an advisory lock (flock(2)) that ends with the process that holds it.
func lock(ctx context.Context, path string, p *progress) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited {
			p.say("waiting for another process that builds it")
			waited = true
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// progress tells people what a long build does.
type progress struct {
	w        io.Writer
	name     string
	start    time.Time
	packages atomic.Int64
}

func newProgress(w io.Writer, name string) *progress {
	return &progress{w: w, name: name, start: time.Now()}
}

func (p *progress) say(format string, args ...any) {
	_, _ = fmt.Fprintf(p.w, "testbed: %s: %s [%s]\n", p.name, fmt.Sprintf(format, args...), time.Since(p.start).Round(time.Second))
}

// tick says every ten seconds how far the compiler is, until stop is called.
func (p *progress) tick(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Second):
				p.say("%d packages compiled", p.packages.Load())
			}
		}
	}()
	return func() { cancel(); <-done }
}

// goTool runs the go command in dir; -v output is counted as progress. An error holds the last lines of the command's.
func goTool(ctx context.Context, dir string, p *progress, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// A workspace or flags of the caller's would change what is built.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	cmd.Env = append(cmd.Env, env...)
	var stdout strings.Builder
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run the go command: %w", err)
	}
	var tail []string
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		p.packages.Add(1)
		if tail = append(tail, lines.Text()); len(tail) > 20 {
			tail = tail[1:]
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, strings.Join(tail, "\n"))
	}
	return []byte(stdout.String()), nil
}
