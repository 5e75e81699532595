//go:build linux

package node_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/volume/mover"
)

// TestMoverSaysWhyItDoesNotStart: whatever keeps a mover's pod from running, as a real scheduler and kubelet tell it, is in the error.
func TestMoverSaysWhyItDoesNotStart(t *testing.T) {
	w := newWorld(t)
	client, err := kube.New(w.cluster.Kedge(t), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: moverNamespace}}
	if _, err := w.clients.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "there"}}
	if _, err := w.clients.CoreV1().Secrets(moverNamespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		settings   mover.Settings
		path, node string
		sign, want string // the reason of the event after which there is something to be told; what is told
	}{
		"no Secret": {mover.Settings{Image: appImage, Secret: "absent"}, t.TempDir(), "node-1", "FailedMount", `secret "absent" not found`},
		"no folder": {mover.Settings{Image: appImage, Secret: "there"}, "/nowhere/at/all", "node-1", "FailedMount", "/nowhere/at/all"},
		"no image":  {mover.Settings{Image: "registry.example/absent:1", Secret: "there"}, t.TempDir(), "node-1", "Failed", "registry.example/absent:1"},
		"no node":   {mover.Settings{Image: appImage, Secret: "there"}, t.TempDir(), "node-9", "FailedScheduling", "node affinity"},
	} {
		t.Run(name, func(t *testing.T) {
			c.settings.Namespace = moverNamespace
			began := time.Now()
			m := c.settings.With(client, "main", func() time.Time { return began })
			m.Sleep = func(ctx context.Context, _ time.Duration) error {
				m.Sleep = shortly // once it has been asked why, it waits until all is removed
				w.until(t, "there is an event "+c.sign, func(ctx context.Context) (bool, string) { return w.told(ctx, c.sign), "there is none" })
				m.Now = func() time.Time { return began.Add(time.Hour) }
				return ctx.Err()
			}
			_, err := m.Copy(t.Context(), "cluster-uid", localTask(name, c.path, c.node))
			if !errors.Is(err, mover.ErrNotStarted) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says: %v", err)
			}
			m.Sleep = func(context.Context, time.Duration) error {
				time.Sleep(100 * time.Millisecond)
				return t.Context().Err()
			}
			if err := m.Sweep(t.Context(), mover.Owner{Label: mover.LabelBackup, UID: "1"}); err != nil {
				t.Fatal(err)
			}
			if err := w.clients.CoreV1().Events(moverNamespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func shortly(ctx context.Context, _ time.Duration) error {
	time.Sleep(100 * time.Millisecond)
	return ctx.Err()
}

// told says whether there is an event of a reason, and where that is about an image, whether the pod's status has followed.
func (w *world) told(ctx context.Context, reason string) bool {
	list, err := w.clients.CoreV1().Events(moverNamespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
	if err != nil || len(list.Items) == 0 || reason != "Failed" {
		return err == nil && len(list.Items) > 0
	}
	pods, err := w.clients.CoreV1().Pods(moverNamespace).List(ctx, metav1.ListOptions{})
	return err == nil && slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Waiting != nil && s.State.Waiting.Message != "" })
	})
}

// localTask is the copy of a folder of a node.
func localTask(name, path, node string) mover.Task {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "disk"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
	return mover.Task{Owner: mover.Owner{Label: mover.LabelBackup, UID: "1"}, Storage: name, Claim: "shop/data", PV: pv}
}
