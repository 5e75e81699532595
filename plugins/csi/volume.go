package csi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/plugins"
)

// selectedNode is how the scheduler tells a provisioner where a volume is needed, whose class waits for its first consumer.
const selectedNode = "volume.kubernetes.io/selected-node"

// idClaim begins the handle of a volume that is still being made: the claim that asks for it.
const idClaim = "claim:" // namespace/name

// CreateVolume has the driver make a volume, by a claim of its own that stays until Release: of a snapshot, or empty.
func (p *Provider) CreateVolume(ctx context.Context, req plugins.VolumeRequest) (plugins.Volume, error) {
	object := "in namespace " + req.Namespace
	if req.SnapshotID != "" {
		object = "of " + req.SnapshotID + " " + object
	}
	v, err := p.createVolume(ctx, &req)
	return v, p.fail(ctx, "create volume", object, err)
}

func (p *Provider) createVolume(ctx context.Context, req *plugins.VolumeRequest) (plugins.Volume, error) {
	if req.Token == "" || req.Namespace == "" || req.For == nil || req.For.Spec.CSI == nil {
		return plugins.Volume{}, configured("", "a token, a namespace and a PersistentVolume of a CSI driver are needed")
	}
	name := nameOf(req.Token, "volume")
	class, err := p.storageClass(ctx, req)
	if err != nil {
		return plugins.Volume{}, err
	}
	var have corev1.PersistentVolumeClaim
	path := claims.Path(req.Namespace, name)
	if err := p.get(ctx, path, &have); unlessGone(err) != nil {
		return plugins.Volume{}, err
	} else if err != nil {
		if err := p.askVolume(ctx, req, class, name); err != nil {
			return plugins.Volume{}, err
		}
	}
	pv, err := p.bound(ctx, req, class, name)
	if err != nil {
		return plugins.Volume{}, err
	}
	if err := p.adopt(ctx, pv, req, name); err != nil {
		return plugins.Volume{}, err
	}
	if err := p.dropSource(ctx, req.Namespace, name, digest(req.Token)); err != nil {
		return plugins.Volume{}, err
	}
	return made(pv, req.Tags)
}

// storageClass is what the volume is made with: that of the PersistentVolume, which may be one that the target knows; else the only one of the driver's.
// A volume of a snapshot is the snapshot's driver's; an empty one may be any driver's.
func (p *Provider) storageClass(ctx context.Context, req *plugins.VolumeRequest) (*storagev1.StorageClass, error) {
	all, err := list[storagev1.StorageClass](ctx, p, storageClasses, "")
	if err != nil {
		return nil, err
	}
	driver, name := req.For.Spec.CSI.Driver, req.For.Spec.StorageClassName
	of := slices.DeleteFunc(slices.Clone(all), func(c *storagev1.StorageClass) bool { return c.Provisioner != driver })
	choice := of
	if req.SnapshotID == "" {
		choice = all
	}
	for _, c := range choice {
		if c.Name == name {
			return c, nil
		}
	}
	if len(of) == 1 {
		return of[0], nil
	}
	return nil, configured("restore the StorageClass too, or map it to one of the target (--storage-class-mappings)",
		"the cluster has no StorageClass %q that could make it, and %d others of driver %s", name, len(of), driver)
}

// askVolume makes the claim that has the volume made, with what it is made of.
func (p *Provider) askVolume(ctx context.Context, req *plugins.VolumeRequest, class *storagev1.StorageClass, name string) error {
	m, err := meta(name, req.Namespace, RoleHelper, req.Token, req.Tags)
	if err != nil {
		return err
	}
	size := req.SizeBytes
	claim := &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: m,
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class.Name, AccessModes: req.For.Spec.AccessModes, VolumeMode: req.For.Spec.VolumeMode},
	}
	if req.SnapshotID != "" {
		restoreSize, err := p.source(ctx, req, name)
		if err != nil {
			return err
		}
		size = max(size, restoreSize)
		group := snapshotGroup
		claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: name}
	}
	if size <= 0 {
		return configured("", "a volume needs a size")
	}
	claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(size, resource.BinarySI)}
	return p.create(ctx, claims, req.Namespace, claim)
}

