package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/volume/files"
	"kedge.dev/kedge/volume/mover"
)

// efsDriver serves file systems that outlive the clusters that mount them.
const efsDriver = "efs.csi.aws.com"

// keepsFiles says whether a volume's files stay as they are: an EFS file system is there whatever became of the cluster, with newer files than the
// backup's, so those are brought only where the restore asks for them by name.
func keepsFiles(row *archive.Volume, what v1alpha1.VolumeRestore) bool {
	return row.CopyKind == files.Kind && strings.HasPrefix(row.Source.Handle, efsDriver+"/") && what != v1alpha1.VolumesFromBackup
}

// remarks says what the run as a whole did with volumes.
func (f *filling) remarks() []plugins.Remark {
	if len(f.kept) == 0 {
		return nil
	}
	return []plugins.Remark{{Reason: string(VolumesKept), Message: fmt.Sprintf("the files of %d EFS volumes stay as they are in their file systems; spec.volumes FromBackup (--volumes from-backup) brings those of the backup", len(f.kept))}}
}

// mayFill sees, before files of a backup are written into a volume's storage, that whoever restores may make a volume of it at all, and that no other
// claim of the target uses it: what is there would be overwritten. It has nothing to say of volumes that are made anew.
func (x *run) mayFill(ctx context.Context, p *prepared, row archive.Volume, claim string) error {
	if row.CopyKind != files.Kind || x.keeps(&row) {
		return nil
	}
	var pv corev1.PersistentVolume
	if err := json.Unmarshal(p.body, &pv); err != nil {
		return fmt.Errorf("decode PersistentVolume %s: %w", p.from.Name, err)
	}
	volumes := kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	_, err := x.e.look().List(ctx, kube.ListRequest{Path: volumes.Path("", "")}, func(raw []byte) error {
		var other corev1.PersistentVolume
		if err := json.Unmarshal(raw, &other); err != nil {
			return fmt.Errorf("read a PersistentVolume: %w", err)
		}
		ref := other.Spec.ClaimRef
		if ref == nil || other.Status.Phase != corev1.VolumeBound || !mover.Shared(&other, &pv) || other.Labels[mover.LabelMover] != "" {
			return nil
		}
		if used := ref.Namespace + "/" + ref.Name; used != claim {
			return fmt.Errorf("claim %s uses the same storage, by PersistentVolume %s: the files of the backup would overwrite its own", used, other.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("see who uses the storage: %w", err)
	}
	// The mover mounts the storage with the rights of Kedge. What the account could not mount by itself it shall not reach so.
	query := maps.Clone(x.query)
	if query == nil {
		query = url.Values{}
	}
	query.Set("dryRun", "All")
	if _, err := x.e.Kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: volumes.Path("", ""), Query: query, Body: p.body, Idempotent: true}); err != nil {
		return fmt.Errorf("see that the volume may be made: %w", err)
	}
	return nil
}
