//go:build unix

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// guard is a shell script that becomes the server named by its arguments, and leaves a watcher beside it. The watcher reads from a
// pipe whose other end only the process that started the server holds, so that it wakes when that process ends in whatever
// way, SIGKILL included; it then kills the server and removes the server's folder, again for two seconds, since what the server had started may
// write a last time before it ends too. The word "keep" sends it away before that. (The parent death signal of prctl(2) would do
// on Linux alone, and it fires when a thread ends.)
const guard = `exec 3<&0
(read -r word; [ "$word" = keep ] && exit; kill -9 $$; for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$KEDGE_TESTBED_DIR"; rmdir "$(dirname "$KEDGE_TESTBED_DIR")"; sleep 0.2; done) <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-`

// process is a server that runs.
type process struct {
	name  string
	dir   string // its own, removed with it
	cmd   *exec.Cmd
	leash io.WriteCloser // closing it ends the server
	done  chan struct{}
	err   error // why it ended; valid once done is closed
}

// startProcess runs program with args in a folder parent/name of its own. The program's output goes to a file "log" in it.
func startProcess(parent, name, program string, args ...string) (*process, error) {
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	cmd := exec.Command("/bin/sh", append([]string{"-c", guard, name, program}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(serverEnv(), "KEDGE_TESTBED_DIR="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, dir: dir, cmd: cmd, leash: leash, done: make(chan struct{})}
	go func() { // ends with the server
		defer close(p.done)
		p.err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the watcher; it keeps the group, so its id is not another's
	}()
	return p, nil
}

// serverEnv is the environment without what would make servers or their clients behave in other ways.
func serverEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "ETCD_"), strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "VGW_"),
			strings.HasPrefix(name, "ROOT_"), strings.HasPrefix(name, "KUBE_"), strings.HasSuffix(strings.ToLower(name), "_proxy"), name == "KUBECONFIG":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// stop kills the server, waits for its end, and removes its folder.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	_ = p.leash.Close()
	_ = os.RemoveAll(p.dir)
}

// release sends the watcher away: the server can end, and its folder stays.
func (p *process) release() error {
	if _, err := io.WriteString(p.leash, "keep\n"); err != nil {
		return fmt.Errorf("keep the folder of %s: %w", p.name, err)
	}
	return nil
}

// errEnded is the cause where a server ended without an error.
var errEnded = errors.New("exit status 0")

// failure explains a server that ended by itself, with the end of its log.
func (p *process) failure() error {
	cause := p.err
	if cause == nil {
		cause = errEnded
	}
	return fmt.Errorf("%s ended: %w\n%s", p.name, cause, p.logTail(4096))
}

func (p *process) logTail(n int64) string {
	f, err := os.Open(filepath.Join(p.dir, "log"))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, n))
	return string(bytes.ToValidUTF8(text, nil))
}

// pollEvery is how often a server is asked whether it is ready.
const pollEvery = 25 * time.Millisecond

// waitReady polls ready until it gives nil. It fails when a server ends first, or ctx does; then with ready's last answer.
func waitReady(ctx context.Context, what string, ready func(context.Context) error, servers ...*process) error {
	for {
		last := ready(ctx)
		if last == nil {
			return nil
		}
		for _, p := range servers {
			select {
			case <-p.done:
				return p.failure()
			default:
			}
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("wait for %s: %w; last: %w", what, context.Cause(ctx), last)
			for _, p := range servers {
				err = fmt.Errorf("%w\n%s: %s", err, p.name, p.logTail(2048))
			}
			return err
		case <-time.After(pollEvery):
		}
	}
}

// errPortTaken means that another program took a port between the moment the kernel gave it and the server's bind.
var errPortTaken = errors.New("port was taken by another program")

// freePort asks the kernel for a port on the loopback address.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// retryPorts starts something again where a port was taken meanwhile.
func retryPorts[T any](start func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		v, err := start()
		if err == nil || attempt == 5 || !portTaken(err) {
			return v, err
		}
	}
}

func portTaken(err error) bool {
	return errors.Is(err, errPortTaken) || strings.Contains(err.Error(), "address already in use")
}

// workDir makes a folder for servers' data. It is empty again, and removed, when the last server has ended.
func workDir() (string, error) { return os.MkdirTemp("", "kedge-testbed-") }
