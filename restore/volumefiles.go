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

// isFolder says whether a row is of a file system that outlives clusters.
func isFolder(row *archive.Volume) bool {
	return row.CopyKind == files.Kind && strings.HasPrefix(row.Source.Handle, efsDriver+"/")
}

// keepsFiles says whether a volume's files stay as they are: an EFS file system is there whatever became of the cluster, with newer files than the
// backup's, so those are brought only where the restore asks for them by name.
func keepsFiles(row *archive.Volume, what v1alpha1.VolumeRestore) bool {
	return isFolder(row) && what != v1alpha1.VolumesFromBackup
}

// remarks says what the run as a whole did with volumes.
func (f *filling) remarks() []plugins.Remark {
	n := len(f.kept) - len(f.moved)
	if n == 0 {
		return nil
	}
	return []plugins.Remark{{Reason: string(VolumesKept), Message: fmt.Sprintf("the files of %d EFS volumes stay as they are in their file systems; spec.volumes FromBackup (--volumes from-backup) brings those of the backup", n)}}
}

// keepsFolder says whether the object is the PersistentVolume of a folder whose files stay as they are.
func (x *run) keepsFolder(p *prepared) (archive.Volume, bool) {
	if p.from.Group != "" || p.from.Resource != "persistentvolumes" || x.filling == nil {
		return archive.Volume{}, false
	}
	row, ok := x.filling.kept[p.from.Name]
	return row, ok && x.bringsClaim(x.claimOf(row))
}

// createKept creates the PersistentVolume of a folder whose files stay as they are. Where the target has none of that name, it is seen to first that
// the folder can be reached; what is there is dealt with as any other object is.
func (x *run) createKept(ctx context.Context, p *prepared, row archive.Volume) error {
	live, err := x.get(ctx, p.path())
	switch {
	case err != nil:
		return x.refused(ctx, p.index, err)
	case live != nil:
		return x.create(ctx, p)
	}
	if err := x.mayMake(ctx, p); err != nil && !strings.Contains(err.Error(), noDryRun) {
		return x.refused(ctx, p.index, err) // as the create would be, which is tried again where that makes sense
	}
	made, _, err := x.makeVolume(ctx, p, row, x.claimOf(row), true)
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // a cancelled run leaves the object for the next one; the token finds what was made
	case err != nil:
		return x.finishPrepared(ctx, p, result{outcome: Failed, reason: VolumeNotFilled, message: err.Error()})
	}
	if made.Handle != row.Source.Handle {
		x.mu.Lock()
		x.filling.moved[row.Volume] = row
		x.mu.Unlock()
		p.remarks = append(p.remarks, plugins.Remark{Reason: string(VolumeUnchecked), Message: fmt.Sprintf(
			"the folder %s is reached as %s now, and nobody has looked whether its files are there: --volumes from-backup brings those of the backup", row.Source.Handle, made.Handle)})
	}
	return x.create(ctx, p)
}

// noDryRun is in the refusal of a request that a webhook with side effects keeps from being tried (k8s.io/apiserver, pkg/admission/plugin/webhook). No file
// depends on the answer where those of a folder stay, so the volume is then restored as it was before anybody asked.
const noDryRun = "does not support dry run"

// mayFill sees, before files of a backup are written into the storage of pv, that no other claim of the target uses it: what is there would be
// overwritten, and what the backup does not have removed.
func (x *run) mayFill(ctx context.Context, pv *corev1.PersistentVolume, claim string) error {
	volumes := kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	var others []*corev1.PersistentVolume
	_, err := x.e.look().List(ctx, kube.ListRequest{Path: volumes.Path("", "")}, func(raw []byte) error {
		var other corev1.PersistentVolume
		if err := json.Unmarshal(raw, &other); err != nil {
			return fmt.Errorf("read a PersistentVolume: %w", err)
		}
		ref := other.Spec.ClaimRef
		if ref == nil || other.Status.Phase != corev1.VolumeBound || other.Labels[mover.LabelMover] != "" || ref.Namespace+"/"+ref.Name == claim {
			return nil
		}
		others = append(others, &other)
		return nil
	})
	if err != nil {
		return fmt.Errorf("see who uses the storage: %w", err)
	}
	user, err := x.filling.filler.User(ctx, pv, others)
	switch {
	case err != nil:
		return fmt.Errorf("see who uses the storage: %w", err)
	case user != nil:
		return fmt.Errorf("claim %s/%s uses the same storage, by PersistentVolume %s: the files of the backup would overwrite its own", user.Spec.ClaimRef.Namespace, user.Spec.ClaimRef.Name, user.Name)
	}
	return nil
}

// mayMake sees that whoever restores may make the volume by himself. A mover mounts its storage with the rights of Kedge, and what it is reached by is
// made with those: what the account could not mount by itself it shall not reach so.
func (x *run) mayMake(ctx context.Context, p *prepared) error {
	query := maps.Clone(x.query)
	if query == nil {
		query = url.Values{}
	}
	query.Set("dryRun", "All")
	var pv map[string]any
	if err := json.Unmarshal(p.body, &pv); err != nil {
		return fmt.Errorf("decode PersistentVolume %s: %w", p.from.Name, err)
	}
	if meta, ok := pv["metadata"].(map[string]any); ok {
		meta["name"] = p.to.Name // it may have been renamed since
	}
	body, err := json.Marshal(pv)
	if err != nil {
		return fmt.Errorf("encode PersistentVolume %s: %w", p.to.Name, err)
	}
	volumes := kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	if _, err := x.e.Kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: volumes.Path("", ""), Query: query, Body: body, Idempotent: true}); err != nil {
		return fmt.Errorf("see that the volume may be made: %w", err)
	}
	return nil
}
