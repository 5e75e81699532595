package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// keptNamespace is where the VolumeSnapshots would be that contents of kept snapshots name. It does not exist, so that nobody can bind them.
const keptNamespace = "kedge-snapshots"

// contentFinalizer keeps a content until the driver's side has seen its deletion. The controller would put it there a little later.
const contentFinalizer = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"

// Ids of what is not a whole snapshot: a VolumeSnapshot whose content is not kept yet, and what a volume was made by.
const (
	idPending = "volumesnapshot:" // namespace/name
	idHelper  = "helper:"         // namespace/name
)

// meta is what objects of one token have in common.
func meta(name, namespace, role, token string, tags map[string]string) (metav1.ObjectMeta, error) {
	text, err := json.Marshal(tags)
	if err != nil {
		return metav1.ObjectMeta{}, fmt.Errorf("encode tags: %w", err)
	}
	m := metav1.ObjectMeta{
		Name: name, Namespace: namespace, Annotations: map[string]string{annotationTags: string(text)},
		Labels: map[string]string{LabelRole: role, labelToken: digest(token), v1alpha1.ExcludeLabel: "true", "app.kubernetes.io/managed-by": "kedge"},
	}
	for _, key := range []string{"kedge.dev/backup-uid", "kedge.dev/restore-uid"} { // for people with kubectl
		if uid := tags[key]; uid != "" && len(uid) < 64 {
			m.Labels[key] = uid
		}
	}
	return m, nil
}

func tagsOf(m *metav1.ObjectMeta) map[string]string {
	tags := map[string]string{}
	_ = json.Unmarshal([]byte(m.Annotations[annotationTags]), &tags) // what is not ours has none
	return tags
}

// Snapshot takes VolumeSnapshots, one per handle, and returns when each one's moment is fixed and a content of its own keeps it.
func (p *Provider) Snapshot(ctx context.Context, req plugins.SnapshotRequest) ([]plugins.Snapshot, error) {
	const op = "snapshot"
	if req.Token == "" || len(req.Handles) == 0 {
		return nil, p.fail(ctx, op, "", configured("", "a token and handles are needed"))
	}
	if err := p.refuseOther(ctx, req); err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	pvs, err := p.find(ctx, req.Handles)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	for _, handle := range req.Handles { // all are asked for before the first is waited for: their moments are close
		if err := p.ask(ctx, &req, handle, pvs[handle]); err != nil {
			return nil, p.fail(ctx, op, handle, err)
		}
	}
	out := make([]plugins.Snapshot, 0, len(req.Handles))
	for _, handle := range req.Handles {
		kept, err := p.keep(ctx, &req, handle, pvs[handle])
		if err != nil {
			return nil, p.fail(ctx, op, handle, err)
		}
		out = append(out, kept.snapshot(plugins.SnapshotPending))
	}
	return out, nil
}

// refuseOther refuses a token that was used for other volumes, by what is kept of it: a VolumeSnapshot may be anybody's.
func (p *Provider) refuseOther(ctx context.Context, req plugins.SnapshotRequest) error {
	label := LabelRole + "=" + RoleSnapshot + "," + labelToken + "=" + digest(req.Token)
	some, err := list[content](ctx, p, contents, label)
	if err != nil {
		return err
	}
	want := handlesDigest(req.Handles)
	for _, c := range some {
		if c.Metadata.Annotations[annotationAsked] != want {
			return configured("", "the token was used for other volumes")
		}
	}
	return nil
}

func handlesDigest(handles []string) string { return digest(slices.Sorted(slices.Values(handles))...) }

func (p *Provider) metaOf(req *plugins.SnapshotRequest, handle, namespace string) (metav1.ObjectMeta, error) {
	tags := maps.Clone(req.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, req.ByHandle[handle])
	m, err := meta(nameOf(req.Token, handle), namespace, RoleSnapshot, req.Token, tags)
	m.Annotations[annotationVolume], m.Annotations[annotationAsked] = handle, handlesDigest(req.Handles)
	return m, err
}

