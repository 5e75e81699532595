// Package csi is the volume provider of every CSI driver that can take snapshots, by what Kubernetes has for that: VolumeSnapshots,
// VolumeSnapshotContents and VolumeSnapshotClasses, whose controllers come with the cluster.
//
// A snapshot that is kept has one object here: a VolumeSnapshotContent without a VolumeSnapshot ("pre-provisioned"), with policy Retain and the tags in an
// annotation. It belongs to no namespace, so it stays when the application goes. What is made on the way is removed.
package csi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/internal/clock"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// Name is what records and reports call the provider.
const Name = "csi"

// Labels and annotations of what the provider makes.
const (
	// LabelRole says what an object is for: RoleSnapshot or RoleHelper.
	LabelRole = "kedge.dev/csi-role"
	// RoleSnapshot is on the objects of a snapshot that is kept.
	RoleSnapshot = "snapshot"
	// RoleHelper is on those of a volume that is made of one.
	RoleHelper = "helper"

	labelToken       = "kedge.dev/csi-token"   //nolint:gosec // a label's name
	annotationTags   = "kedge.dev/csi-tags"    // JSON
	annotationVolume = "kedge.dev/csi-volume"  // the handle of the volume that a snapshot is of
	annotationAsked  = "kedge.dev/csi-handles" // a digest of all handles of the request
	annotationMade   = "kedge.dev/csi-made-as" // the content that the driver's snapshot was made by, while there is one
)

// Labels and annotations of others. Velero's label is on the classes of clusters that were set up for it.
const (
	// ClassLabel on a VolumeSnapshotClass, with the value "true", has Kedge use that one of the driver's.
	ClassLabel       = "kedge.dev/csi-volumesnapshot-class"
	veleroClassLabel = "velero.io/csi-volumesnapshot-class"
	defaultClass     = "snapshot.storage.kubernetes.io/is-default-class"
)

// The attributes of a plugins.Volume.
const (
	attributeClass         = "snapshotClass"
	attributeStorageClass  = "storageClass"
	attributeParameters    = "snapshotParameters" // JSON
	attributeSpec          = "persistentVolume"   // JSON: what a PersistentVolume of a volume says of it
	annotationSecretName   = "deletion-secret-name"
	annotationSecretSpace  = "deletion-secret-namespace"
	annotationSecretPrefix = "snapshot.storage.kubernetes.io/"
)

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	// momentTime is how long a driver may take to fix the moment of a snapshot, while applications may hold still.
	momentTime = 5 * time.Minute
	// readyTime is how long a driver may take for what takes no copying: to find a snapshot, to delete something.
	readyTime = 3 * time.Minute
	// goneTime is how long a driver may complain of a snapshot, which its sidecar asks for again and again, until that is taken for gone.
	goneTime = 20 * time.Second
	// failTime is how long it may complain of the making of one, until that is given up.
	failTime = time.Minute
	// brokenTime is how long it may complain of a snapshot whose moment is fixed, until that is taken for failed.
	brokenTime = 30 * time.Minute
	// stuckTime is how long nothing may change about such a snapshot: a driver that copies bytes says nothing until it is done.
	stuckTime = 24 * time.Hour
	// tidyTime is how long the removal of something is waited for that need not be gone.
	tidyTime = 15 * time.Second
	// fillTime is how long it may take to make a volume of a snapshot, which may be a copy of all bytes.
	fillTime = 2 * time.Hour
)

// Options are what a Provider needs beside the cluster. The zero value is good.
type Options struct {
	// Others says of volumes that they are another provider's, so that this one leaves them. It may be nil.
	Others func(*corev1.PersistentVolume) bool
	// Sleep waits for d or until ctx ends; nil is a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is the clock of limits; nil means time.Now.
	Now func() time.Time
}

// Provider is the CSI drivers of one cluster. It implements plugins.VolumeSnapshotter.
type Provider struct {
	kube *kube.Client
	opts Options
	// class is, by driver, what snapshots are made with; ambiguous has the drivers with several classes none of which is chosen.
	class     map[string]snapshotClass
	ambiguous map[string]string
	broken    error // why the classes could not be read

	mu    sync.Mutex
	seen  map[string]*corev1.PersistentVolume // by handle, those that were asked for
	waits map[string]*watched                 // by content, snapshots that are not ready
}

var _ plugins.VolumeSnapshotter = (*Provider)(nil)

