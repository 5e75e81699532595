//go:build unix

package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// verdict is what became of one object.
type verdict string

const (
	equal     verdict = "equal"     // arrived as it was
	converted verdict = "converted" // arrived as it was, in another API version than it was applied or archived in
	reported  verdict = "reported"  // did not arrive; the restore's report says why, and it is right
	silent    verdict = "silent"    // anything else
)

// finding is the verdict on one object, with the reason.
type finding struct {
	key     key
	verdict verdict
	detail  string
}

// fieldsChosen are the manifests as they were sent, by what they became.
type fieldsChosen map[key]map[string]any

// trial is one folder's way from one server to another.
type trial struct {
	from, to *snapshot
	// before are the servers' own objects, as they were before anything was applied or restored.
	fromBefore, toBefore *snapshot
	manifests            fieldsChosen
	archived             map[key]bool
	report               map[key]string // reasons of the restore's report
	sameVersion          bool
	fromMinor, toMinor   int
	judge                judge
	// source is asked whether it would have taken what only the target has.
	source judge
}

// judge asks the target server itself.
type judge interface {
	// WouldChange says whether the live object would change if it got the wanted fields.
	WouldChange(ctx context.Context, live *object, wanted map[string]any) (bool, error)
	// Refuses says why the server refuses an object that is sent by hand; "" where it accepts it.
	Refuses(ctx context.Context, o *object) string
	// OutOfBounds says which quota or limit range the server held against a controller that made objects for the owner; "" where none.
	OutOfBounds(ctx context.Context, owner *object) string
}

// subjects are the objects of the source that must arrive: all but the servers' own that nobody changed.
func (t *trial) subjects() []*object {
	var list []*object
	seen := map[string]*object{}
	for _, k := range t.from.keys() {
		o := t.from.objects[k]
		if madeByServer(o) || t.unchanged(o) {
			continue
		}
		// Old servers serve some objects in two groups; the one that the target knows counts.
		uid := string(o.raw.GetUID())
		if other := seen[uid]; other != nil {
			if t.to.apis[other.api.GroupResource()] == nil {
				list[slices.Index(list, other)] = o
				seen[uid] = o
			}
			continue
		}
		seen[uid] = o
		list = append(list, o)
	}
	return list
}

func (t *trial) unchanged(o *object) bool {
	before := t.fromBefore.objects[o.key]
	return before != nil && before.raw.GetUID() == o.raw.GetUID() &&
		reflect.DeepEqual(normalise(t.fromBefore, before, nil), normalise(t.from, o, nil))
}

// canonical names an object by who made it, if a controller did: then its own name is part chance.
func canonical(s *snapshot, o *object) key {
	owner := s.controller(o)
	if owner == nil || owner == o {
		return o.key
	}
	return key(fmt.Sprintf("%s %s/ made by (%s)", o.api.GroupResource(), o.raw.GetNamespace(), canonical(s, owner)))
}

// findings compares everything.
func (t *trial) findings(ctx context.Context) []finding {
	subjects := t.subjects()
	matched := map[key]bool{}
	var found []finding
	made := map[key][]*object{}
	for _, o := range subjects {
		if t.from.controller(o) != nil {
			made[canonical(t.from, o)] = append(made[canonical(t.from, o)], o)
			continue
		}
		matched[o.key] = true
		found = append(found, t.one(ctx, o, t.to.objects[o.key]))
	}
	madeThere := map[key][]*object{}
	for _, k := range t.to.keys() {
		o := t.to.objects[k]
		if t.to.controller(o) != nil {
			madeThere[canonical(t.to, o)] = append(madeThere[canonical(t.to, o)], o)
		}
	}
	for _, name := range sortedKeys(made) {
		found = append(found, t.group(ctx, made[name], madeThere[name])...)
		for _, o := range madeThere[name] {
			matched[o.key] = true
		}
	}
	found = append(found, t.unexpected(ctx, matched)...)
	for i := range found {
		if o := t.from.objects[found[i].key]; o != nil && !t.archived[o.key] && found[i].verdict != silent {
			found[i] = finding{o.key, silent, "not in the archive"}
		}
	}
	return found
}

