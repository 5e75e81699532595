//go:build unix

package failover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/server/lease"
	"kedge.dev/kedge/test/faults"
)

// leaseOf is how long the servers' lease is: short, for tests to be quick, and long enough for a machine that is busy.
const leaseOf = 4 * time.Second

// server is one process, with network paths of its own.
type server struct {
	cmd    *exec.Cmd
	api    *faults.Cable
	s3     *faults.Cable
	log    string
	exited chan struct{}
}

// pair is what a Deployment of two replicas is: as many servers run, and one that ends is started anew.
type pair struct {
	t     *testing.T // the test that all servers end with: they outlive its parts
	world *world

	mu      sync.Mutex
	servers []*server
	logs    []string // of all that ever ran
}

func newPair(t *testing.T, w *world) *pair {
	t.Helper()
	p := &pair{t: t, world: w}
	t.Cleanup(func() {
		for _, s := range p.servers {
			_ = s.cmd.Process.Signal(syscall.SIGCONT)
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
		if t.Failed() {
			p.show(t)
		}
	})
	p.replenish()
	return p
}

// replenish starts servers until there are two.
func (p *pair) replenish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var alive []*server
	for _, s := range p.servers {
		select {
		case <-s.exited:
		default:
			alive = append(alive, s)
		}
	}
	p.servers = alive
	for len(p.servers) < 2 {
		s := p.start()
		p.servers, p.logs = append(p.servers, s), append(p.logs, s.log)
	}
}

// start runs a server. It and its paths end with the test.
func (p *pair) start() *server {
	t, w := p.t, p.world
	t.Helper()
	endpoint, err := url.Parse(w.bucket.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	api, err := url.Parse(w.cluster.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{
		api: faults.NewCable(t, api.Host), s3: faults.NewCable(t, endpoint.Host),
		log: filepath.Join(dir, fmt.Sprintf("server-%d.log", len(p.logs)+1)), exited: make(chan struct{}),
	}
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(binary, "server", "--namespace", namespace, "--cluster-name", "house", "--lease-duration", leaseOf.String(),
		"--metrics-address", "0", "--health-address", "0", "--kubeconfig", w.kubeconfig(t, s.api.Address), "--spool-dir", filepath.Join(dir, "spool"))
	s.cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL_S3=http://"+s.s3.Address, "AWS_EC2_METADATA_DISABLED=true")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the server
		defer close(s.exited)
		_ = s.cmd.Wait()
		_ = log.Close()
	}()
	return s
}

// identity is the name by which a server leads, or led; "" where it never did.
func (s *server) identity() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text) {
		var entry struct{ Msg, Identity string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "This server leads" {
			return entry.Identity
		}
	}
	return ""
}

// leader waits until a server leads that is not the one given, and gives it. Servers that end meanwhile are replaced.
func (p *pair) leader(t *testing.T, but *server) *server {
	t.Helper()
	var found *server
	until(t, "a server leads", func(ctx context.Context) (bool, any) {
		p.replenish()
		var l coordinationv1.Lease
		if err := p.world.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: lease.Name}, &l); err != nil || l.Spec.HolderIdentity == nil {
			return false, err
		}
		for _, s := range p.servers {
			if s != but && s.identity() == *l.Spec.HolderIdentity && *l.Spec.HolderIdentity != "" {
				found = s
				return true, nil
			}
		}
		return false, *l.Spec.HolderIdentity
	})
	return found
}

// ended waits for the end of a server that was taken the lease from, and for the delivery of all that it had sent.
func (p *pair) ended(t *testing.T, s *server) {
	t.Helper()
	until(t, "the old leader ends", func(context.Context) (bool, any) {
		select {
		case <-s.exited:
			return s.api.Idle() && s.s3.Idle(), "connections are open"
		default:
			return false, "it runs"
		}
	})
}

// show prints the ends of the servers' logs.
func (p *pair) show(t *testing.T) {
	t.Helper()
	const most = 6 << 10
	first := max(0, len(p.logs)-3)
	for _, path := range p.logs[first:] {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		t.Logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-most):])
	}
}
