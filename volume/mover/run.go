package mover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/internal/kube"
)

var (
	jobs    = kube.Resource{Group: "batch", Version: "v1", Resource: "jobs", Namespaced: true}
	claims  = kube.Resource{Version: "v1", Resource: "persistentvolumeclaims", Namespaced: true}
	volumes = kube.Resource{Version: "v1", Resource: "persistentvolumes"}
	pods    = kube.Resource{Version: "v1", Resource: "pods", Namespaced: true}
	events  = kube.Resource{Version: "v1", Resource: "events", Namespaced: true}
)

const (
	firstPause = time.Second
	lastPause  = 10 * time.Second
	// startTime is how long a pod may take until its container runs: a machine may have to be added and an image to be pulled first.
	startTime = 15 * time.Minute
	// cleanTime bounds the removal of what a Job needed; what stays is found by its label.
	cleanTime = 5 * time.Minute
	// maxLost is how often a Job is run again whose result was lost.
	maxLost = 2
)

// errLost means that a Job has succeeded, and that the pod which has its result is gone.
var errLost = fmt.Errorf("%w: its pod was removed before its result was read", ErrFailed)

// Copy copies the files of a volume, whose next copy is compared with this one.
func (m *Mover) Copy(ctx context.Context, cluster string, t Task) (Result, error) {
	t.ReadOnly = true
	t.Args = []string{"--volume=" + Provider + "/" + t.Storage, "--cluster=" + cluster}
	return m.run(ctx, &t, "copy")
}

// Restore restores a copy into a volume. Run again it goes on.
func (m *Mover) Restore(ctx context.Context, copyID string, t Task) (Result, error) {
	t.Args = []string{"--copy=" + copyID, "--delete-extra"}
	return m.run(ctx, &t, "restore")
}

// run runs a Job until it has a result. One whose pod is removed after its success (with its node, or by hand), before the result was read, is run once
// more: what it did is done, so this takes little time.
func (m *Mover) run(ctx context.Context, t *Task, operation string) (Result, error) {
	for lost := 0; ; lost++ {
		result, err := m.once(ctx, t, operation)
		if lost == maxLost || !errors.Is(err, errLost) {
			return result, err
		}
	}
}

// once makes the task's objects, waits for the Job's result, and removes them; what cannot be removed is Sweep's. A result that lacks files has
// no error.
func (m *Mover) once(ctx context.Context, t *Task, operation string) (Result, error) {
	defer func() {
		// Whoever cancels wants the pod to end, too, but not to wait for it.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		_ = m.remove(last, t.name(), ctx.Err() == nil)
	}()
	for _, object := range []struct {
		res  kube.Resource
		body any
	}{{volumes, m.volume(t, operation)}, {claims, m.claim(t, operation)}, {jobs, m.job(t, operation)}} {
		if err := m.create(ctx, object.res, object.body); err != nil {
			return Result{}, fmt.Errorf("start the mover of %s: %w", t.Storage, err)
		}
	}
	result, err := m.follow(ctx, t)
	if err != nil {
		return Result{}, fmt.Errorf("%s the files of %s with Job %s/%s: %w", operation, t.Storage, m.Namespace, t.name(), err)
	}
	return result, nil
}

func (m *Mover) create(ctx context.Context, res kube.Resource, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", res.Resource, err)
	}
	namespace := ""
	if res.Namespaced {
		namespace = m.Namespace
	}
	_, err = m.Kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: res.Path(namespace, ""), Body: data})
	if errors.Is(err, kube.ErrUnknownOutcome) {
		// The names are the task's own, and what bore them before is gone: whatever is there now is what was asked for.
		_, err = m.Kube.Do(ctx, kube.Request{Method: http.MethodPost, Path: res.Path(namespace, ""), Body: data})
		if kube.Code(err) == http.StatusConflict {
			return nil
		}
	}
	return err
}

// follow waits until the Job has ended.
func (m *Mover) follow(ctx context.Context, t *Task) (Result, error) {
	began := m.Now()
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		if err := m.Sleep(ctx, pause); err != nil {
			return Result{}, err
		}
		var job batchv1.Job
		if err := m.get(ctx, jobs.Path(m.Namespace, t.name()), nil, &job); err != nil {
			return Result{}, err
		}
		var list corev1.PodList
		if err := m.get(ctx, pods.Path(m.Namespace, ""), url.Values{"labelSelector": {"job-name=" + t.name()}}, &list); err != nil {
			return Result{}, err
		}
		slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		if end := jobEnded(&job); end != nil {
			return outcome(list.Items, end)
		}
		if m.Now().Sub(began) > startTime && !slices.ContainsFunc(list.Items, started) {
			return Result{}, fmt.Errorf("%w in %v: %s", ErrNotStarted, startTime, m.obstacle(ctx, t, list.Items))
		}
	}
}