// ask makes the VolumeSnapshot of a volume, unless its content is kept already.
func (p *Provider) ask(ctx context.Context, req *plugins.SnapshotRequest, handle string, pv *corev1.PersistentVolume) error {
	switch {
	case pv == nil:
		return missing("", "no PersistentVolume of this cluster is of that volume, or its driver has no VolumeSnapshotClass")
	case pv.Spec.ClaimRef == nil || pv.Status.Phase != corev1.VolumeBound:
		return missing("", "PersistentVolume %s is not bound to a claim, and snapshots are taken of claims", pv.Name)
	}
	name := nameOf(req.Token, handle)
	var have content
	if err := p.get(ctx, contents.Path("", name), &have); err == nil {
		return nil
	} else if unlessGone(err) != nil {
		return err
	}
	m, err := p.metaOf(req, handle, pv.Spec.ClaimRef.Namespace)
	if err != nil {
		return err
	}
	return p.create(ctx, snapshots, m.Namespace, &snapshot{
		TypeMeta: metav1.TypeMeta{APIVersion: snapshots.APIVersion(), Kind: "VolumeSnapshot"}, Metadata: m,
		Spec: snapshotSpec{Class: p.class[pv.Spec.CSI.Driver].Metadata.Name, Source: snapshotSource{Claim: pv.Spec.ClaimRef.Name}},
	})
}

// keep waits until the driver has fixed the moment of a VolumeSnapshot, and makes a content that stays, whatever becomes of the namespace.
func (p *Provider) keep(ctx context.Context, req *plugins.SnapshotRequest, handle string, pv *corev1.PersistentVolume) (*content, error) {
	name, namespace := nameOf(req.Token, handle), pv.Spec.ClaimRef.Namespace
	kept := &content{}
	if err := p.get(ctx, contents.Path("", name), kept); err == nil {
		return kept, p.retainMade(ctx, kept)
	} else if unlessGone(err) != nil {
		return nil, err
	}
	made, err := p.moment(ctx, req, pv, name)
	if err != nil {
		return nil, err
	}
	m, err := p.metaOf(req, handle, "")
	if err != nil {
		return nil, err
	}
	m.Annotations[annotationMade] = namespace + "/" + made.Metadata.Name
	for _, key := range []string{annotationSecretName, annotationSecretSpace} {
		if value := made.Metadata.Annotations[annotationSecretPrefix+key]; value != "" {
			m.Annotations[annotationSecretPrefix+key] = value
		}
	}
	m.Finalizers = []string{contentFinalizer}
	err = p.create(ctx, contents, "", pinned(m, made.Spec.Driver, made.Spec.Class, made.Spec.Mode, made.Status.Handle, keptNamespace))
	if err != nil {
		return nil, err
	}
	if err := p.get(ctx, contents.Path("", name), kept); err != nil {
		return nil, err
	}
	if kept.Status.Created == 0 { // nobody has filled it in yet
		kept.Status.Created, kept.Status.RestoreSize = made.Status.Created, made.Status.RestoreSize
	}
	return kept, p.retainMade(ctx, kept)
}

// retainMade has the driver's snapshot outlive the VolumeSnapshot that it was made by. Until then it goes with that, and the kept content is
// there first: so nothing is left that nobody knows of, whenever this process ends.
func (p *Provider) retainMade(ctx context.Context, c *content) error {
	_, made := c.made()
	if made == "" {
		return nil
	}
	return p.patch(ctx, contents.Path("", made), map[string]any{"spec": map[string]any{"deletionPolicy": policyRetain}})
}

