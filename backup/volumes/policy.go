package volumes

import (
	"cmp"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kedge.dev/kedge/api/v1alpha1"
)

// Policies decide what is done for each claim.
type Policies struct {
	fallback v1alpha1.VolumeMethod
	list     []policy
	copies   []v1alpha1.SnapshotCopy
}

type policy struct {
	v1alpha1.VolumePolicy
	labels labels.Selector
}

// Compile checks a selection. Errors name the field: "spec.volumes.policies[2].minSize".
func Compile(s *v1alpha1.VolumeSelection) (*Policies, error) {
	p := &Policies{fallback: v1alpha1.VolumeSkip}
	if s == nil {
		return p, nil
	}
	p.fallback = cmp.Or(s.Method, v1alpha1.VolumeSkip)
	if err := checkMethod("spec.volumes.method", p.fallback); err != nil {
		return nil, err
	}
	for i, one := range s.Policies {
		compiled, err := compilePolicy(fmt.Sprintf("spec.volumes.policies[%d].", i), one)
		if err != nil {
			return nil, err
		}
		p.list = append(p.list, compiled)
	}
	p.copies = s.SnapshotCopies
	return p, checkCopies(s)
}

func compilePolicy(field string, one v1alpha1.VolumePolicy) (policy, error) {
	out := policy{VolumePolicy: one, labels: labels.Everything()}
	if err := checkMethod(field+"method", one.Method); err != nil {
		return out, err
	}
	for name, patterns := range map[string][]string{"namespaces": one.Namespaces, "storageClasses": one.StorageClasses, "drivers": one.Drivers} {
		for j, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				return out, fmt.Errorf("%s%s[%d]: %q is neither a name nor a glob", field, name, j, pattern)
			}
		}
	}
	if one.LabelSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(one.LabelSelector)
		if err != nil {
			return out, fmt.Errorf("%slabelSelector: %w", field, err)
		}
		out.labels = selector
	}
	if one.MinSize != nil && one.MaxSize != nil && one.MinSize.Cmp(*one.MaxSize) > 0 {
		return out, fmt.Errorf("%sminSize: %s is larger than maxSize, %s", field, one.MinSize, one.MaxSize)
	}
	return out, nil
}

func checkMethod(field string, m v1alpha1.VolumeMethod) error {
	switch m {
	case v1alpha1.VolumeSnapshot, v1alpha1.VolumeCopy, v1alpha1.VolumeBoth, v1alpha1.VolumeSkip:
		return nil
	}
	return fmt.Errorf("%s: %q is none of Snapshot, Copy, Both, Skip", field, m)
}

// Nothing says that every claim is skipped, and no policy says so: the user has not spoken of volumes.
func (p *Policies) Nothing() bool { return p.fallback == v1alpha1.VolumeSkip && len(p.list) == 0 }

// Method is what is done for a claim and its volume.
func (p *Policies) Method(c *Claim, pv *corev1.PersistentVolume) v1alpha1.VolumeMethod {
	for i := range p.list {
		if p.list[i].matches(c, pv) {
			return p.list[i].Method
		}
	}
	return p.fallback
}

func (p *policy) matches(c *Claim, pv *corev1.PersistentVolume) bool {
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	return oneOf(p.Namespaces, c.Namespace) && oneOf(p.StorageClasses, c.StorageClass) && oneOf(p.Drivers, Driver(pv)) &&
		p.labels.Matches(labels.Set(c.Labels)) && within(size, p.MinSize, p.MaxSize)
}

func oneOf(patterns []string, s string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, s); ok && err == nil {
			return true
		}
	}
	return len(patterns) == 0
}

func within(size resource.Quantity, low, high *resource.Quantity) bool {
	return (low == nil || size.Cmp(*low) >= 0) && (high == nil || size.Cmp(*high) <= 0)
}

// Driver names what serves a volume: the CSI driver, or the in-tree plugin as its StorageClass's provisioner is called.
func Driver(pv *corev1.PersistentVolume) string {
	s := &pv.Spec
	switch {
	case s.CSI != nil:
		return s.CSI.Driver
	case s.AWSElasticBlockStore != nil:
		return "kubernetes.io/aws-ebs"
	case s.NFS != nil:
		return "kubernetes.io/nfs"
	case s.HostPath != nil:
		return "kubernetes.io/host-path"
	case s.Local != nil:
		return "kubernetes.io/local-volume"
	}
	return ""
}
