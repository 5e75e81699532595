package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/server/health"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/notify"
)

// hangsAfter is how long a reconcile may take before the server is started again.
const hangsAfter = 15 * time.Minute

// observe sets up how the server is seen from outside: metrics, probes and notifications. What it gives counts what the controllers do; it is to
// be closed when the server has ended.
func observe(ctx context.Context, mgr manager.Manager, opts Options, pass *gate.Gate) (*metrics.Recorder, error) {
	own := metrics.OwnCluster(mgr.GetAPIReader())
	registry, random := opts.Metrics, opts.Rand
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	if random == nil {
		random = rand.Reader
	}
	recorder, err := metrics.New(registry, opts.Version)
	if err != nil {
		return nil, fmt.Errorf("make the server: %w", err)
	}
	err = errors.Join(
		recorder.Register(metrics.State(ctx, metrics.StateOptions{Client: mgr.GetClient(), Namespace: opts.Namespace, OwnCluster: own})),
		mgr.Add(manager.RunnableFunc(recorder.Lead)),
		mgr.AddReadyzCheck("ready", health.Ready(health.ReadyOptions{
			Reader: mgr.GetAPIReader(), Namespace: opts.Namespace, Elected: mgr.Elected(), Now: opts.Now,
		})),
		// The queues of all controllers of the process are in the one registry of controller-runtime.
		mgr.AddHealthzCheck("controllers", health.Controllers(ctrlmetrics.Registry, hangsAfter)),
	)
	if opts.Notifications != nil {
		err = errors.Join(err, notify.New(notify.Options{
			Client: mgr.GetClient(), Config: opts.Notifications, OwnCluster: own, ClusterName: opts.ClusterName,
			UserAgent: "kedge/" + opts.Version, Metrics: recorder, Gate: pass, Now: opts.Now, Rand: fraction(random),
		}).SetupWithManager(mgr))
	}
	if err != nil {
		recorder.Close()
		return nil, fmt.Errorf("make the server: %w", err)
	}
	return recorder, nil
}

// fraction gives numbers from 0 up to 1 that r decides; 0 where it fails, which only makes waits shorter.
func fraction(r io.Reader) func() float64 {
	return func() float64 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0
		}
		return float64(binary.BigEndian.Uint64(b[:])>>11) / (1 << 53)
	}
}
