//go:build unix

package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server is a process of the built binary.
type Server struct {
	log     string
	cmd     *exec.Cmd
	ended   chan struct{}
	err     error // once it has ended
	health  string
	metrics string
	audit   auditLog
	world   *World
}

// Serve starts a server in the world. Its log is a file in the world's folder.
func (w *World) Serve(ctx context.Context) (*Server, error) {
	cfg, err := w.cluster.ServiceAccountConfig(ctx, account)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := w.cluster.Kubeconfig(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{ended: make(chan struct{}), audit: auditLog{path: w.audit}, world: w}
	if s.health, err = freeAddress(ctx); err == nil {
		s.metrics, err = freeAddress(ctx)
	}
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(w.opts.Dir, "server-*.log")
	if err != nil {
		return nil, err
	}
	s.log = log.Name()
	s.cmd = exec.Command(w.opts.Kedge, "server", "--namespace", namespace, "--cluster-name", "house", "--kubeconfig", kubeconfig,
		"--metrics-address", s.metrics, "--health-address", s.health, "--spool-dir", filepath.Join(w.opts.Dir, "spool"))
	// The chart limits the memory to 1 GiB and says so to the runtime.
	s.cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=us-east-1", "GOMEMLIMIT="+strconv.Itoa(1<<30))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if _, err := s.audit.take(); err != nil { // what was before
		return nil, errors.Join(err, log.Close())
	}
	w.S3.Take()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() { // ends with the server
		defer close(s.ended)
		s.err = errors.Join(s.cmd.Wait(), log.Close())
	}()
	return s, nil
}

func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Stop ends the server as a Deployment does.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return s.err
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return errors.New("the server did not stop within a minute of SIGTERM")
	}
}

// Requests counts what the server asked of the API server and of S3 since the last call, or since it started.
func (s *Server) Requests() (api, s3 Tally, err error) {
	api, err = s.audit.take()
	return api, s.world.S3.Take(), err
}

// PeakMemory is the most memory that the process had resident so far, in bytes (VmHWM, proc_pid_status(5)).
func (s *Server) PeakMemory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory the server had")
}

// WaitSynced waits until the server has shown every backup.
func (s *Server) WaitSynced(ctx context.Context) error {
	for {
		done, err := s.world.Synced(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the backups to be shown: %w", ctx.Err())
		case <-s.ended:
			return fmt.Errorf("the server has ended: %w; its log is %s", s.err, s.log)
		case <-time.After(100 * time.Millisecond): // each look costs the API server, which is measured
		}
	}
}

// WaitHealthy waits until the server answers its probe.
func (s *Server) WaitHealthy(ctx context.Context) error {
	for {
		err := get(ctx, "http://"+s.health+"/healthz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-s.ended:
			return fmt.Errorf("the server has ended: %w; its log is %s", s.err, s.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Watch does for so long what a kubelet and Prometheus do to the server's pod, at the chart's pace: the probes are requests of the server too.
func (s *Server) Watch(ctx context.Context, long time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for url, every := range map[string]time.Duration{
		"http://" + s.health + "/readyz": 10 * time.Second, "http://" + s.health + "/healthz": 15 * time.Second, "http://" + s.metrics + "/metrics": 30 * time.Second,
	} {
		group.Go(func() error {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				if err := get(ctx, url); err != nil && ctx.Err() == nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		})
	}
	return group.Wait()
}

// get asks for a page, and wants it.
func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