// pinned is a content of a snapshot that the driver has already, named like the VolumeSnapshot that may bind it.
func pinned(m metav1.ObjectMeta, driver, class, mode, handle, namespace string) *content {
	return &content{
		TypeMeta: metav1.TypeMeta{APIVersion: contents.APIVersion(), Kind: "VolumeSnapshotContent"}, Metadata: m,
		Spec: contentSpec{
			Policy: policyRetain, Driver: driver, Class: class, Mode: mode, Source: contentSource{Snapshot: handle},
			Ref: map[string]any{"apiVersion": snapshots.APIVersion(), "kind": "VolumeSnapshot", "namespace": namespace, "name": m.Name},
		},
	}
}

// moment waits until a VolumeSnapshot has a content whose snapshot exists with the driver, of the volume that was asked for.
func (p *Provider) moment(ctx context.Context, req *plugins.SnapshotRequest, pv *corev1.PersistentVolume, name string) (*content, error) {
	made, namespace := &content{}, pv.Spec.ClaimRef.Namespace
	complains := p.complaint(failTime)
	err := p.until(ctx, momentTime, func(ctx context.Context) (bool, string, error) {
		var s snapshot
		if err := p.get(ctx, snapshots.Path(namespace, name), &s); err != nil {
			return false, "", err
		}
		if !isPending(&s) || !hasToken(&s.Metadata, RoleSnapshot, req.Token) || s.Spec.Source.Claim != pv.Spec.ClaimRef.Name {
			return false, "", foreign("VolumeSnapshot %s/%s is not as Kedge makes it", namespace, name)
		}
		said := "VolumeSnapshot " + namespace + "/" + name + ": " + s.Status.Error.String()
		if complains(s.Status.Error) {
			return false, "", errors.New(said)
		}
		if s.Status.Content == "" {
			return false, said, nil
		}
		*made = content{}
		if err := p.get(ctx, contents.Path("", s.Status.Content), made); err != nil {
			return false, "", err
		}
		if !made.isOf(&s) || made.Spec.Driver != pv.Spec.CSI.Driver || made.Spec.Source.Volume != pv.Spec.CSI.VolumeHandle {
			return false, "", foreign("VolumeSnapshotContent %s of VolumeSnapshot %s/%s is not of the volume of claim %s", s.Status.Content, namespace, name, s.Spec.Source.Claim)
		}
		return made.Status.Handle != "", said, nil
	})
	return made, err
}

func (c *content) id() string { return c.Spec.Driver + "/" + c.Spec.Source.Snapshot }

// snapshot is a kept content as the contract has it.
func (c *content) snapshot(state plugins.SnapshotState) plugins.Snapshot {
	s := plugins.Snapshot{
		ID: c.id(), Handle: c.Metadata.Annotations[annotationVolume], SizeBytes: c.Status.RestoreSize, State: state,
		Started: c.Metadata.CreationTimestamp.Time, Progress: -1, Tags: tagsOf(&c.Metadata),
	}
	if c.Status.Created > 0 {
		s.Started = time.Unix(0, c.Status.Created)
	}
	return s
}

// FindSnapshots gives the snapshots with the tags, those too that a request which was cut off has left half made.
func (p *Provider) FindSnapshots(ctx context.Context, tags map[string]string) ([]plugins.Snapshot, error) {
	const op = "find snapshots"
	if len(tags) == 0 {
		return nil, p.fail(ctx, op, "", configured("", "at least one tag is needed"))
	}
	kept, err := list[content](ctx, p, contents, LabelRole)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	asked, err := list[snapshot](ctx, p, snapshots, LabelRole+"="+RoleSnapshot)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	var out []plugins.Snapshot
	known := map[string]bool{}
	for _, c := range kept {
		known[c.Metadata.Name] = true
		if !has(tagsOf(&c.Metadata), tags) {
			continue
		}
		s := c.snapshot(plugins.SnapshotPending)
		if c.Metadata.Labels[LabelRole] == RoleHelper {
			s.ID = idHelper + c.ref("namespace") + "/" + c.Metadata.Name
			s.Started = c.Metadata.CreationTimestamp.Time // the driver's snapshot is older, and not what is there for a while only
		}
		if c.Status.Ready {
			s.State = plugins.SnapshotCompleted
		}
		out = append(out, s)
	}
	for _, s := range asked {
		if known[s.Metadata.Name] || !isPending(s) || !has(tagsOf(&s.Metadata), tags) {
			continue
		}
		out = append(out, plugins.Snapshot{
			ID: idPending + s.Metadata.Namespace + "/" + s.Metadata.Name, Handle: s.Metadata.Annotations[annotationVolume], State: plugins.SnapshotPending,
			Started: s.Metadata.CreationTimestamp.Time, Progress: -1, Tags: tagsOf(&s.Metadata),
		})
	}
	return out, nil
}

