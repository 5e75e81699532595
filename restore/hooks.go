package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/hooks"
)

// hooksAtOnce is in how many pods commands run at once.
const hooksAtOnce = 8

// hookKinds are the kinds whose pods have hooks: the pods themselves, and what keeps pods running. The pods of a Job run to their end by themselves.
var hookKinds = map[string]string{
	"pods": "/api/v1", "replicationcontrollers": "/api/v1",
	"deployments.apps": "/apis/apps/v1", "statefulsets.apps": "/apis/apps/v1", "daemonsets.apps": "/apis/apps/v1", "replicasets.apps": "/apis/apps/v1",
}

// hookRun runs the hooks of what was restored.
type hookRun struct {
	*run
	set     *hooks.RestoreSet
	written map[string]int32 // by uid in the target: the items that this restore has created or updated, of hookKinds
	lists   map[string]bool  // paths of the lists in which they are
	spaces  map[string]bool
	began   time.Time                // of the wait
	open    map[string]*hookedObject // by uid
	closed  map[string]bool          // uids of those whose hooks have run, or are given up
}

// hookedObject is one restored object whose pods have hooks.
type hookedObject struct {
	item  int32
	after []hooks.After
	want  int // pods
	have  int // in which the hooks have run
	wait  time.Duration
	since *liveWorkload // it was there before, so that pods of its old template may run yet
}

