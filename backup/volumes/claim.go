package volumes

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/plugins"
)

// Claim is what the taking of data needs to know of a PersistentVolumeClaim.
type Claim struct {
	Namespace, Name, UID string
	Labels               map[string]string
	StorageClass         string
	// Volume names the PersistentVolume; empty where the claim is not bound, and so has no data.
	Volume string
}

// String is what messages call the claim: "shop/data-0".
func (c *Claim) String() string { return c.Namespace + "/" + c.Name }

// Ref names the claim's object.
func (c *Claim) Ref() plugins.Ref {
	return plugins.Ref{Version: "v1", Resource: "persistentvolumeclaims", Namespace: c.Namespace, Name: c.Name}
}

// classAnnotation named the class of a claim before Kubernetes 1.6; manifests still have it ("Storage Classes", Kubernetes documentation).
const classAnnotation = "volume.beta.kubernetes.io/storage-class"

// ParseClaim reads a PersistentVolumeClaim as the API server gave it.
func ParseClaim(raw []byte) (Claim, error) {
	var o struct {
		Metadata struct {
			Namespace, Name, UID string
			Labels, Annotations  map[string]string
		}
		Spec struct {
			VolumeName       string
			StorageClassName *string
		}
		Status struct {
			Phase corev1.PersistentVolumeClaimPhase
		}
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return Claim{}, fmt.Errorf("read a claim: %w", err)
	}
	c := Claim{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, UID: o.Metadata.UID, Labels: o.Metadata.Labels}
	if c.StorageClass = o.Metadata.Annotations[classAnnotation]; c.StorageClass == "" && o.Spec.StorageClassName != nil {
		c.StorageClass = *o.Spec.StorageClassName
	}
	if o.Status.Phase == corev1.ClaimBound {
		c.Volume = o.Spec.VolumeName
	}
	return c, nil
}
