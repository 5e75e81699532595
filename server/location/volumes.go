package location

import (
	"context"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
)

// RestoreProviders are those that a restore of the backup needs: none where it makes no volumes.
func RestoreProviders(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec, backup *archive.Record, what v1alpha1.VolumeRestore) ([]plugins.VolumeProvider, error) {
	if backup.Counts.Volumes == 0 || what == v1alpha1.VolumesKeep {
		return nil, nil
	}
	return VolumeProviders(ctx, spec)
}

// VolumeProviders are those of the cluster that this process works for. AWS is reached with the SDK's default chain, in the chain's
// region; where it has none, in the region of the location's bucket. The network is asked for nothing but a region.
func VolumeProviders(ctx context.Context, spec *v1alpha1.BackupStorageLocationSpec) ([]plugins.VolumeProvider, error) {
	cfg, err := awsconf.Load(ctx, awsconf.Options{AskInstance: true})
	if err != nil {
		return nil, fmt.Errorf("configure AWS for volumes: %w", err)
	}
	if cfg.Region == "" && spec.S3 != nil {
		cfg.Region = spec.S3.Region
	}
	provider, err := ebs.New(cfg, ebs.Options{})
	if err != nil {
		return nil, err
	}
	return []plugins.VolumeProvider{provider}, nil
}
