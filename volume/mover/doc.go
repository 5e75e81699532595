// Package mover has the files of volumes copied and restored by Jobs: each mounts one volume's storage through a PersistentVolume and a claim of
// its own, in a namespace where neither the quotas and policies of the volume's users nor their rights reach it, and runs "kedge mover".
// docs/mover.md describes that program, and what its pod may do.
package mover

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"kedge.dev/kedge/internal/clock"
	"kedge.dev/kedge/internal/kube"
)

// Labels and annotations of what a mover makes in a cluster.
const (
	LabelMover      = "kedge.dev/mover" // "copy" or "restore"
	LabelBackup     = "kedge.dev/backup-uid"
	LabelRestore    = "kedge.dev/restore-uid"
	AnnotationClaim = "kedge.dev/claim"   // "namespace/name"
	AnnotationWhat  = "kedge.dev/storage" // whose storage it is
)

// Provider is what rows of a backup call the provider of volumes that movers copy.
const Provider = "files"

var (
	// ErrFailed means that the Job came to an end without a result that can be used.
	ErrFailed = errors.New("the mover failed")
	// ErrNotStarted means that the Job's pod did not come to run.
	ErrNotStarted = errors.New("the mover did not start")
)

// Settings say where and as what Jobs run. An administrator prepares them: docs/mover.md.
type Settings struct {
	// Namespace is where Jobs, their claims and pods are; its pods may run as root with some capabilities (Pod Security "baseline").
	Namespace string
	// Image has kedge as its entry point.
	Image string
	// ServiceAccount of the pods, through which AWS knows them; empty is the namespace's default.
	ServiceAccount string
	// Secret, in Namespace, has config.yaml with the location, and the files that it names, as they are below ConfigPath.
	Secret string
}

// Check refuses settings that say where Jobs run, but not all that they need.
func (s Settings) Check() error {
	if s == (Settings{Secret: s.Secret}) || s.Namespace != "" && s.Image != "" && s.Secret != "" {
		return nil
	}
	return errors.New("movers need a namespace, an image and a Secret, and not all three are named")
}

// With makes a Mover of the settings; nil where they name no image, and no Job can be run.
func (s Settings) With(client *kube.Client, location string, now func() time.Time) *Mover {
	if s.Image == "" {
		return nil
	}
	return &Mover{Settings: s, Kube: client, Location: location, Now: now, Sleep: clock.Sleep}
}

// Where the container finds what it needs.
const (
	ConfigPath = "/etc/kedge"
	dataPath   = "/data"
)

// Mover runs Jobs. Settings.With makes one.
type Mover struct {
	Settings
	// Kube is the cluster's, as somebody who may create, see and delete PersistentVolumes, and in the namespace claims and Jobs, and see pods
	// and events.
	Kube *kube.Client
	// Location is the location's name in the Secret's configuration.
	Location string
	Now      func() time.Time
	// Sleep waits, or returns the context's error.
	Sleep func(context.Context, time.Duration) error
}

// Owner is the backup or restore that a Job is for.
type Owner struct {
	Label string // LabelBackup or LabelRestore
	UID   string
}

// Task is one volume to be copied or restored.
type Task struct {
	Owner Owner
	// Storage names what is moved. One owner moves the same storage by one Job at a time.
	Storage string
	Claim   string // "namespace/name", for people
	// PV is a PersistentVolume of the storage; the Job's own is made like it.
	PV       *corev1.PersistentVolume
	ReadOnly bool
	// Args go to "kedge mover", after what the Mover itself knows.
	Args []string
}

// name is that of the task's objects: the same for the same task, so that no crash makes two.
func (t *Task) name() string {
	sum := sha256.Sum256([]byte(t.Owner.UID + "/" + t.Storage))
	return "kedge-mover-" + hex.EncodeToString(sum[:10])
}

// Storage names what is behind a PersistentVolume, so that two of them which lead to the same files have one name: the driver and its
// handle. The error says that it has no files that a pod could mount by another PersistentVolume.
func Storage(pv *corev1.PersistentVolume) (string, error) {
	if mode := pv.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return "", fmt.Errorf("PersistentVolume %s is a raw block device, which has no files", pv.Name)
	}
	s := &pv.Spec
	switch {
	case s.CSI != nil:
		return s.CSI.Driver + "/" + s.CSI.VolumeHandle, nil
	case s.NFS != nil:
		return "kubernetes.io/nfs/" + s.NFS.Server + ":" + s.NFS.Path, nil
	case s.HostPath != nil: // the same path is another folder on each machine
		return "kubernetes.io/host-path/" + pv.Name + ":" + s.HostPath.Path, nil
	case s.Local != nil:
		return "kubernetes.io/local-volume/" + pv.Name + ":" + s.Local.Path, nil
	}
	return "", fmt.Errorf("PersistentVolume %s is of a kind of which no second one can be made", pv.Name)
}

// Shared says whether two PersistentVolumes lead to the same files.
func Shared(a, b *corev1.PersistentVolume) bool {
	if a.Spec.HostPath != nil || a.Spec.Local != nil { // the same folder of the same machines
		return equality.Semantic.DeepEqual(a.Spec.HostPath, b.Spec.HostPath) && equality.Semantic.DeepEqual(a.Spec.Local, b.Spec.Local) &&
			equality.Semantic.DeepEqual(a.Spec.NodeAffinity, b.Spec.NodeAffinity)
	}
	first, err := Storage(a)
	second, otherErr := Storage(b)
	return err == nil && otherErr == nil && first == second
}