// New makes the provider of a cluster, which is asked for its VolumeSnapshotClasses. A cluster that knows no snapshots, or does not answer, has no driver
// that can take them: Why says so.
func New(ctx context.Context, client *kube.Client, opts Options) *Provider {
	if opts.Sleep == nil {
		opts.Sleep = clock.Sleep
	}
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the default of a field
	}
	p := &Provider{
		kube: client, opts: opts, class: map[string]snapshotClass{}, ambiguous: map[string]string{}, seen: map[string]*corev1.PersistentVolume{},
		waits: map[string]*watched{},
	}
	all, err := list[snapshotClass](ctx, p, classes, "")
	p.broken = p.fail(ctx, "list VolumeSnapshotClasses", "", err)
	byDriver := map[string][]*snapshotClass{}
	for _, c := range all {
		byDriver[c.Driver] = append(byDriver[c.Driver], c)
	}
	for driver, of := range byDriver {
		if chosen := choose(of); chosen != nil {
			p.class[driver] = *chosen
		} else {
			p.ambiguous[driver] = fmt.Sprintf("driver %s has %d VolumeSnapshotClasses: label the one to use with %s=true", driver, len(of), ClassLabel)
		}
	}
	return p
}

// choose gives the class of one driver to use: the labelled one, else the default one, else the only one.
func choose(of []*snapshotClass) *snapshotClass {
	marked := func(yes func(*snapshotClass) bool) *snapshotClass {
		some := slices.DeleteFunc(slices.Clone(of), func(c *snapshotClass) bool { return !yes(c) })
		if len(some) == 0 {
			return nil
		}
		return slices.MinFunc(some, func(a, b *snapshotClass) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	}
	for _, yes := range []func(*snapshotClass) bool{
		func(c *snapshotClass) bool { return c.Metadata.Labels[ClassLabel] == "true" },
		func(c *snapshotClass) bool { return c.Metadata.Labels[veleroClassLabel] == "true" },
		func(c *snapshotClass) bool { return c.Metadata.Annotations[defaultClass] == "true" },
		func(*snapshotClass) bool { return len(of) == 1 },
	} {
		if c := marked(yes); c != nil {
			return c
		}
	}
	return nil
}

// Takes says whether there is a driver whose volumes this provider takes snapshots of.
func (p *Provider) Takes() bool { return len(p.class) > 0 }

// Name is "csi".
func (p *Provider) Name() string { return Name }

// Why says of a volume that this provider does not take why its driver takes no snapshots here; "" where it is no CSI volume at all.
func (p *Provider) Why(pv *corev1.PersistentVolume) string {
	switch {
	case pv.Spec.CSI == nil:
		return ""
	case p.ambiguous[pv.Spec.CSI.Driver] != "":
		return p.ambiguous[pv.Spec.CSI.Driver]
	case p.broken != nil:
		return p.broken.Error()
	case len(p.class)+len(p.ambiguous) == 0:
		return "the cluster has no VolumeSnapshotClass (it takes the snapshot CRDs, the snapshot controller and a driver with snapshots)"
	}
	return "its driver has no VolumeSnapshotClass"
}

// Handle gives the driver and its handle of a volume, where that driver has a VolumeSnapshotClass.
func (p *Provider) Handle(pv *corev1.PersistentVolume) (handle string, ok bool) {
	if pv.Spec.CSI == nil || pv.Labels[LabelRole] == RoleHelper || p.opts.Others != nil && p.opts.Others(pv) {
		return "", false
	}
	if _, known := p.class[pv.Spec.CSI.Driver]; !known {
		return "", false
	}
	return handleOf(pv), true
}

func handleOf(pv *corev1.PersistentVolume) string {
	return pv.Spec.CSI.Driver + "/" + pv.Spec.CSI.VolumeHandle
}

// Describe tells of each handle's PersistentVolume, and of what snapshots of it are made with.
func (p *Provider) Describe(ctx context.Context, handles []string) (map[string]plugins.Volume, error) {
	pvs, err := p.find(ctx, handles)
	if err != nil {
		return nil, p.fail(ctx, "describe", "", err)
	}
	out := map[string]plugins.Volume{}
	for handle, pv := range pvs {
		size := pv.Spec.Capacity[corev1.ResourceStorage]
		v := plugins.Volume{Handle: handle, SizeBytes: size.Value(), Created: pv.CreationTimestamp.Time, Attributes: map[string]string{}}
		class := p.class[pv.Spec.CSI.Driver]
		parameters, err := json.Marshal(class.Parameters)
		if err != nil {
			return nil, p.fail(ctx, "describe", handle, err)
		}
		for name, value := range map[string]string{attributeClass: class.Metadata.Name, attributeStorageClass: pv.Spec.StorageClassName, attributeParameters: string(parameters)} {
			if value != "" && value != "null" {
				v.Attributes[name] = value
			}
		}
		out[handle] = v
	}
	return out, nil
}

// find gives the PersistentVolumes of handles, preferably bound ones. Those that were found once are not looked for again.
func (p *Provider) find(ctx context.Context, handles []string) (map[string]*corev1.PersistentVolume, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]*corev1.PersistentVolume{}
	for _, h := range handles {
		if pv := p.seen[h]; pv != nil {
			out[h] = pv
		}
	}
	if len(out) == len(handles) {
		return out, context.Cause(ctx)
	}
	all, err := list[corev1.PersistentVolume](ctx, p, volumes, "")
	if err != nil {
		return nil, err
	}
	for _, pv := range all {
		if handle, ok := p.Handle(pv); ok && slices.Contains(handles, handle) && (out[handle] == nil || pv.Status.Phase == corev1.VolumeBound) {
			out[handle], p.seen[handle] = pv, pv
		}
	}
	return out, nil
}

