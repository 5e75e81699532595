// Package server is what runs in the cluster: it makes backups by the clock and on request, keeps the right ones, restores, and says how it
// is doing. This file is its wiring: every controller, with what it is handed, in one place.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/internal/kube"
	enginerestore "kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/attempts"
	"kedge.dev/kedge/server/backup"
	"kedge.dev/kedge/server/deletion"
	"kedge.dev/kedge/server/download"
	"kedge.dev/kedge/server/lease"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/notify"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/server/restore"
	"kedge.dev/kedge/server/retention"
	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/server/upkeep"
	"kedge.dev/kedge/volume/mover"
)

// Options say how a server runs. Namespace, SpoolDir, Log and Now are needed.
type Options struct {
	// Namespace is where Kedge's objects are.
	Namespace string
	// ClusterName is what people call the cluster; it is written into backups.
	ClusterName string
	// Version is Kedge's own.
	Version string
	// MetricsAddress and HealthAddress are where HTTP is served: ":8080"; "0" serves none.
	MetricsAddress, HealthAddress string
	// LeaderElection lets only one of several servers work. Without it there must be one only.
	LeaderElection bool
	// LeaseDuration is how long a leader that is not heard of stays the leader, in whole seconds. Zero means 15 of them.
	LeaseDuration time.Duration
	// RequireServiceAccount refuses backups, restores and schedules that name no account to act as.
	RequireServiceAccount bool
	// MaxBackups run at once in all; MaxPerLocation of them into one location. Zero means 4 and 2.
	MaxBackups, MaxPerLocation int
	// MaxRestores run at once. Zero means 4.
	MaxRestores int
	// MaxInterruptions is how many servers may end over one backup or restore before it is given up. Zero means 5.
	MaxInterruptions int
	// SpoolDir is a folder for what waits to be written; what is put there is encrypted. Credentials of locations are kept there too,
	// readable by this user only.
	SpoolDir string
	// Movers say how Jobs for the files of volumes are run; without an image there are none.
	Movers mover.Settings
	// Notifications are the webhooks that are told how things end; nil tells nobody.
	Notifications *notify.Config
	// Metrics is where the server's metrics are registered: controller-runtime's registry, for them to be served. Nil is a registry of its own.
	Metrics prometheus.Registerer
	// Identity names this process in the Lease; no other's is equal. Empty means one that is made up.
	Identity string
	// Rand spreads the server's waits; nil means crypto/rand.
	Rand io.Reader
	Log  logr.Logger
	Now  func() time.Time
}

// Run serves until ctx ends, or the lease is lost: that is an error, and the process should end and begin anew.
func Run(ctx context.Context, cfg *rest.Config, opts Options) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // the server's own priority and fairness sets the pace
	managed := managerOptions(scheme, opts)
	pass, err := elect(cfg, opts, &managed)
	if err != nil {
		return err
	}
	defer pass.Shut("it has ended")
	cfg.Wrap(pass.Transport)
	mgr, err := ctrl.NewManager(cfg, managed)
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	if err := checks(mgr); err != nil {
		return err
	}
	seen, err := observe(ctx, mgr, opts, pass)
	if err != nil {
		return err
	}
	defer seen.Close()
	if err := controllers(mgr, opts, seen, pass); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("make the server: %w", err)
	}
	return scheme, nil
}

func managerOptions(scheme *runtime.Scheme, opts Options) ctrl.Options {
	return ctrl.Options{
		Scheme: scheme, Logger: opts.Log,
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{opts.Namespace: {}}, DefaultTransform: cache.TransformStripManagedFields()},
		Client:  client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Metrics: metricsserver.Options{BindAddress: opts.MetricsAddress}, HealthProbeBindAddress: opts.HealthAddress,
		Controller: config.Controller{SkipNameValidation: new(true)}, // tests run several servers in one process
	}
}

// elect sets the election up, and gives the gate that everything the leader does passes; nil, which is open, where there is no election.
func elect(cfg *rest.Config, opts Options, managed *ctrl.Options) (*gate.Gate, error) {
	if !opts.LeaderElection {
		return nil, nil
	}
	times, err := lease.TimesOf(opts.LeaseDuration)
	if err != nil {
		return nil, err
	}
	identity := opts.Identity
	if identity == "" {
		identity = string(uuid.NewUUID())
	}
	pass := gate.New(times.Renew, gate.Clocks(opts.Now))
	lock, err := lease.New(cfg, opts.Namespace, identity, times, pass, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("make the server: %w", err)
	}
	managed.LeaderElection, managed.LeaderElectionResourceLockInterface = true, lock
	managed.LeaderElectionID, managed.LeaderElectionNamespace = lease.Name, opts.Namespace
	managed.LeaseDuration, managed.RenewDeadline, managed.RetryPeriod = &times.Lease, &times.Renew, &times.Retry
	// A server that stops gives its lease away, after its work has ended.
	managed.LeaderElectionReleaseOnCancel = true
	return pass, nil
}

func checks(mgr manager.Manager) error {
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	return nil
}

