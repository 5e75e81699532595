package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/rawjson"
	"kedge.dev/kedge/plugins"
)

// target gives what the target has for a resource at this moment.
func (x *run) target(res uint16) *target {
	if t, ok := x.targets.Load(res); ok {
		return t.(*target) // the map holds nothing else
	}
	return &x.plan.resources[res].target
}

// targetOf gives the target of an item's resource, or says why there is none.
func (x *run) targetOf(i int32) (*target, error) {
	r := &x.plan.resources[x.plan.items[i].res]
	t := x.target(x.plan.items[i].res)
	if t.state == targetNone {
		return nil, &noTarget{reason: t.reason, message: t.message}
	}
	if t.state != targetPending || r.crd < 0 {
		return t, nil
	}
	x.mu.Lock()
	state, parked := x.plan.items[r.crd].state, x.plan.items[r.crd].flags&flagParked != 0
	x.mu.Unlock()
	name := x.plan.items[r.crd].name
	switch {
	case parked:
		return nil, &noTarget{reason: NotServed, message: "its CustomResourceDefinition " + name + " is not there yet", wait: "api " + r.groupResource()}
	case state == Failed:
		return nil, &noTarget{reason: NotServed, message: "its CustomResourceDefinition " + name + " could not be restored"}
	}
	return t, nil
}

// leastEstablishing is how long definitions are waited for at least: every one comes that the server has taken and whose names are
// free, however busy the server is.
const leastEstablishing = time.Minute

