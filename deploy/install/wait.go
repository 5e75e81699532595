package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kedge.dev/kedge/internal/kube"
)

// WaitReady waits until all of the Deployment's pods are the wanted ones, and ready. The error is ErrNotReady when that takes longer than
// within, with what the pods complain about.
func (i *Installer) WaitReady(ctx context.Context, name string, within time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	state := "it has not been looked at"
	err := poll(waiting, func() (bool, error) {
		o, err := i.get(waiting, i.deployment(name))
		if err != nil || o == nil {
			return false, err
		}
		var ready bool
		ready, state = rolledOut(o)
		return ready, nil
	})
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if reason := i.complaint(ctx); reason != "" {
		state += "; " + reason
	}
	return fmt.Errorf("wait for Deployment %s: %w after %s: %s", name, ErrNotReady, within, state)
}

// rolledOut says whether a Deployment is where its spec wants it, and in words how far it is.
func rolledOut(o *unstructured.Unstructured) (bool, string) {
	number := func(fields ...string) int64 {
		n, _, _ := unstructured.NestedInt64(o.Object, fields...)
		return n
	}
	want, updated, all := number("spec", "replicas"), number("status", "updatedReplicas"), number("status", "replicas")
	available := number("status", "availableReplicas")
	state := fmt.Sprintf("%d of %d pods are ready", available, want)
	if number("status", "observedGeneration") < o.GetGeneration() {
		return false, state
	}
	return updated == want && all == want && available == want, state
}

// complaint is what one of the pods says of why it does not run; empty where none says anything.
func (i *Installer) complaint(ctx context.Context) string {
	response, err := i.Client.Do(ctx, kube.Request{
		Path:  "/api/v1/namespaces/" + url.PathEscape(i.Namespace) + "/pods",
		Query: url.Values{"labelSelector": {"app.kubernetes.io/name=kedge," + instanceLabel + "=" + i.Release}},
	})
	if err != nil {
		return ""
	}
	var list unstructured.UnstructuredList
	if err := list.UnmarshalJSON(response.Body); err != nil {
		return ""
	}
	for n := range list.Items {
		pod := &list.Items[n]
		reason := podComplaint(pod)
		if reason == "" {
			reason = i.lastWarning(ctx, pod.GetName())
		}
		if reason != "" {
			return "pod " + pod.GetName() + ": " + reason
		}
	}
	return ""
}

// lastWarning is the newest event that complains of a pod: a kubelet that cannot mount a volume says so nowhere else. The scheduler's do not
// count, since a condition of the pod says whether what they tell is still so.
func (i *Installer) lastWarning(ctx context.Context, pod string) string {
	response, err := i.Client.Do(ctx, kube.Request{
		Path:  "/api/v1/namespaces/" + url.PathEscape(i.Namespace) + "/events",
		Query: url.Values{"fieldSelector": {"involvedObject.name=" + pod + ",type=Warning,reason!=FailedScheduling"}},
	})
	if err != nil {
		return ""
	}
	var list corev1.EventList
	if err := json.Unmarshal(response.Body, &list); err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return last.Reason + ": " + last.Message
}

func podComplaint(pod *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "status", "containerStatuses")
	for _, c := range containers {
		status, ok := c.(map[string]any)
		if !ok {
			continue
		}
		message, _, _ := unstructured.NestedString(status, "state", "waiting", "message")
		if message == "" { // "ContainerCreating" says nothing
			continue
		}
		reason, _, _ := unstructured.NestedString(status, "state", "waiting", "reason")
		if said, _, _ := unstructured.NestedString(status, "lastState", "terminated", "message"); said != "" {
			message += "; it ended with: " + strings.TrimSpace(said)
		}
		return reason + ": " + message
	}
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "PodScheduled" && c["status"] == "False" {
			return fmt.Sprint(c["reason"], ": ", c["message"])
		}
	}
	return ""
}