// source makes a VolumeSnapshot, with a content, of a snapshot that the driver has, and waits until it can be used. It gives the least size of a volume of it.
func (p *Provider) source(ctx context.Context, req *plugins.VolumeRequest, name string) (int64, error) {
	driver, handle, ok := strings.Cut(req.SnapshotID, "/")
	if !ok || driver != req.For.Spec.CSI.Driver {
		return 0, configured("", "snapshot %s is not of driver %s", req.SnapshotID, req.For.Spec.CSI.Driver)
	}
	tags := map[string]string{}
	maps.Copy(tags, req.Tags)
	tags["kedge.dev/role"] = "temporary"
	m, err := meta(name, "", RoleHelper, req.Token, tags)
	if err != nil {
		return 0, err
	}
	mode := ""
	if req.For.Spec.VolumeMode != nil {
		mode = string(*req.For.Spec.VolumeMode)
	}
	class := p.class[driver].Metadata.Name
	if err := p.create(ctx, contents, "", pinned(m, driver, class, mode, handle, req.Namespace)); err != nil {
		return 0, err
	}
	if of, err := p.helper(ctx, req.Namespace, name, digest(req.Token)); err != nil || of == nil || of.id() != req.SnapshotID {
		return 0, errors.Join(err, foreign("VolumeSnapshotContent %s is not of snapshot %s", name, req.SnapshotID))
	}
	m.Namespace = req.Namespace
	err = p.create(ctx, snapshots, req.Namespace, &snapshot{
		TypeMeta: metav1.TypeMeta{APIVersion: snapshots.APIVersion(), Kind: "VolumeSnapshot"}, Metadata: m,
		Spec: snapshotSpec{Class: class, Source: snapshotSource{Content: name}},
	})
	if err != nil {
		return 0, err
	}
	size, err := p.usable(ctx, req.Namespace, name, req.SnapshotID)
	if errors.Is(err, plugins.ErrVolumeGone) {
		err = errors.Join(err, p.dropSource(ctx, req.Namespace, name, digest(req.Token)))
	}
	return size, err
}

// usable waits until a VolumeSnapshot of a snapshot that the driver should have can be used. A driver that complains all the time does not have it.
func (p *Provider) usable(ctx context.Context, namespace, name, id string) (int64, error) {
	var c content
	complains := p.complaint(goneTime)
	err := p.until(ctx, readyTime, func(ctx context.Context) (bool, string, error) {
		var s snapshot
		if err := p.get(ctx, snapshots.Path(namespace, name), &s); err != nil {
			return false, "", err
		}
		c = content{}
		if err := p.get(ctx, contents.Path("", name), &c); err != nil {
			return false, "", err
		}
		said := c.Status.Error.String()
		if complains(c.Status.Error) {
			return false, "", missing("", "snapshot %s is not there, or not usable: %s", id, said)
		}
		return s.Status.Ready && s.Status.Content == name, "snapshot " + id + " is not ready: " + cmp.Or(said, s.Status.Error.String()), nil
	})
	return c.Status.RestoreSize, err
}

// dropSource removes the VolumeSnapshot and the content that a volume was made of. The driver's snapshot stays: the content's policy is Retain.
// What has the names, but is not Kedge's, is left alone. token is as of helps.
func (p *Provider) dropSource(ctx context.Context, namespace, name, token string) error {
	of, err := p.helper(ctx, namespace, name, token)
	if err != nil || of == nil {
		return err
	}
	var s snapshot
	path := snapshots.Path(namespace, name)
	if err := p.get(ctx, path, &s); unlessGone(err) != nil {
		return err
	} else if err == nil && s.Spec.Source.Content == name {
		if err := p.goneOf(ctx, path, s.Metadata.UID, readyTime); err != nil {
			return err
		}
	}
	return p.gone(ctx, contents.Path("", name), readyTime)
}

// bound waits until the claim has its volume, and gives that.
func (p *Provider) bound(ctx context.Context, req *plugins.VolumeRequest, class *storagev1.StorageClass, name string) (*corev1.PersistentVolume, error) {
	path := claims.Path(req.Namespace, name)
	wait := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	pv := &corev1.PersistentVolume{}
	err := p.until(ctx, fillTime, func(ctx context.Context) (bool, string, error) {
		var claim corev1.PersistentVolumeClaim
		if err := p.get(ctx, path, &claim); err != nil {
			return false, "", err
		}
		if !isRequested(&claim, req) {
			return false, "", foreign("claim %s/%s is not as Kedge makes it", req.Namespace, name)
		}
		if claim.Status.Phase == corev1.ClaimBound {
			err := p.get(ctx, volumes.Path("", claim.Spec.VolumeName), pv)
			if err == nil && !provisionedFor(pv, &claim) {
				err = foreign("claim %s/%s got PersistentVolume %s, which was not made for it", req.Namespace, name, pv.Name)
			}
			return true, "", err
		}
		if wait && claim.Annotations[selectedNode] == "" { // a provisioner that could not do it there takes the node away
			node, err := p.node(ctx, req, class.Provisioner)
			if err != nil {
				return false, "", err
			}
			if err := p.patch(ctx, path, map[string]any{"metadata": map[string]any{"annotations": map[string]string{selectedNode: node}}}); err != nil {
				return false, "", err
			}
		}
		return false, fmt.Sprintf("claim %s/%s is not bound (kubectl describe pvc -n %s %s may tell why)", req.Namespace, name, req.Namespace, name), nil
	})
	return pv, err
}