// waitEstablished waits until the target serves what the definitions of this round define, and learns in which versions.
//
// For two seconds after a definition is established, API servers hold each create of its objects back for two seconds, in case
// another server has not seen it yet (apiextensions-apiserver, crdHandler). Those would fill all requests that may be in
// flight, so they are waited for here, while other steps go on.
func (x *run) waitEstablished(ctx context.Context, s *Step) (err error) {
	const heldBack = 2 * time.Second
	open, made := x.definitions(s)
	settled := x.e.now().Add(heldBack)
	defer func() {
		if rest := settled.Sub(x.e.now()); made && rest > 0 && err == nil {
			err = pause(ctx, rest)
		}
	}()
	deadline := x.e.now().Add(max(x.plan.waitTimeout(), leastEstablishing))
	for poll := 20 * time.Millisecond; ; poll = min(poll*3/2, 2*time.Second) {
		if open, err = x.unserved(ctx, open); err != nil || len(open) == 0 {
			return err
		}
		if !x.e.now().Before(deadline) {
			break
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
	for _, i := range open {
		x.notEstablished(ctx, i)
	}
	return nil
}

// unserved gives the definitions that the target does not serve yet, and learns of the others how it does. Where the account that
// restores may not ask, the objects find out.
func (x *run) unserved(ctx context.Context, open []int32) (left []int32, err error) {
	groups := map[string][]kube.Resource{}
	for _, i := range open {
		plural, group, _ := strings.Cut(x.plan.items[i].name, ".")
		served, asked := groups[group]
		if !asked {
			served, err = x.servedIn(ctx, group)
			if kube.Code(err) == http.StatusForbidden {
				x.warn(i, NotEstablished, "whether the target serves it is not known: "+err.Error())
				continue
			}
			if err != nil {
				return nil, err
			}
			groups[group] = served
		}
		whole, err := x.whole(ctx, x.plan.items[i].name, served)
		if err != nil {
			return nil, err
		}
		if !whole {
			left = append(left, i)
			continue
		}
		x.learn(plural, group, served)
	}
	return left, nil
}

// definitions gives the definitions of the step's round that the target has taken, and says whether some are new.
func (x *run) definitions(s *Step) (out []int32, made bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.plan.items {
		it := &x.plan.items[i]
		if it.step < 0 || x.plan.resources[it.res].stage != stageCRDs || it.state == Failed || it.flags&flagParked != 0 {
			continue
		}
		if p := x.plan.Steps[it.step].position; p.band == s.position.band && p.level == s.position.level {
			out = append(out, int32(i))
			made = made || it.state == Created
		}
	}
	return out, made
}

// whole says whether the target serves every version that a definition serves. API servers publish the versions of a group one
// after the other: who looks too early takes an older version for the only one. Where the account that restores may not read the definition,
// the versions of the archived objects have to do.
func (x *run) whole(ctx context.Context, name string, served []kube.Resource) (bool, error) {
	plural, group, _ := strings.Cut(name, ".")
	serves := func(version string) bool {
		return slices.ContainsFunc(served, func(r kube.Resource) bool { return r.Resource == plural && (version == "" || r.Version == version) })
	}
	if !serves("") {
		return false, nil
	}
	live, err := x.get(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+url.PathEscape(name))
	if kube.Code(err) == http.StatusForbidden {
		return !slices.ContainsFunc(x.plan.resources, func(r resource) bool {
			return r.Group == group && r.Resource == plural && !serves(r.Version)
		}), nil
	}
	if err != nil || live == nil {
		return false, err
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Served bool
			}
		}
	}
	if err := json.Unmarshal(live.raw, &crd); err != nil {
		return false, fmt.Errorf("read definition %s: %w", name, err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Served && !serves(v.Name) {
			return false, nil
		}
	}
	return true, nil
}

// learn takes in how the target serves a resource.
func (x *run) learn(plural, group string, served []kube.Resource) {
	for n := range x.plan.resources {
		r := &x.plan.resources[n]
		if r.Group != group || r.Resource != plural {
			continue
		}
		d := kube.Discovery{Resources: served}
		if t := resolve(&d, r); t.state != targetNone || t.reason == NotCreatable {
			x.targets.Store(uint16(n), &t)
		}
	}
}

// notEstablished says why a definition is not served. One that the account may not read is taken as it is served.
func (x *run) notEstablished(ctx context.Context, i int32) {
	name := x.plan.items[i].name
	plural, group, _ := strings.Cut(name, ".")
	var message strings.Builder
	message.WriteString("the target does not serve it")
	live, err := x.get(ctx, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+url.PathEscape(name))
	if err == nil && live != nil {
		var crd struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
		if json.Unmarshal(live.raw, &crd) == nil {
			for _, c := range crd.Status.Conditions {
				if c.Status == "False" && c.Message != "" {
					message.WriteString(": " + c.Message)
				}
			}
		}
	}
	if kube.Code(err) == http.StatusForbidden {
		if served, askErr := x.servedIn(ctx, group); askErr == nil && slices.ContainsFunc(served, func(r kube.Resource) bool { return r.Resource == plural }) {
			x.learn(plural, group, served)
			x.warn(i, NotEstablished, "the target does not serve all archived versions; whether it ever will is not known: "+err.Error())
			return
		}
	}
	x.warn(i, NotEstablished, message.String())
	for n := range x.plan.resources {
		if r := &x.plan.resources[n]; r.Group == group && r.Resource == plural {
			x.targets.Store(uint16(n), &target{state: targetNone, reason: NotServed, message: "its CustomResourceDefinition is not established: " + message.String()})
		}
	}
}

// warn adds a remark to an object's entries.
func (x *run) warn(i int32, reason Reason, message string) {
	x.mu.Lock()
	e := Entry{Ref: x.plan.ref(i), Outcome: x.plan.items[i].state, Reason: reason, Message: message, Warning: true}
	x.entries[i] = append(x.entries[i], e)
	x.mu.Unlock()
	if x.e.Events.Remark != nil {
		x.e.Events.Remark(e)
	}
}

// servedIn asks which resources the target serves in one group at this moment, in the server's order of versions.
func (x *run) servedIn(ctx context.Context, group string) ([]kube.Resource, error) {
	resp, err := x.e.Kube.Do(ctx, kube.Request{Path: "/apis/" + group})
	if kube.Code(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask what the target serves in %s: %w", group, err)
	}
	var versions struct{ Versions []struct{ Version string } }
	if err := json.Unmarshal(resp.Body, &versions); err != nil {
		return nil, fmt.Errorf("ask what the target serves in %s: %w", group, err)
	}
	var out []kube.Resource
	for _, v := range versions.Versions {
		resp, err := x.e.Kube.Do(ctx, kube.Request{Path: "/apis/" + group + "/" + v.Version})
		if kube.Code(err) == http.StatusNotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask what the target serves in %s/%s: %w", group, v.Version, err)
		}
		list, err := readResources(group, v.Version, resp.Body)
		if err != nil {
			return nil, fmt.Errorf("ask what the target serves in %s/%s: %w", group, v.Version, err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// readResources reads an APIResourceList.
func readResources(group, version string, body []byte) ([]kube.Resource, error) {
	var list struct {
		Resources []struct {
			Name, Kind string
			Namespaced bool
			Verbs      []string
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	index := map[string]int{}
	var out []kube.Resource
	for _, r := range list.Resources {
		name, sub, isSub := strings.Cut(r.Name, "/")
		if n, ok := index[name]; isSub && ok {
			out[n].Subresources = append(out[n].Subresources, sub)
		}
		if !isSub {
			index[name] = len(out)
			out = append(out, kube.Resource{Group: group, Version: version, Resource: r.Name, Kind: r.Kind, Namespaced: r.Namespaced, Verbs: r.Verbs})
		}
	}
	return out, nil
}

// backend is a Service that an API service or a webhook sends requests to.
type backend struct{ namespace, name string }

// waitBackends waits until the Services behind the round's API services and webhooks have ready endpoints. What does not get
// ready in time is named; the objects are created all the same, for they are part of the cluster, and last.
func (x *run) waitBackends(ctx context.Context, s *Step) error {
	users, err := x.backends(ctx, s)
	if err != nil || len(users) == 0 {
		return err
	}
	deadline := x.e.now().Add(x.plan.waitTimeout())
	hasNodes, err := x.hasNodes(ctx)
	if err != nil {
		return err
	}
	for poll := 100 * time.Millisecond; ; poll = min(poll*3/2, 2*time.Second) {
		for b, items := range users {
			ready, err := x.isReady(ctx, b)
			switch {
			case kube.Code(err) == http.StatusForbidden:
				x.backendNotReady(b, items, "may have no ready endpoints, which the account that restores may not look for")
				delete(users, b)
			case err != nil:
				return err
			case ready:
				delete(users, b)
			}
		}
		if len(users) == 0 {
			return nil
		}
		if !hasNodes || !x.e.now().Before(deadline) {
			break
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
	why := "has no ready endpoints"
	if !hasNodes {
		why += ", and the target has no node that could run them"
	}
	for b, items := range users {
		x.backendNotReady(b, items, why)
	}
	return nil
}

func (x *run) backendNotReady(b backend, items []int32, why string) {
	for _, i := range items {
		x.warn(i, BackendNotReady, fmt.Sprintf("service %s/%s %s: requests that need it fail until it has", b.namespace, b.name, why))
	}
}

// backends finds the Services that the round's API services and webhooks name, and who names them.
func (x *run) backends(ctx context.Context, s *Step) (map[backend][]int32, error) {
	var items []int32
	x.mu.Lock()
	for i := range x.plan.items {
		it := &x.plan.items[i]
		if it.step < 0 || it.state != Pending || !waitsFor(stageBackends, x.plan.resources[it.res].stage) {
			continue
		}
		if p := x.plan.Steps[it.step].position; p.level == s.position.level {
			items = append(items, int32(i))
		}
	}
	x.mu.Unlock()
	users := map[backend][]int32{}
	err := x.plan.read(ctx, items, func(i int32, raw []byte) error {
		for _, b := range backendsOf(raw) {
			b.namespace = x.plan.pipeline.Ref(plugins.Ref{Version: "v1", Resource: "services", Namespace: b.namespace, Name: b.name}).Namespace
			if !slices.Contains(users[b], i) {
				users[b] = append(users[b], i)
			}
		}
		return nil
	})
	return users, err
}

// backendsOf reads the Services that an APIService or a webhook configuration names.
func backendsOf(raw []byte) []backend {
	type ref struct{ Namespace, Name string }
	var obj struct {
		Spec     struct{ Service *ref }
		Webhooks []struct{ ClientConfig struct{ Service *ref } }
	}
	if json.Unmarshal(raw, &obj) != nil {
		return nil
	}
	refs := []*ref{obj.Spec.Service}
	for i := range obj.Webhooks {
		refs = append(refs, obj.Webhooks[i].ClientConfig.Service)
	}
	var out []backend
	for _, r := range refs {
		if r != nil && r.Name != "" {
			out = append(out, backend{r.Namespace, r.Name})
		}
	}
	return out
}

// isReady says whether a Service has an endpoint that is ready (discovery.k8s.io/v1, conditions.ready: unset counts as ready).
func (x *run) isReady(ctx context.Context, b backend) (bool, error) {
	ready := false
	_, err := x.e.Kube.List(ctx, kube.ListRequest{
		Path:          "/apis/discovery.k8s.io/v1/namespaces/" + url.PathEscape(b.namespace) + "/endpointslices",
		LabelSelector: "kubernetes.io/service-name=" + b.name,
	}, func(raw []byte) error {
		var slice struct {
			Endpoints []struct{ Conditions struct{ Ready *bool } }
		}
		if err := json.Unmarshal(raw, &slice); err != nil {
			return err
		}
		for _, e := range slice.Endpoints {
			ready = ready || e.Conditions.Ready == nil || *e.Conditions.Ready
		}
		return nil
	})
	if kube.Code(err) == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the endpoints of service %s/%s: %w", b.namespace, b.name, err)
	}
	return ready, nil
}

func (x *run) hasNodes(ctx context.Context) (bool, error) {
	meta, err := x.e.Kube.List(ctx, kube.ListRequest{Path: "/api/v1/nodes", Limit: 1, MaxPages: 1}, func([]byte) error { return nil })
	if kube.Code(err) == http.StatusForbidden {
		return true, nil // who may not see nodes cannot know that there are none
	}
	if err != nil {
		return false, fmt.Errorf("look for nodes: %w", err)
	}
	return meta.Items > 0, nil
}

// hasSelector says whether a Service selects pods.
func hasSelector(raw []byte) bool {
	found := false
	err := rawjson.Members(raw, func(key string, value []byte) error {
		if key != "spec" {
			return nil
		}
		return rawjson.Members(value, func(key string, value []byte) error {
			if key == "selector" {
				return rawjson.Members(value, func(string, []byte) error {
					found = true
					return nil
				})
			}
			return nil
		})
	})
	return err == nil && found
}
