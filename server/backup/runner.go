package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/podexec"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/metrics"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/pool"
	"kedge.dev/kedge/volume/mover"
)

// Runner makes one backup with the engine.
type Runner struct {
	// Config reaches the cluster as the server itself.
	Config *rest.Config
	// KubeOptions are for the clients that read the cluster.
	KubeOptions kube.Options
	// ClusterName is what people call the cluster; Version is Kedge's own.
	ClusterName, Version string
	SpoolDir             string
	// Movers say how Jobs for the files of volumes are run. They run as the server's, whoever the backup's account is.
	Movers  mover.Settings
	Metrics *metrics.Recorder
	Now     func() time.Time
	Rand    io.Reader
}

// Work is the making of a backup. The archive is written under the object's uid, conditionally: whoever makes it twice, after a crash or
// without knowing that he is no longer the leader, finds it there.
func (r *Runner) Work(b *v1alpha1.Backup, place *location.Place) pool.Work[*archive.Record] {
	return func(ctx context.Context, report func(v1alpha1.Progress)) (*archive.Record, error) {
		engine, err := r.engine(ctx, b, place, report)
		if err != nil {
			return nil, err
		}
		request := backup.Request{Name: b.Name, UID: string(b.UID), ClusterName: r.ClusterName, Labels: labelsOf(b), Spec: b.Spec}
		request.Spec.StorageLocation = place.Object.Name
		if ttl := b.Spec.TTL.Duration; place.Object.Spec.ObjectLock && ttl > 0 {
			request.RetainUntil = r.Now().Add(ttl)
		}
		if b.Status.Attempts > 1 { // an earlier attempt may have come to its end unseen
			if record, err := recorded(ctx, place, request.UID); record != nil || err != nil {
				return record, err
			}
		}
		record, err := engine.Run(ctx, request)
		switch {
		case errors.Is(err, archive.ErrSealed), errors.Is(err, archive.ErrLostRace), errors.Is(err, archive.ErrUncertain):
			record, readErr := recorded(ctx, place, request.UID)
			if record == nil && readErr == nil {
				return nil, err
			}
			return record, readErr
		case errors.Is(err, archive.ErrDeleting):
			return nil, outcome.Stalled("Deleting", err)
		}
		return record, err
	}
}

// Thaw is the work of a backup that was cancelled when an attempt at it had been cut off: it runs the post hooks that the attempt owes, and ends
// with ErrCancelled.
func (r *Runner) Thaw(b *v1alpha1.Backup, place *location.Place) pool.Work[*archive.Record] {
	return func(ctx context.Context, report func(v1alpha1.Progress)) (*archive.Record, error) {
		engine, err := r.engine(ctx, b, place, report)
		if err != nil {
			return nil, err
		}
		if err := engine.Thaw(ctx, backup.Request{Name: b.Name, UID: string(b.UID), Spec: b.Spec}); err != nil {
			return nil, err
		}
		return nil, pool.ErrCancelled
	}
}

// recorded gives the commit record of a backup; nil where there is none yet.
func recorded(ctx context.Context, place *location.Place, uid string) (*archive.Record, error) {
	entry, err := place.Archive.Find(ctx, uid)
	if errors.Is(err, archive.ErrBackupNotFound) || errors.Is(err, plugins.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return entry.Record, entry.Err
}

func (r *Runner) engine(ctx context.Context, b *v1alpha1.Backup, place *location.Place, report func(v1alpha1.Progress)) (*backup.Engine, error) {
	signer, err := place.Signer(ctx)
	if err != nil {
		return nil, err
	}
	own, err := kube.New(r.Config, r.KubeOptions)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	account := As(r.Config, b.Namespace, b.Spec.ServiceAccountName)
	as, err := kube.New(account, r.KubeOptions)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	commands, err := podexec.New(account)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	var providers []plugins.VolumeProvider
	var unconfigured func(*corev1.PersistentVolume) error
	if b.Spec.Volumes != nil {
		providers, unconfigured = place.BackupProviders(ctx, own)
	}
	return &backup.Engine{
		Exec:      commands,
		Mover:     r.Movers.With(own, place.Object.Name, r.Now),
		Providers: providers, Unconfigured: unconfigured, Repository: place.Repository,
		Kube: as, Look: own, Open: backup.At(place.Archive), PublicKey: place.Object.Spec.PublicKey, Signer: signer,
		Version: r.Version, Now: r.Now, Rand: r.Rand, SpoolDir: r.SpoolDir,
		Events: backup.Events{
			Progress: func(p backup.Progress) {
				report(v1alpha1.Progress{
					Stage: string(p.Stage), Done: p.Items, Total: p.ItemsExpected, Bytes: p.Bytes,
					VolumesDone: p.Volumes.Done, Volumes: p.Volumes.Total, VolumeBytes: p.Volumes.CopiedBytes, VolumeTotalBytes: p.Volumes.CopyBytes,
					SnapshotCopiesDone: p.Volumes.SnapshotCopiesDone, SnapshotCopies: p.Volumes.SnapshotCopies, SnapshotCopyPercent: p.Volumes.SnapshotCopyPercent,
				})
			},
			Remark: func(s backup.Severity, m archive.Remark) {
				if s == backup.SeverityError {
					r.Metrics.ItemError(metrics.KindBackup, m.Reason, 1)
				}
			},
		},
	}, nil
}

// As is a configuration for acting as a service account of a namespace; "" is the server's own.
func As(cfg *rest.Config, namespace, account string) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	if account != "" {
		cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + account}
	}
	return cfg
}