// node chooses one that has the driver, where the volume could be used before if there is such a one.
func (p *Provider) node(ctx context.Context, req *plugins.VolumeRequest, driver string) (string, error) {
	withDriver, err := list[storagev1.CSINode](ctx, p, csiNodes, "")
	if err != nil {
		return "", err
	}
	all, err := list[corev1.Node](ctx, p, nodes, "")
	if err != nil {
		return "", err
	}
	drivers := map[string]bool{}
	for _, n := range withDriver {
		drivers[n.Name] = slices.ContainsFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver })
	}
	rank := func(n *corev1.Node) int {
		r := 0
		if fits(req.For.Spec.NodeAffinity, n.Labels) {
			r -= 2
		}
		if req.Zone != "" && n.Labels[corev1.LabelTopologyZone] == req.Zone {
			r--
		}
		if n.Spec.Unschedulable || !isReady(n) {
			r += 8
		}
		return r
	}
	all = slices.DeleteFunc(all, func(n *corev1.Node) bool { return !drivers[n.Name] })
	if len(all) == 0 {
		return "", configured("", "no node has driver %s", driver)
	}
	best := slices.MinFunc(all, func(a, b *corev1.Node) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name)) })
	return best.Name, nil
}

func isReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// fits says whether a node has the labels that a volume asks for, in the form that drivers write: terms of values.
func fits(affinity *corev1.VolumeNodeAffinity, labels map[string]string) bool {
	if affinity == nil || affinity.Required == nil {
		return true
	}
	return slices.ContainsFunc(affinity.Required.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Operator == corev1.NodeSelectorOpIn && !slices.Contains(e.Values, labels[e.Key])
		})
	})
}

// adopt marks the PersistentVolume that the provisioner made, so that it is found by its tags and its end is not the volume's.
func (p *Provider) adopt(ctx context.Context, pv *corev1.PersistentVolume, req *plugins.VolumeRequest, name string) error {
	m, err := meta(name, "", RoleHelper, req.Token, req.Tags)
	if err != nil {
		return err
	}
	return p.patch(ctx, volumes.Path("", pv.Name), map[string]any{
		"metadata": map[string]any{"labels": m.Labels, "annotations": m.Annotations},
		"spec":     map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimRetain},
	})
}

// made is a volume as the contract has it.
func made(pv *corev1.PersistentVolume, tags map[string]string) (plugins.Volume, error) {
	spec, err := json.Marshal(described{CSI: pv.Spec.CSI, Affinity: pv.Spec.NodeAffinity, Capacity: pv.Spec.Capacity, Provisioner: pv.Annotations[provisionedBy]})
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	return plugins.Volume{
		Handle: handleOf(pv), SizeBytes: size.Value(), Created: pv.CreationTimestamp.Time, Tags: tags,
		Attributes: map[string]string{attributeSpec: string(spec), attributeStorageClass: pv.Spec.StorageClassName},
	}, err
}

// FindVolumes gives the volumes that CreateVolume made with the tags and Release has not let go, those too that are still being made.
func (p *Provider) FindVolumes(ctx context.Context, tags map[string]string) ([]plugins.Volume, error) {
	const op = "find volumes"
	if len(tags) == 0 {
		return nil, p.fail(ctx, op, "", configured("", "at least one tag is needed"))
	}
	asked, err := list[corev1.PersistentVolumeClaim](ctx, p, claims, LabelRole+"="+RoleHelper)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	pvs, err := p.helpers(ctx)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	helpers, err := list[content](ctx, p, contents, LabelRole+"="+RoleHelper)
	if err != nil {
		return nil, p.fail(ctx, op, "", err)
	}
	of := map[string]*content{}
	for _, c := range helpers {
		of[c.Metadata.Name] = c
	}
	var out []plugins.Volume
	adopted := map[string]bool{}
	for _, pv := range pvs {
		adopted[pv.Name] = true
		if t := tagsOf(&pv.ObjectMeta); has(t, tags) && pv.Spec.CSI != nil {
			v, err := made(pv, t)
			if err != nil {
				return nil, p.fail(ctx, op, pv.Name, err)
			}
			out = append(out, v)
		}
	}
	for _, c := range asked {
		if adopted[c.Spec.VolumeName] {
			continue
		}
		t, own, err := p.claimTags(ctx, c, of[c.Name])
		if err != nil {
			return nil, p.fail(ctx, op, c.Namespace+"/"+c.Name, err)
		}
		if own && has(t, tags) {
			size := c.Spec.Resources.Requests[corev1.ResourceStorage]
			out = append(out, plugins.Volume{Handle: idClaim + c.Namespace + "/" + c.Name, SizeBytes: size.Value(), Created: c.CreationTimestamp.Time, Tags: t})
		}
	}
	return out, nil
}