// runHooks runs the commands of restored pods, once all objects are written. What fails is in the report; the error says that nobody could look.
func (x *run) runHooks(ctx context.Context) error {
	if x.hooks.Empty() && !x.hooked.Load() && !x.resumed {
		return nil
	}
	h := &hookRun{
		run: x, set: x.hooks, written: map[string]int32{}, lists: map[string]bool{}, spaces: map[string]bool{}, began: x.e.now(),
		open: map[string]*hookedObject{}, closed: map[string]bool{},
	}
	h.gather()
	if len(h.written) == 0 {
		return nil
	}
	for poll := 200 * time.Millisecond; ; poll = min(poll*3/2, 2*time.Second) {
		ran, err := h.round(ctx)
		if err != nil {
			return h.stopped(err)
		}
		if len(h.open) == 0 {
			return nil
		}
		if ran {
			h.began = h.e.now() // the time that commands took is no time in which the others were waited for
			continue
		}
		if err := h.giveUp(ctx); err != nil {
			return err
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
}

// stopped makes a remark of what an account may not look at.
func (h *hookRun) stopped(err error) error {
	if kube.Code(err) != http.StatusForbidden {
		return err
	}
	if h.hooks.Empty() && !h.hooked.Load() {
		return nil // nobody knows of any hooks
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hooksFailed++
	h.hookRemarks = append(h.hookRemarks, plugins.Remark{
		Reason: string(HookFailed), Message: fmt.Sprintf("hooks did not run: %v: grant \"list\" on that to the account that restores", err),
	})
	return nil
}

// gather finds what this restore has written and may have pods.
func (h *hookRun) gather() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.plan.items {
		it := &h.plan.items[i]
		gr := h.plan.resources[it.res].groupResource()
		base, ok := hookKinds[gr]
		if !ok || it.newUID == (uid{}) || it.state != Created && it.state != Updated {
			continue
		}
		namespace := h.plan.pipeline.Ref(h.plan.ref(int32(i))).Namespace
		resource, _, _ := strings.Cut(gr, ".")
		h.written[it.newUID.String()] = int32(i)
		h.spaces[namespace] = true
		h.lists[base+"/namespaces/"+url.PathEscape(namespace)+"/"+resource] = true
	}
}

// liveWorkload is what hooks need to know of an object of hookKinds.
type liveWorkload struct {
	Metadata struct {
		Namespace, Name, UID string
		Generation           int64
		Labels, Annotations  map[string]string
		DeletionTimestamp    *string
		OwnerReferences      []struct {
			UID        string
			Controller bool
		}
	}
	Spec struct {
		Replicas *int
		Template *struct {
			Metadata struct{ Labels, Annotations map[string]string }
		}
	}
	Status struct {
		ObservedGeneration     int64
		DesiredNumberScheduled int
		UpdateRevision         string
		ContainerStatuses      []struct {
			Name  string
			Ready bool
			State struct{ Running *struct{} }
		}
	}
}

func (l *liveWorkload) controller() string {
	for _, o := range l.Metadata.OwnerReferences {
		if o.Controller {
			return o.UID
		}
	}
	return ""
}

// round looks at everything once and runs the hooks of the pods that are ready for them. It says whether there were any.
func (h *hookRun) round(ctx context.Context) (ran bool, err error) {
	clear(h.open)
	for _, path := range slices.Sorted(maps.Keys(h.lists)) {
		if err := h.list(ctx, path, func(l *liveWorkload, _ []byte) error { h.expect(path, l); return nil }); err != nil {
			return false, err
		}
	}
	if len(h.open) == 0 {
		return false, nil
	}
	var ready []func()
	for _, namespace := range slices.Sorted(maps.Keys(h.spaces)) {
		more, err := h.ready(ctx, "/namespaces/"+url.PathEscape(namespace))
		if err != nil {
			return false, err
		}
		ready = append(ready, more...)
	}
	for id, o := range h.open {
		if o.have >= o.want {
			h.closed[id] = true
			delete(h.open, id)
		}
	}
	var g errgroup.Group
	g.SetLimit(hooksAtOnce)
	for _, do := range ready {
		g.Go(func() error { do(); return nil })
	}
	_ = g.Wait() // what fails is in the report
	return len(ready) > 0, context.Cause(ctx)
}

// ready gives the work in the pods of a namespace that are ready for their hooks, and counts those in which they have run.
func (h *hookRun) ready(ctx context.Context, namespace string) ([]func(), error) {
	sets := map[string]*liveWorkload{} // a Deployment's pods are those of its ReplicaSets
	if err := h.list(ctx, "/apis/apps/v1"+namespace+"/replicasets", func(l *liveWorkload, _ []byte) error {
		sets[l.Metadata.UID] = l
		return nil
	}); err != nil {
		return nil, err
	}
	var out []func()
	err := h.list(ctx, "/api/v1"+namespace+"/pods", func(l *liveWorkload, raw []byte) error {
		o, set := h.open[l.Metadata.UID], sets[l.controller()]
		if o == nil {
			o = h.open[l.controller()]
		}
		if o == nil && set != nil {
			o = h.open[set.controller()]
		}
		if o == nil || l.Metadata.DeletionTimestamp != nil || o.since != nil && !o.since.made(l, newest(set, sets)) {
			return nil
		}
		if _, done := h.ranIn[l.Metadata.UID]; done {
			o.have++
			return nil
		}
		pod, err := hooks.ParsePod(raw)
		if err == nil && ripe(&pod, l, o.after) {
			out = append(out, func() { h.runIn(ctx, o, &pod) })
		}
		return err
	})
	return out, err
}

// Where controllers note of which template a pod is.
const (
	deploymentRevision = "deployment.kubernetes.io/revision"
	revisionHash       = "controller-revision-hash"
	daemonGeneration   = "deprecated.daemonset.template.generation"
	podGeneration      = "pod-template-generation"
)

// newest says whether a ReplicaSet, where there is one, is the newest of its Deployment. What the Deployment itself says of that the restore may have written.
func newest(set *liveWorkload, all map[string]*liveWorkload) bool {
	if set == nil || set.controller() == "" {
		return true
	}
	number := func(l *liveWorkload) int {
		n, _ := strconv.Atoi(l.Metadata.Annotations[deploymentRevision]) // without one it is the oldest
		return n
	}
	for _, other := range all {
		if other.controller() == set.controller() && number(other) > number(set) {
			return false
		}
	}
	return true
}

// made says of a workload that was there before whether it made a pod from the template that it has now; newest, whether the pod's ReplicaSet is. Before its
// controller has seen the new template no pod is of it. Where nothing tells pods apart, each counts.
func (l *liveWorkload) made(pod *liveWorkload, newest bool) bool {
	if l.Status.ObservedGeneration < l.Metadata.Generation || !newest {
		return false
	}
	labels, annotations := pod.Metadata.Labels, l.Metadata.Annotations
	switch {
	case l.Status.UpdateRevision != "": // a StatefulSet
		return labels[revisionHash] == l.Status.UpdateRevision
	case annotations[daemonGeneration] != "":
		return labels[podGeneration] == annotations[daemonGeneration]
	}
	return true
}

func (h *hookRun) list(ctx context.Context, path string, fn func(l *liveWorkload, raw []byte) error) error {
	_, err := h.e.Kube.List(ctx, kube.ListRequest{Path: path}, func(raw []byte) error {
		var l liveWorkload
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("read an object of %s: %w", path, err)
		}
		return fn(&l, raw)
	})
	if err != nil {
		return fmt.Errorf("look for pods with hooks: %w", err)
	}
	return nil
}

// expect notes an object of this restore whose pods have hooks, and how many pods it will have.
func (h *hookRun) expect(path string, l *liveWorkload) {
	i, ok := h.written[l.Metadata.UID]
	if _, owned := h.written[l.controller()]; !ok || owned || h.closed[l.Metadata.UID] {
		return // what an owner of this restore keeps is the owner's
	}
	o := &hookedObject{item: i, want: 1}
	meta := l.Metadata.Labels
	annotations := l.Metadata.Annotations
	if t := l.Spec.Template; t != nil {
		meta, annotations = t.Metadata.Labels, t.Metadata.Annotations
		switch {
		case strings.HasSuffix(path, "/daemonsets"):
			if o.want = l.Status.DesiredNumberScheduled; l.Status.ObservedGeneration == 0 {
				o.want = 1 // its controller has not looked yet
			}
		case l.Spec.Replicas != nil:
			o.want = *l.Spec.Replicas
		}
	}
	if h.plan.items[i].state == Updated && l.Spec.Template != nil {
		o.since = l
	}
	o.after = h.set.Of(h.plan.ref(i).Namespace, meta, annotations)
	for _, a := range o.after {
		o.wait = max(o.wait, a.Wait)
	}
	if len(o.after) > 0 && o.want > 0 {
		h.open[l.Metadata.UID] = o
	}
}

// ripe says whether the containers of all commands run, or are ready where a command asks for that. A command for a container that the pod does not have
// is no reason to wait.
func ripe(p *hooks.Pod, l *liveWorkload, after []hooks.After) bool {
	for i := range after {
		container := after[i].Container
		if container == "" && len(p.Containers) > 0 {
			container = p.Containers[0]
		}
		if !slices.Contains(p.Containers, container) {
			continue
		}
		runs := false
		for _, c := range l.Status.ContainerStatuses {
			runs = runs || c.Name == container && c.State.Running != nil && (c.Ready || !after[i].Ready)
		}
		if !runs {
			return false
		}
	}
	return true
}

// runIn runs the commands of one pod, each pod's once: that they were begun is noted before.
func (h *hookRun) runIn(ctx context.Context, o *hookedObject, p *hooks.Pod) {
	record := HookRecord{Ref: h.plan.ref(o.item), Pod: p.UID}
	if err := h.noteHook(ctx, record); err != nil {
		h.hookFailed(o.item, v1alpha1.HookFail, "its hooks did not run: "+err.Error())
		return
	}
	for i := range o.after {
		c := &o.after[i].Command
		err := hooks.Run(ctx, h.e.Exec, p, c)
		if ctx.Err() != nil {
			return // the note says that they were begun
		}
		if err != nil {
			record.Entries = append(record.Entries, h.hookFailed(o.item, c.OnError, err.Error()))
		}
		if err != nil && c.OnError == v1alpha1.HookFail {
			record.Failed++
			break // what follows may count on it
		}
	}
	record.Ended = true
	if err := h.noteHook(context.WithoutCancel(ctx), record); err != nil {
		h.hookFailed(o.item, v1alpha1.HookFail, err.Error())
	}
}

// giveUp ends the waits that have lasted long enough. A target without nodes is waited for as long: some make their first one for the first pod.
func (h *hookRun) giveUp(ctx context.Context) error {
	waited := h.e.now().Sub(h.began)
	for _, id := range slices.Sorted(maps.Keys(h.open)) {
		o := h.open[id]
		if waited < o.wait {
			continue
		}
		nodes, err := h.hasNodes(ctx)
		if err != nil {
			return err
		}
		why := fmt.Sprintf("after %s %d of %d pods had run", o.wait, o.have, o.want)
		if o.since != nil {
			why += " (only pods of the restored template count)"
		}
		if !nodes {
			why = fmt.Sprintf("after %s the target has no node that could run its pods", o.wait)
		}
		mode := v1alpha1.HookContinue
		for _, a := range o.after {
			if a.OnError == v1alpha1.HookFail {
				mode = v1alpha1.HookFail
			}
		}
		h.hookFailed(o.item, mode, "its hooks did not run everywhere: "+why)
		h.closed[id] = true
		delete(h.open, id)
	}
	return nil
}

// hookFailed reports a hook that failed.
func (x *run) hookFailed(i int32, mode v1alpha1.HookErrorMode, message string) Entry {
	x.mu.Lock()
	e := Entry{Ref: x.plan.ref(i), Outcome: x.plan.items[i].state, Reason: HookFailed, Message: message, Warning: true}
	x.entries[i] = append(x.entries[i], e)
	if mode == v1alpha1.HookFail {
		x.hooksFailed++
	}
	x.mu.Unlock()
	if x.e.Events.Remark != nil {
		x.e.Events.Remark(e)
	}
	return e
}

// noteHook writes into the journal what becomes of a pod's hooks.
func (x *run) noteHook(ctx context.Context, r HookRecord) error {
	x.mu.Lock()
	x.ranIn[r.Pod] = r
	x.mu.Unlock()
	if x.e.Journal == nil {
		return nil
	}
	return x.e.Journal.Append(ctx, Record{Hook: &r})
}

// replayHooks takes in what an earlier run has noted. Commands that it had begun are not run again: one that imports a dump must not do so twice.
func (x *run) replayHooks() {
	for _, pod := range slices.Sorted(maps.Keys(x.ranIn)) {
		r := x.ranIn[pod]
		i := x.plan.lookup(r.Ref)
		if i < 0 {
			continue
		}
		x.hooksFailed += r.Failed
		x.entries[i] = append(x.entries[i], r.Entries...)
		if !r.Ended {
			x.hookFailed(i, v1alpha1.HookFail, "the restore was cut off while hooks ran in one of its pods (uid "+pod+"); they are not run again: look whether they have done their work")
		}
	}
}
