package location

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/internal/gate"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/csi"
	"kedge.dev/kedge/plugins/ebs"
	"kedge.dev/kedge/plugins/efs"
	"kedge.dev/kedge/plugins/file"
	"kedge.dev/kedge/volume/repository"
)

// Connect gives the cluster that this process works for.
type Connect func() (*kube.Client, error)

// RestoreProviders are those that a restore of the backup needs: none where it makes no volumes. The error is why there are fewer; a restore that
// needs no others goes on.
func RestoreProviders(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, pass *gate.Gate, cluster *kube.Client, backup *archive.Record, what v1alpha1.VolumeRestore) ([]plugins.VolumeProvider, error) {
	if backup.Counts.Volumes == 0 || what == v1alpha1.VolumesKeep {
		return nil, nil
	}
	providers, err := VolumeProviders(ctx, spec, pass)
	return append(providers, ClusterProvider(ctx, cluster)), err
}

// ClusterProvider is the provider of the CSI drivers of a cluster, for volumes that no other one knows.
func ClusterProvider(ctx context.Context, cluster *kube.Client) *csi.Provider {
	return csi.New(ctx, cluster, csi.Options{Others: func(pv *corev1.PersistentVolume) bool {
		_, block := ebs.Handle(pv)
		_, folder := efs.HandleOf(pv)
		return block || folder
	}})
}

// Repository opens the location's repository of volume copies, and makes it where there is none yet. The caches of a process are below
// dir; "" keeps none. Opening needs the location's private key.
func Repository(ctx context.Context, store plugins.ObjectStore, keys *archive.Keys, opts repository.Options) (*repository.Repository, error) {
	seal := repository.Keys{Random: rand.Reader, Seal: keys.Seal, Open: keys.Open}
	var create repository.CreateOptions
	if _, folder := plugins.As[*file.Store](store); folder {
		create.Layout = repository.LayoutFolder
	}
	return repository.Connect(ctx, store, seal, create, opts)
}

// VolumeProviders are those of AWS, and of the cluster that the server works for. Where AWS is not configured, but the cluster has snapshots of its own,
// these are all.
func (p *Place) VolumeProviders(ctx context.Context) ([]plugins.VolumeProvider, error) {
	providers, err := VolumeProviders(ctx, &p.Object.Spec, p.registry.Gate)
	client, noCluster := p.registry.connect()
	if noCluster != nil {
		return providers, err
	}
	own := ClusterProvider(ctx, client)
	if own.Takes() {
		err = nil
	}
	return append(providers, own), err
}

// BackupProviders are those of a backup of a cluster.
func (p *Place) BackupProviders(ctx context.Context, cluster *kube.Client) ([]plugins.VolumeProvider, func(*corev1.PersistentVolume) error) {
	return BackupProviders(ctx, &p.Object.Spec, p.registry.Gate, cluster)
}

// RestoreProviders are those that a restore of the backup into a cluster needs.
func (p *Place) RestoreProviders(ctx context.Context, cluster *kube.Client, backup *archive.Record, what v1alpha1.VolumeRestore) ([]plugins.VolumeProvider, error) {
	return RestoreProviders(ctx, &p.Object.Spec, p.registry.Gate, cluster, backup, what)
}

// Repository opens the place's repository of volume copies. Who opens it closes it.
func (p *Place) Repository(ctx context.Context) (*repository.Repository, error) {
	keys, err := p.Keys(ctx)
	if err != nil {
		return nil, err
	}
	return Repository(ctx, p.Store, keys, repository.Options{Now: p.registry.Now, ReadOnly: p.Object.Spec.ReadOnly})
}

// Maintenance is that of the place's repository of volume copies; nil where the location has none, or may not be written.
func (p *Place) Maintenance(ctx context.Context) (*volumes.Maintenance, error) {
	if p.Object.Spec.ReadOnly {
		return nil, nil
	}
	if there, err := repository.Exists(ctx, p.Store); err != nil || !there {
		return nil, err
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		return nil, err
	}
	return &volumes.Maintenance{Location: p.Archive, Keys: keys, Entries: p.Entries, Named: &p.named, Repository: p.Repository}, nil
}

// BackupProviders are VolumeProviders, and the cluster's, for a backup, which may have no volumes of AWS at all: where AWS is not configured there are
// none of it, and unconfigured says so of the volumes that are Amazon's.
func BackupProviders(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, pass *gate.Gate, cluster *kube.Client) (providers []plugins.VolumeProvider, unconfigured func(*corev1.PersistentVolume) error) {
	providers, err := VolumeProviders(ctx, spec, pass)
	return append(providers, ClusterProvider(ctx, cluster)), func(pv *corev1.PersistentVolume) error {
		if _, known := ebs.Handle(pv); known {
			return err
		}
		return nil
	}
}

// VolumeProviders are those of AWS. It is reached with the SDK's default chain, in the chain's
// region; where it has none, in the region of the location's bucket. The network is asked for nothing but a region. Calls pass the gate; nil is always open.
func VolumeProviders(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, pass *gate.Gate) ([]plugins.VolumeProvider, error) {
	cfg, err := awsconf.Load(ctx, awsconf.Options{AskInstance: true})
	if err != nil && spec.S3 != nil && spec.S3.Region != "" {
		cfg, err = awsconf.Load(ctx, awsconf.Options{Region: spec.S3.Region})
	}
	if err != nil {
		return nil, fmt.Errorf("configure AWS for volumes: %w (set AWS_REGION, or the region of the profile, to where the volumes are)", err)
	}
	if cfg.Region == "" && spec.S3 != nil {
		cfg.Region = spec.S3.Region
	}
	cfg.HTTPClient = awsconf.Gated(cfg.HTTPClient, pass)
	provider, err := ebs.New(cfg, ebs.Options{})
	if err != nil {
		return nil, err
	}
	folders, err := efs.New(cfg, efs.Options{})
	if err != nil {
		return nil, err
	}
	return []plugins.VolumeProvider{provider, folders}, nil
}