// jobEnded is the condition that says that all is over, its pods included; nil before.
func jobEnded(job *batchv1.Job) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c
		}
	}
	return nil
}

func started(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Running != nil || s.State.Terminated != nil })
}

// outcome reads the result of the last pod that left one.
func outcome(all []corev1.Pod, job *batchv1.JobCondition) (Result, error) {
	said := ""
	for i := range slices.Backward(all) {
		for _, s := range all[i].Status.ContainerStatuses {
			end := s.State.Terminated
			if end == nil {
				continue
			}
			var r Result
			if err := json.Unmarshal([]byte(end.Message), &r); err != nil {
				said = cmp.Or(said, fmt.Sprintf("exit code %d: %s %s", end.ExitCode, end.Reason, end.Message))
				continue
			}
			if r.Code == 0 || r.Code == CodePartial {
				return r, nil
			}
			return Result{}, fmt.Errorf("%w with exit code %d: %s", ErrFailed, r.Code, r.Error)
		}
	}
	if job.Type == batchv1.JobComplete {
		return Result{}, errLost
	}
	return Result{}, fmt.Errorf("%w: %s", ErrFailed, cmp.Or(said, job.Reason+": "+job.Message))
}

// obstacle says what keeps a pod from running. A kubelet that cannot mount a volume says so in events alone: the pod's conditions then only say that
// its container does not run.
func (m *Mover) obstacle(ctx context.Context, t *Task, all []corev1.Pod) string {
	var names []string
	for i := range all {
		names = append(names, all[i].Name)
		for _, s := range all[i].Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil && w.Message != "" {
				return w.Reason + ": " + w.Message
			}
		}
		for _, c := range all[i].Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message != "" {
				return c.Reason + ": " + c.Message
			}
		}
	}
	for _, name := range append(names, t.name()) {
		if said := m.lastWarning(ctx, name); said != "" {
			return said
		}
	}
	return "kubectl describe job -n " + m.Namespace + " " + t.name() + " may tell more"
}

// lastWarning is the newest event that complains of an object; "" where there is none to be seen. Those of the scheduler do not count: a pod's
// condition says whether what they tell is still so.
func (m *Mover) lastWarning(ctx context.Context, name string) string {
	var list corev1.EventList
	query := url.Values{"fieldSelector": {"involvedObject.name=" + name + ",type=Warning,reason!=FailedScheduling"}}
	if err := m.get(ctx, events.Path(m.Namespace, ""), query, &list); err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return when(&a).Compare(when(&b)) })
	return last.Reason + ": " + last.Message
}

// when is the time of an event's last occurrence, which each of the two versions of events has elsewhere.
func when(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

func (m *Mover) get(ctx context.Context, path string, query url.Values, into any) error {
	resp, err := m.Kube.Do(ctx, kube.Request{Path: path, Query: query})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Body, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// remove deletes the objects of one task and, if it is to wait, returns when they are gone. Kubernetes sees to the order: a claim stays while
// a pod uses it, a volume while it is bound.
func (m *Mover) remove(ctx context.Context, name string, wait bool) error {
	options := []byte(`{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Foreground"}`)
	paths := []string{jobs.Path(m.Namespace, name), claims.Path(m.Namespace, name), volumes.Path("", name)}
	var errs []error
	for _, path := range paths {
		_, err := m.Kube.Do(ctx, kube.Request{Method: http.MethodDelete, Path: path, Body: options, Idempotent: true})
		if kube.Code(err) != http.StatusNotFound {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil || !wait {
		return err
	}
	for _, path := range paths {
		for pause := firstPause / 10; ; pause = min(pause*3/2, lastPause) {
			if _, err := m.Kube.Do(ctx, kube.Request{Path: path}); kube.Code(err) == http.StatusNotFound {
				break
			} else if err != nil {
				return err
			}
			if err := m.Sleep(ctx, pause); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sweep removes what an owner's Jobs have left.
func (m *Mover) Sweep(ctx context.Context, owner Owner) error {
	names := map[string]bool{}
	for _, res := range []kube.Resource{jobs, claims, volumes} {
		namespace := ""
		if res.Namespaced {
			namespace = m.Namespace
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
			}
		}
		if err := m.get(ctx, res.Path(namespace, ""), url.Values{"labelSelector": {LabelMover + "," + owner.Label + "=" + owner.UID}}, &list); err != nil {
			return fmt.Errorf("find what movers have left: %w", err)
		}
		for _, item := range list.Items {
			names[item.Metadata.Name] = true
		}
	}
	var errs []error
	for name := range names {
		errs = append(errs, m.remove(ctx, name, true))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what movers have left (label %s=%s): %w", owner.Label, owner.UID, err)
	}
	return nil
}