// controllers hands every controller what it needs.
func controllers(mgr manager.Manager, opts Options, seen *metrics.Recorder, pass *gate.Gate) error {
	registry := &location.Registry{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Namespace: opts.Namespace, PrivateDir: opts.SpoolDir,
		Gate: pass, Observe: seen.Store, Now: opts.Now,
		Cluster: func() (*kube.Client, error) { return kube.New(mgr.GetConfig(), kubeOptions(opts, "volumes", seen)) },
	}
	marks := &schedule.Marks{Client: mgr.GetClient(), Namespace: opts.Namespace, Rand: rand.Reader}
	recorder, cluster := mgr.GetEventRecorder("kedge"), metrics.OwnCluster(mgr.GetAPIReader())
	return errors.Join(
		(&location.Reconciler{Client: mgr.GetClient(), Registry: registry, Metrics: seen, Now: opts.Now}).SetupWithManager(mgr),
		(&retention.Reconciler{
			Client: mgr.GetClient(), Registry: registry, ClusterUID: cluster, Events: recorder, Metrics: seen, After: registry.Looked, Now: opts.Now,
		}).SetupWithManager(mgr),
		(&upkeep.Reconciler{
			Client: mgr.GetClient(), Registry: registry, ClusterUID: cluster, Events: recorder, Metrics: seen, After: registry.Looked, Now: opts.Now,
		}).SetupWithManager(mgr),
		(&schedule.Reconciler{
			Client: mgr.GetClient(), Events: recorder, ClusterUID: cluster, Marks: marks, RequireServiceAccount: opts.RequireServiceAccount, Now: opts.Now,
		}).SetupWithManager(mgr),
		(&deletion.Reconciler{Client: mgr.GetClient(), Registry: registry, Metrics: seen, Now: opts.Now}).SetupWithManager(mgr),
		backups(mgr, opts, registry, marks, seen),
		restores(mgr, opts, registry, seen),
		downloads(mgr, opts, registry),
	)
}

// backups sets up what makes them.
func backups(mgr manager.Manager, opts Options, registry *location.Registry, marks *schedule.Marks, seen *metrics.Recorder) error {
	work := pool.New[*archive.Record](cmp.Or(opts.MaxBackups, 4), cmp.Or(opts.MaxPerLocation, 2))
	runner := &backup.Runner{
		Config: mgr.GetConfig(), KubeOptions: kubeOptions(opts, "backup", seen),
		ClusterName: opts.ClusterName, Version: opts.Version, SpoolDir: opts.SpoolDir, Movers: opts.Movers, Metrics: seen, Now: opts.Now, Rand: rand.Reader,
	}
	return errors.Join(
		mgr.Add(manager.RunnableFunc(work.Run)),
		seen.Pool(metrics.KindBackup, work.Counts),
		(&backup.Reconciler{
			Client: mgr.GetClient(), Look: mgr.GetAPIReader(), Marks: marks, Registry: registry, Pool: work, Runner: runner, Events: mgr.GetEventRecorder("kedge"),
			RequireServiceAccount: opts.RequireServiceAccount, Patience: &attempts.Patience{Most: opts.MaxInterruptions}, Metrics: seen, Now: opts.Now,
		}).SetupWithManager(mgr),
	)
}

// restores sets up what carries them out.
func restores(mgr manager.Manager, opts Options, registry *location.Registry, seen *metrics.Recorder) error {
	most := cmp.Or(opts.MaxRestores, 4)
	work := pool.New[*enginerestore.Report](most, most) // they write to the cluster, so a location bounds nothing
	runner := &restore.Runner{
		Config: mgr.GetConfig(), KubeOptions: kubeOptions(opts, "restore", seen), Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(),
		ClusterName: opts.ClusterName, Version: opts.Version, Namespace: opts.Namespace, Movers: opts.Movers, Metrics: seen,
		Log: slog.New(logr.ToSlogHandler(opts.Log)), Now: opts.Now, NewID: func() string { return string(uuid.NewUUID()) },
	}
	return errors.Join(
		mgr.Add(manager.RunnableFunc(work.Run)),
		seen.Pool(metrics.KindRestore, work.Counts),
		(&restore.Reconciler{
			Client: mgr.GetClient(), Registry: registry, Pool: work, Runner: runner, Events: mgr.GetEventRecorder("kedge"),
			RequireServiceAccount: opts.RequireServiceAccount, Patience: &attempts.Patience{Most: opts.MaxInterruptions}, Metrics: seen, Now: opts.Now,
		}).SetupWithManager(mgr),
	)
}

// mostDownloads is how many answers are made at once; each holds at most some megabytes.
const mostDownloads = 4

// downloads sets up what answers the command line.
func downloads(mgr manager.Manager, opts Options, registry *location.Registry) error {
	work := pool.New[*download.Part](mostDownloads, mostDownloads)
	return errors.Join(
		mgr.Add(manager.RunnableFunc(work.Run)),
		(&download.Reconciler{
			Client:  mgr.GetClient(),
			Sources: &download.Sources{Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Registry: registry},
			Pool:    work, Now: opts.Now,
		}).SetupWithManager(mgr),
	)
}

func kubeOptions(opts Options, what string, seen *metrics.Recorder) kube.Options {
	return kube.Options{UserAgent: "kedge/" + opts.Version + " (" + what + ")", OnThrottle: seen.Throttled, Now: opts.Now}
}