func (p *Provider) helpers(ctx context.Context) ([]*corev1.PersistentVolume, error) {
	return list[corev1.PersistentVolume](ctx, p, volumes, LabelRole+"="+RoleHelper)
}

// DeleteVolume has the driver remove a volume that CreateVolume made. One that another PersistentVolume names is refused: that may be in use.
func (p *Provider) DeleteVolume(ctx context.Context, handle string) error {
	return p.fail(ctx, "delete volume", handle, p.deleteVolume(ctx, handle))
}

func (p *Provider) deleteVolume(ctx context.Context, handle string) error {
	if rest, ok := strings.CutPrefix(handle, idClaim); ok {
		namespace, name, _ := strings.Cut(rest, "/")
		// The class's policy says what becomes of a volume that is made meanwhile; one with Retain would be left. The source goes last: it says whose
		// the claim is.
		if err := p.deleteClaim(ctx, namespace, name); err != nil {
			return err
		}
		return p.dropSource(ctx, namespace, name, "")
	}
	all, err := list[corev1.PersistentVolume](ctx, p, volumes, "")
	if err != nil {
		return err
	}
	var own *corev1.PersistentVolume
	for _, pv := range all {
		switch {
		case pv.Spec.CSI == nil || handleOf(pv) != handle:
		case pv.Labels[LabelRole] == RoleHelper:
			own = pv
		default:
			return configured("", "PersistentVolume %s names it", pv.Name)
		}
	}
	if own == nil {
		return nil
	}
	path := volumes.Path("", own.Name)
	if err := p.patch(ctx, path, map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimDelete}}); err != nil {
		return err
	}
	if ref := own.Spec.ClaimRef; ref != nil {
		if err := p.goneOf(ctx, claims.Path(ref.Namespace, ref.Name), ref.UID, readyTime); err != nil {
			return err
		}
	}
	return p.gone(ctx, path, readyTime)
}

// deleteClaim deletes a claim, and the volume that it may have got meanwhile. Without a content that says that Kedge made the claim, what becomes of the
// volume is up to its class, as it is for whoever works in that namespace.
func (p *Provider) deleteClaim(ctx context.Context, namespace, name string) error {
	var claim corev1.PersistentVolumeClaim
	path := claims.Path(namespace, name)
	if err := p.get(ctx, path, &claim); err != nil {
		return unlessGone(err)
	}
	if claim.Labels[LabelRole] != RoleHelper {
		return foreign("claim %s/%s is not one of Kedge's", namespace, name)
	}
	of, err := p.helper(ctx, namespace, name, claim.Labels[labelToken])
	if err != nil {
		return err
	}
	if claim.Spec.VolumeName != "" {
		var pv corev1.PersistentVolume
		err := p.get(ctx, volumes.Path("", claim.Spec.VolumeName), &pv)
		switch {
		case unlessGone(err) != nil:
			return err
		case err == nil && !provisionedFor(&pv, &claim):
			return foreign("claim %s/%s names PersistentVolume %s, which was not made for it", namespace, name, pv.Name)
		case err == nil && of != nil:
			policy := map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimDelete}}
			if err := p.patch(ctx, volumes.Path("", pv.Name), policy); err != nil {
				return err
			}
		}
	}
	return p.goneOf(ctx, path, claim.UID, readyTime)
}

// Release removes the claims by which volumes were made, and their PersistentVolumes, where another PersistentVolume names the volume now; and what
// is left of snapshots that volumes were made of.
func (p *Provider) Release(ctx context.Context, tags map[string]string) error {
	return p.fail(ctx, "release volumes", "", p.release(ctx, tags))
}

func (p *Provider) release(ctx context.Context, tags map[string]string) error {
	all, err := list[corev1.PersistentVolume](ctx, p, volumes, "")
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, pv := range all {
		if pv.Spec.CSI != nil && pv.Labels[LabelRole] != RoleHelper {
			named[handleOf(pv)] = true
		}
	}
	var errs []error
	for _, pv := range all {
		if pv.Spec.CSI == nil || pv.Labels[LabelRole] != RoleHelper || !named[handleOf(pv)] || !has(tagsOf(&pv.ObjectMeta), tags) {
			continue
		}
		if ref := pv.Spec.ClaimRef; ref != nil {
			errs = append(errs, p.goneOf(ctx, claims.Path(ref.Namespace, ref.Name), ref.UID, readyTime))
		}
		errs = append(errs, p.gone(ctx, volumes.Path("", pv.Name), readyTime))
	}
	left, err := list[content](ctx, p, contents, LabelRole+"="+RoleHelper)
	errs = append(errs, err)
	for _, c := range left {
		if has(tagsOf(&c.Metadata), tags) {
			errs = append(errs, p.dropSource(ctx, c.ref("namespace"), c.Metadata.Name, ""))
		}
	}
	return errors.Join(errs...)
}
