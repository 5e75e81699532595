package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	_ "time/tzdata" // schedules name time zones; an image without a system has none

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"kedge.dev/kedge/server"
	"kedge.dev/kedge/server/lease"
	"kedge.dev/kedge/server/notify"
)

func (a *app) serverCommand() *cobra.Command {
	var (
		opts          server.Options
		notifications string
	)
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run Kedge's controllers in a cluster",
		Long: `Run Kedge's controllers: they make the backups that schedules and people ask for, remove those that need not be kept, and show what locations
hold. It is what the Deployment of "kedge install" runs; for a try it runs anywhere with a kubeconfig.

It logs JSON lines to standard output. Any moment is a good one to stop it: what it had begun goes on when it, or another, is started.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), opts, notifications) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Namespace, "namespace", "kedge", "`namespace` of Kedge's objects")
	flags.StringVar(&opts.ClusterName, "cluster-name", "", "what people call this cluster; it is written into backups (default: the kubeconfig's name of it; in a pod none, and its uid is shown)")
	flags.StringVar(&opts.MetricsAddress, "metrics-address", ":8080", "`address` of Prometheus metrics; 0 serves none")
	flags.StringVar(&opts.HealthAddress, "health-address", ":8081", "`address` of /healthz and /readyz; 0 serves none")
	flags.BoolVar(&opts.LeaderElection, "leader-elect", true, "let only one of several servers work")
	flags.DurationVar(&opts.LeaseDuration, "lease-duration", 0, "how long a leader that is not heard of stays the leader, in whole seconds from 3s on (default 15s)")
	flags.BoolVar(&opts.RequireServiceAccount, "require-service-account", false, "refuse backups, restores and schedules without spec.serviceAccountName")
	flags.IntVar(&opts.MaxBackups, "max-backups", 4, "most backups at once")
	flags.IntVar(&opts.MaxPerLocation, "max-per-location", 2, "most backups at once into one location")
	flags.IntVar(&opts.MaxRestores, "max-restores", 4, "most restores at once")
	flags.IntVar(&opts.MaxInterruptions, "max-interruptions", 5, "how many servers may end over one backup or restore, killed for their memory for instance, before it is given up")
	flags.StringVar(&opts.SpoolDir, "spool-dir", "", "`folder` for what waits to be written (default: a folder of its own in the system's for temporary files)")
	flags.StringVar(&notifications, "notifications-file", "", "`file` that says which webhooks are told how backups and restores end; see docs/notifications.md")
	bindMovers(flags, &opts.Movers)
	a.kube.bind(flags)
	return cmd
}

// accountFile is what a pod knows its service account by.
const accountFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// serve runs the server until it is told to stop.
func (a *app) serve(ctx context.Context, opts server.Options, notifications string) (err error) {
	if notifications != "" {
		if opts.Notifications, err = notify.ReadFile(notifications); err != nil {
			return usageError(err, "")
		}
	}
	if err := opts.Movers.Check(); err != nil {
		return usageError(fmt.Errorf("serve: %w", err), moverHint)
	}
	if _, err := lease.TimesOf(opts.LeaseDuration); err != nil {
		return usageError(fmt.Errorf("read --lease-duration: %w", err), "")
	}
	cfg, name, err := a.kube.resolve()
	if err != nil {
		return err
	}
	if opts.SpoolDir == "" {
		if opts.SpoolDir, err = os.MkdirTemp("", "kedge-server-*"); err != nil {
			return fmt.Errorf("make the folder for what waits to be written: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(opts.SpoolDir)) }()
	} else if err := ownFolder(opts.SpoolDir); err != nil {
		return err
	}
	handler := slog.NewJSONHandler(a.env.Stdout, nil)
	opts.Version, opts.Now, opts.Log = version, a.env.Now, logr.FromSlogHandler(handler)
	opts.Metrics = ctrlmetrics.Registry
	if cfg.BearerTokenFile != accountFile { // a pod knows the API server by an address that many clusters have
		opts.ClusterName = orElse(opts.ClusterName, name)
	}
	if host, err := os.Hostname(); err == nil { // a pod's is its name
		opts.Identity = host + "_" + string(uuid.NewUUID())
	}
	ctrl.SetLogger(opts.Log)
	klog.SetLogger(opts.Log)
	return server.Run(ctx, cfg, opts)
}

// ownFolder makes sure that a folder is there, and that what is put into it is for this user only.
func ownFolder(dir string) error {
	if err := os.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return usageError(fmt.Errorf("make the folder of --spool-dir: %w", err), "")
	}
	return nil
}
