package csi

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func classNamed(name string, labels, annotations map[string]string) *snapshotClass {
	return &snapshotClass{Metadata: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}, Driver: "d"}
}

// TestChoose: the class of a driver that is marked for Kedge, else for Velero, else as the default, else the only one.
func TestChoose(t *testing.T) {
	plain, other := classNamed("a", nil, nil), classNamed("b", nil, nil)
	standard := classNamed("c", nil, map[string]string{defaultClass: "true"})
	velero, off := classNamed("d", map[string]string{veleroClassLabel: "true"}, nil), classNamed("d", map[string]string{veleroClassLabel: "false"}, nil)
	own, second := classNamed("f", map[string]string{ClassLabel: "true"}, nil), classNamed("e", map[string]string{ClassLabel: "true"}, nil)
	for _, c := range []struct {
		of   []*snapshotClass
		want *snapshotClass
	}{
		{[]*snapshotClass{plain}, plain},
		{[]*snapshotClass{plain, other}, nil},
		{[]*snapshotClass{plain, off}, nil},
		{[]*snapshotClass{plain, standard}, standard},
		{[]*snapshotClass{standard, velero, plain}, velero},
		{[]*snapshotClass{standard, velero, own}, own},
		{[]*snapshotClass{own, second}, second}, // always the same
	} {
		if got := choose(c.of); got != c.want {
			t.Errorf("of %v: %v, want %v", c.of, got, c.want)
		}
	}
}

// TestHandle: volumes of drivers without a class, of other providers, and the PersistentVolumes that volumes are made by are not this provider's.
func TestHandle(t *testing.T) {
	p := &Provider{
		class: map[string]snapshotClass{"d": {}, "taken": {}}, ambiguous: map[string]string{"two": "driver two has 2 classes"},
		opts: Options{Others: func(pv *corev1.PersistentVolume) bool { return pv.Spec.CSI.Driver == "taken" }},
	}
	volume := func(driver string, labels map[string]string) *corev1.PersistentVolume {
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "a/b"}
		return pv
	}
	for _, c := range []struct {
		pv   *corev1.PersistentVolume
		want string
		why  string
	}{
		{volume("d", nil), "d/a/b", "its driver has no VolumeSnapshotClass"},
		{volume("taken", nil), "", "its driver has no VolumeSnapshotClass"},
		{volume("e", nil), "", "its driver has no VolumeSnapshotClass"},
		{volume("two", nil), "", "driver two has 2 classes"},
		{volume("d", map[string]string{LabelRole: RoleHelper}), "", "its driver has no VolumeSnapshotClass"},
		{&corev1.PersistentVolume{}, "", ""},
	} {
		got, ok := p.Handle(c.pv)
		if got != c.want || ok != (c.want != "") || p.Why(c.pv) != c.why {
			t.Errorf("%+v: %q, %v, because %q", c.pv.Spec.CSI, got, ok, p.Why(c.pv))
		}
	}
}
