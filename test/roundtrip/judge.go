//go:build unix

package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// serverJudge asks a server, mostly the target, by dry runs.
type serverJudge struct {
	lister *lister
	to     *snapshot
	chosen fieldsChosen
}

func (j *serverJudge) client(a *api, namespace string) dynamic.ResourceInterface {
	if a.Namespaced {
		return j.lister.dynamic.Resource(a.GroupVersionResource).Namespace(namespace)
	}
	return j.lister.dynamic.Resource(a.GroupVersionResource)
}

// WouldChange puts the wanted fields over the live object and has the server replace it, dry. Where nothing comes out different,
// the two differed only by what the server fills in itself.
func (j *serverJudge) WouldChange(ctx context.Context, live *object, wanted map[string]any) (bool, error) {
	got := normalise(j.to, live, j.chosen)
	patched := live.raw.DeepCopy()
	overlay(patched.Object, got, wanted)
	patched.SetManagedFields(live.raw.GetManagedFields())
	patched.SetOwnerReferences(live.raw.GetOwnerReferences())
	if !reflect.DeepEqual(field(got, "metadata", "managedFields"), field(wanted, "metadata", "managedFields")) ||
		!reflect.DeepEqual(field(got, "metadata", "ownerReferences"), field(wanted, "metadata", "ownerReferences")) {
		return true, nil
	}
	after, err := j.client(live.api, live.raw.GetNamespace()).Update(ctx, patched, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return true, err
	}
	after.SetManagedFields(live.raw.GetManagedFields()) // a dry run has its own
	then := normalise(j.to, &object{key: live.key, api: live.api, raw: after}, j.chosen)
	return !reflect.DeepEqual(then, got), nil
}

func field(obj map[string]any, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(obj, path...)
	return v
}

// overlay gives dst what wanted has other than got, which is dst as it is compared.
func overlay(dst, got, wanted map[string]any) {
	for k := range got {
		if _, both := wanted[k]; !both {
			delete(dst, k)
		}
	}
	for k, w := range wanted {
		g := got[k]
		if reflect.DeepEqual(g, w) {
			continue
		}
		dm, isMap := dst[k].(map[string]any)
		gm, _ := g.(map[string]any)
		wm, wantsMap := w.(map[string]any)
		if isMap && wantsMap && gm != nil {
			overlay(dm, gm, wm)
			continue
		}
		if !overlayList(dst[k], g, w) {
			dst[k] = w
		}
	}
}

// overlayList is overlay for lists of as many maps each.
func overlayList(dst, got, wanted any) bool {
	d, _ := dst.([]any)
	g, _ := got.([]any)
	w, _ := wanted.([]any)
	if len(w) == 0 || len(d) != len(w) || len(g) != len(w) {
		return false
	}
	for i := range w {
		_, isMap := w[i].(map[string]any)
		_, wasMap := d[i].(map[string]any)
		if !isMap || !wasMap {
			return false
		}
	}
	for i := range w {
		overlay(d[i].(map[string]any), g[i].(map[string]any), w[i].(map[string]any))
	}
	return true
}

// Refuses sends the object as a person would: as it is, without what only the source server could know.
func (j *serverJudge) Refuses(ctx context.Context, o *object) string {
	a := j.to.apis[o.api.GroupResource()]
	if a == nil {
		return fmt.Sprintf("no resource %s", o.api.GroupResource())
	}
	send := o.raw.DeepCopy()
	for _, path := range serverFields {
		unstructured.RemoveNestedField(send.Object, path...)
	}
	send.SetManagedFields(nil)
	send.SetOwnerReferences(nil)
	if a.Status {
		delete(send.Object, "status")
	}
	send.SetAPIVersion(schema.GroupVersion{Group: a.Group, Version: a.Version}.String())
	_, err := j.client(a, o.raw.GetNamespace()).Create(ctx, send, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return err.Error()
	}
	return ""
}

// OutOfBounds reads the events in which controllers tell what was refused to them.
func (j *serverJudge) OutOfBounds(ctx context.Context, owner *object) string {
	events := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	list, err := j.lister.dynamic.Resource(events).Namespace(owner.raw.GetNamespace()).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=FailedCreate,involvedObject.uid=" + string(owner.raw.GetUID()),
	})
	if err != nil {
		return ""
	}
	for _, event := range list.Items {
		message, _, _ := unstructured.NestedString(event.Object, "message")
		if strings.Contains(message, "exceeded quota") || strings.Contains(message, "imum cpu usage per ") || strings.Contains(message, "imum memory usage per ") {
			return message
		}
	}
	return ""
}