// described is what a PersistentVolume says of the volume behind it.
type described struct {
	CSI         *corev1.CSIPersistentVolumeSource `json:"csi"`
	Affinity    *corev1.VolumeNodeAffinity        `json:"nodeAffinity,omitempty"`
	Capacity    corev1.ResourceList               `json:"capacity"`
	Provisioner string                            `json:"provisioner,omitempty"`
}

// provisionedBy has a driver's provisioner take a PersistentVolume for its own, which it deletes where the reclaim policy says so.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

// Rebind makes pv the PersistentVolume of a volume that CreateVolume made: driver, handle, context, secrets, where it can be used, and size.
func (p *Provider) Rebind(pv *corev1.PersistentVolume, v plugins.Volume) error {
	if pv.Spec.CSI == nil {
		return rebindError(pv, "it is no volume of a CSI driver")
	}
	var d described
	if err := json.Unmarshal([]byte(v.Attributes[attributeSpec]), &d); err != nil || d.CSI == nil {
		return rebindError(pv, fmt.Sprintf("what is known of volume %s is not what this provider makes", v.Handle))
	}
	pv.Spec.CSI, pv.Spec.NodeAffinity, pv.Spec.Capacity = d.CSI, d.Affinity, d.Capacity
	if d.Provisioner != "" {
		pv.Annotations = maps.Clone(pv.Annotations)
		if pv.Annotations == nil {
			pv.Annotations = map[string]string{}
		}
		pv.Annotations[provisionedBy] = d.Provisioner
	}
	return nil
}

func rebindError(pv *corev1.PersistentVolume, detail string) error {
	return &plugins.VolumeError{Op: "rebind", Provider: Name, Object: "PersistentVolume " + pv.Name, Err: configured("", "%s", detail)}
}

const namePrefix = "kedge-"

// nameOf is the name of the objects of one token and what it is used for: always the same.
func nameOf(token, what string) string {
	sum := sha256.Sum256([]byte(token + "\n" + what))
	return namePrefix + hex.EncodeToString(sum[:12])
}

func digest(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "\n")))
	return hex.EncodeToString(sum[:12])
}

func has(tags, wanted map[string]string) bool {
	for name, value := range wanted {
		if got, ok := tags[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// hint is an error of this package's own, with what to do about it.
type hint struct {
	class  error
	err    error
	remedy string
}

func (h *hint) Error() string   { return h.err.Error() }
func (h *hint) Unwrap() []error { return []error{h.class, h.err} }

func configured(remedy, format string, args ...any) error {
	return &hint{class: plugins.ErrConfig, err: fmt.Errorf(format, args...), remedy: remedy}
}

func missing(remedy, format string, args ...any) error {
	return &hint{class: plugins.ErrVolumeGone, err: fmt.Errorf(format, args...), remedy: remedy}
}

// fail makes err the error of an operation; nil stays nil.
func (p *Provider) fail(ctx context.Context, op, object string, err error) error {
	if err == nil {
		return nil
	}
	e := &plugins.VolumeError{Op: op, Provider: Name, Object: object, Err: err}
	var own *hint
	switch code := kube.Code(err); {
	case ctx.Err() != nil:
		e.Err = fmt.Errorf("%w: %w", ctx.Err(), context.Cause(ctx))
	case errors.As(err, &own):
		e.Remedy = own.remedy
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		e.Err = &hint{class: plugins.ErrAccess, err: err}
		e.Remedy = "allow it in the ClusterRole of Kedge's server, or to the user of the kubeconfig"
	case errors.Is(err, errLate):
		e.Remedy = "see that the driver's controller with its sidecars (csi-provisioner, csi-snapshotter) and the snapshot controller run, and what their logs say"
	}
	return e
}
