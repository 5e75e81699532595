package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
)

// Pod is what hooks need to know of one.
type Pod struct {
	Namespace, Name, UID string
	Labels               map[string]string
	Annotations          map[string]string // of hooks; others are left out
	// Containers are those that run beside each other, in the pod's order.
	Containers []string
	// Claims are the names of those that it mounts.
	Claims []string
	Phase  corev1.PodPhase
}

// String is what messages call the pod: "shop/db-0".
func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// Ref names the pod's object.
func (p *Pod) Ref() plugins.Ref {
	return plugins.Ref{Version: "v1", Resource: "pods", Namespace: p.Namespace, Name: p.Name}
}

// Group is the freeze group that the pod is in by its label, with its namespace; "" where it is in none.
func (p *Pod) Group() string {
	if name := p.Labels[v1alpha1.FreezeGroupLabel]; name != "" {
		return p.Namespace + "/" + name
	}
	return ""
}

// Running says whether commands can run in the pod.
func (p *Pod) Running() bool { return p.Phase == corev1.PodRunning }

// Marked says whether a pod's JSON may have hooks in its annotations, or the label of a freeze group. It costs a look at the bytes.
func Marked(raw []byte) bool {
	return bytes.Contains(raw, []byte(marker)) || bytes.Contains(raw, []byte(v1alpha1.FreezeGroupLabel))
}

// Mounts says whether a pod's JSON may name claims.
func Mounts(raw []byte) bool {
	return bytes.Contains(raw, []byte(`"persistentVolumeClaim"`)) || bytes.Contains(raw, []byte(`"ephemeral"`))
}

// ParsePod reads a Pod as the API server gave it.
func ParsePod(raw []byte) (Pod, error) {
	var o struct {
		Metadata struct {
			Namespace, Name, UID string
			Labels, Annotations  map[string]string
		}
		Spec struct {
			Containers []struct{ Name string }
			Volumes    []struct {
				Name                  string
				PersistentVolumeClaim *struct{ ClaimName string }
				Ephemeral             *struct{}
			}
		}
		Status struct{ Phase corev1.PodPhase }
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return Pod{}, fmt.Errorf("read a pod: %w", err)
	}
	p := Pod{
		Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, UID: o.Metadata.UID,
		Labels: o.Metadata.Labels, Phase: o.Status.Phase,
	}
	for key, value := range o.Metadata.Annotations {
		if strings.Contains(key, marker) || strings.HasPrefix(key, restoreKind) {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = value
		}
	}
	for _, c := range o.Spec.Containers {
		p.Containers = append(p.Containers, c.Name)
	}
	for _, v := range o.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			p.Claims = append(p.Claims, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil: // its claim is called so by the ephemeral volume controller
			p.Claims = append(p.Claims, p.Name+"-"+v.Name)
		}
	}
	return p, nil
}