func sortedKeys[V any](m map[key]V) []key {
	keys := make([]key, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// one judges an object that has a name of its own.
func (t *trial) one(ctx context.Context, o, there *object) finding {
	if there == nil {
		return t.missing(ctx, o)
	}
	want, changed := t.expected(o, there)
	got := normalise(t.to, there, t.manifests)
	if reflect.DeepEqual(want, got) || (!t.sameVersion && t.remade(o) && contains(got, want)) {
		return t.arrived(o, there, changed)
	}
	changes, err := t.judge.WouldChange(ctx, there, want)
	if err == nil && !changes {
		return t.arrived(o, there, changed)
	}
	detail := diff(want, got)
	if err != nil {
		detail += "\n(the target, asked whether these are only its defaults: " + err.Error() + ")"
	}
	if before := t.toBefore.objects[o.key]; before != nil && before.raw.GetUID() == there.raw.GetUID() && t.report[o.key] != "" {
		return finding{o.key, reported, t.report[o.key]} // it was there already, and the report says that it differs
	}
	return finding{o.key, silent, "arrived unequal:\n" + detail}
}

// remade says that a controller makes an object for another of the same name.
func (t *trial) remade(o *object) bool {
	if o.api.GroupResource().String() != "endpoints" {
		return false
	}
	service := t.from.objects[keyOf(schema.GroupResource{Resource: "services"}, o.raw.GetNamespace(), o.raw.GetName())]
	if service == nil {
		return false
	}
	spec, _ := service.raw.Object["spec"].(map[string]any)
	return spec["selector"] != nil
}

// arrived is the verdict on an object that is as it should be; changed says how that differs from what it was, if it does.
func (t *trial) arrived(o, there *object, changed string) finding {
	if changed != "" {
		return finding{o.key, converted, changed}
	}
	applied, _ := t.manifests[o.key]["apiVersion"].(string)
	if applied == "" {
		applied = o.raw.GetAPIVersion()
	}
	served := t.to.apis[there.api.GroupResource()]
	gv, err := schema.ParseGroupVersion(applied)
	if err == nil && gv.Group == there.api.Group && slices.Contains(served.Versions, gv.Version) && o.api.Version == there.api.Version {
		return finding{o.key, equal, ""}
	}
	return finding{o.key, converted, applied + " to " + there.raw.GetAPIVersion()}
}

// missing judges an object that did not arrive: the report must name it, and the target must have no place for it.
func (t *trial) missing(ctx context.Context, o *object) finding {
	reason := t.report[o.key]
	if reason == "" {
		return finding{o.key, silent, "missing, and not in the restore's report"}
	}
	if successor := t.successor(o); successor != nil && !ofTheCluster(o.api.GroupResource()) {
		refusal := t.judge.Refuses(ctx, o)
		if refusal == "" {
			return finding{o.key, silent, fmt.Sprintf("missing (report: %s), but the target serves %s and accepts it by hand", reason, successor.GroupVersionResource)}
		}
		reason += "; by hand: " + refusal
	}
	return finding{o.key, reported, reason}
}

// successor is a resource of the target that serves the object's kind, in its own group or, for what once moved, another.
func (t *trial) successor(o *object) *api {
	if a := t.to.apis[o.api.GroupResource()]; a != nil {
		return a
	}
	if strings.Contains(o.api.Group, ".") && !strings.HasSuffix(o.api.Group, ".k8s.io") {
		return nil // custom groups do not move
	}
	for _, a := range t.to.apis {
		if a.Kind == o.api.Kind && a.Resource == o.api.Resource && (!strings.Contains(a.Group, ".") || strings.HasSuffix(a.Group, ".k8s.io")) {
			return a
		}
	}
	return nil
}

// group compares what a controller made for one owner with what it made again: names apart, the same objects.
func (t *trial) group(ctx context.Context, here, there []*object) []finding {
	left := slices.Clone(there)
	var found []finding
	for _, o := range here {
		want := normaliseMade(t.from, o, !t.sameVersion)
		i := slices.IndexFunc(left, func(candidate *object) bool {
			got := normaliseMade(t.to, candidate, !t.sameVersion)
			return reflect.DeepEqual(want, got) || (!t.sameVersion && contains(got, want))
		})
		switch {
		case i >= 0:
			found = append(found, t.arrived(o, left[i], ""))
			left = slices.Delete(left, i, i+1)
		case t.byClock(o):
			found = append(found, finding{o.key, equal, "made by a clock"})
		case len(left) > 0:
			found = append(found, finding{o.key, silent, "made again unequal:\n" + diff(want, normaliseMade(t.to, left[0], !t.sameVersion))})
			left = left[1:]
		default:
			f := t.missing(ctx, o)
			if refusal := t.outOfRoom(ctx, o); f.verdict == silent && refusal != "" {
				f = finding{o.key, reported, t.report[o.key] + "; to its controller: " + refusal}
			}
			f.detail = "made by a controller, " + f.detail
			found = append(found, f)
		}
	}
	for _, o := range left {
		if !t.byClock(o) && !t.noRoom(ctx, o) {
			found = append(found, finding{o.key, silent, "made again once more than it was"})
		}
	}
	return found
}

// byClock says that how many objects of a kind there are depends on the time of day: what CronJobs start.
func (t *trial) byClock(o *object) bool {
	for s, next := t.from, o; next != nil; next = s.controller(next) {
		if t.to.objects[o.key] == o {
			s = t.to
		}
		if next.api.GroupResource().String() == "cronjobs.batch" {
			return true
		}
	}
	return false
}

// noRoom says that the source would not have taken what a controller made in the target: where a quota is full, which of several
// controllers gets the last room is a race.
func (t *trial) noRoom(ctx context.Context, o *object) bool {
	return t.to.controller(o) != nil && t.source.Refuses(ctx, o) != ""
}

// outOfRoom says which quota or limit range the target held against a controller that would have made again what it made in the source.
// Which pods get in is chance where a namespace has several limit ranges with defaults: an API server draws, for each pod,
// which one comes first, and so how much of a quota the pod takes, and whether it is within the other range's limits.
func (t *trial) outOfRoom(ctx context.Context, o *object) string {
	owner := t.from.controller(o)
	if owner == nil || t.report[o.key] == "" {
		return ""
	}
	name := canonical(t.from, owner)
	for _, k := range t.to.keys() {
		if there := t.to.objects[k]; there.api.GroupResource() == owner.api.GroupResource() && canonical(t.to, there) == name {
			if refusal := t.judge.OutOfBounds(ctx, there); refusal != "" {
				return refusal
			}
		}
	}
	return ""
}

// unexpected are objects of the target that neither it nor the source had.
func (t *trial) unexpected(ctx context.Context, matched map[key]bool) []finding {
	var found []finding
	for _, k := range t.to.keys() {
		o := t.to.objects[k]
		before := t.toBefore.objects[k]
		switch {
		case matched[k], t.from.objects[k] != nil, madeByServer(o), before != nil && before.raw.GetUID() == o.raw.GetUID():
		case t.byClock(o), t.noRoom(ctx, o):
		default:
			found = append(found, finding{k, silent, "in the target only"})
		}
	}
	return found
}

// contains says whether got has all that want has; it may have more.
func contains(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range want {
			if !contains(g[k], v) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return false
		}
		for i := range want {
			if !contains(g[i], want[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}