// DeleteSnapshot has the driver remove a snapshot, by its kept content.
func (p *Provider) DeleteSnapshot(ctx context.Context, id string) error {
	return p.fail(ctx, "delete snapshot", id, p.deleteSnapshot(ctx, id))
}

func (p *Provider) deleteSnapshot(ctx context.Context, id string) error {
	if rest, ok := strings.CutPrefix(id, idPending); ok {
		namespace, name, _ := strings.Cut(rest, "/")
		return p.deletePending(ctx, namespace, name)
	}
	if rest, ok := strings.CutPrefix(id, idHelper); ok {
		namespace, name, _ := strings.Cut(rest, "/")
		return p.dropSource(ctx, namespace, name, "")
	}
	kept, err := list[content](ctx, p, contents, LabelRole+"="+RoleSnapshot)
	if err != nil {
		return err
	}
	for _, c := range kept {
		if c.id() != id {
			continue
		}
		if err := p.dropMade(ctx, c, readyTime); err != nil {
			return err
		}
		if err := p.destroy(ctx, c.Metadata.Name); err != nil {
			return err
		}
	}
	return nil
}

// destroy deletes a content, and with it the driver's snapshot. The driver is asked only where the content's status names the snapshot, which its
// sidecar fills in.
func (p *Provider) destroy(ctx context.Context, name string) error {
	path := contents.Path("", name)
	if err := p.patch(ctx, path, map[string]any{"spec": map[string]any{"deletionPolicy": policyDelete}}); err != nil {
		return err
	}
	err := p.until(ctx, readyTime, func(ctx context.Context) (bool, string, error) {
		var c content
		if err := p.get(ctx, path, &c); err != nil {
			return true, "", unlessGone(err)
		}
		return c.Metadata.DeletionTimestamp != nil || c.Status.Handle != "", "the status of content " + name + " does not name the snapshot: " + c.Status.Error.String(), nil
	})
	if err != nil {
		return err
	}
	return p.gone(ctx, path, readyTime)
}

// deletePending deletes a VolumeSnapshot whose content is not kept, and the driver's snapshot with it, where the content was made for it.
func (p *Provider) deletePending(ctx context.Context, namespace, name string) error {
	var s snapshot
	path := snapshots.Path(namespace, name)
	if err := p.get(ctx, path, &s); err != nil {
		return unlessGone(err)
	}
	if !isPending(&s) {
		return foreign("VolumeSnapshot %s/%s is not one of Kedge's", namespace, name)
	}
	made := content{}
	if s.Status.Content != "" {
		if err := p.get(ctx, contents.Path("", s.Status.Content), &made); unlessGone(err) != nil {
			return err
		}
	}
	own := made.isOf(&s)
	if own { // its policy is the class's, or Retain already
		err := p.patch(ctx, contents.Path("", made.Metadata.Name), map[string]any{"spec": map[string]any{"deletionPolicy": policyDelete}})
		if err != nil {
			return err
		}
	}
	if err := p.goneOf(ctx, path, s.Metadata.UID, readyTime); err != nil || !own {
		return err
	}
	return p.gone(ctx, contents.Path("", made.Metadata.Name), readyTime)
}
