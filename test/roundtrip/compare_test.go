//go:build unix

package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// scripted is a judge whose answers a test writes.
type scripted struct {
	defaults bool   // all differences are the target's defaults
	refusal  string // of what is sent by hand
	quota    string // what a controller was refused for
}

func (s scripted) WouldChange(context.Context, *object, map[string]any) (bool, error) {
	if !s.defaults {
		return true, errors.New("not asked")
	}
	return false, nil
}

func (s scripted) Refuses(context.Context, *object) string { return s.refusal }

func (s scripted) OutOfBounds(context.Context, *object) string { return s.quota }

// world makes a snapshot of YAML documents.
func world(t *testing.T, docs string) *snapshot {
	t.Helper()
	s := &snapshot{objects: map[key]*object{}, byUID: map[string]*object{}, apis: map[schema.GroupResource]*api{}}
	for _, resource := range []string{
		"v1 configmaps ConfigMap", "v1 services Service", "v1 pods Pod", "v1 secrets Secret", "v1 namespaces Namespace", "apps/v1 deployments Deployment",
		"apps/v1 replicasets ReplicaSet", "rbac.authorization.k8s.io/v1 clusterroles ClusterRole", "example.com/v1 tents Tent",
		"batch/v1 jobs Job", "batch/v1 cronjobs CronJob", "v1 persistentvolumes PersistentVolume",
		"snapshot.storage.k8s.io/v1 volumesnapshotcontents VolumeSnapshotContent",
	} {
		f := strings.Fields(resource)
		gv, err := schema.ParseGroupVersion(f[0])
		if err != nil {
			t.Fatal(err)
		}
		s.apis[schema.GroupResource{Group: gv.Group, Resource: f[1]}] = &api{
			GroupVersionResource: gv.WithResource(f[1]), Kind: f[2], Versions: []string{gv.Version}, Status: f[2] != "Tent", Namespaced: true,
		}
	}
	for doc := range strings.SplitSeq(docs, "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil || obj.Object == nil {
			t.Fatalf("%v in %s", err, doc)
		}
		for gr, a := range s.apis {
			if a.Kind != obj.GetKind() || a.Group != obj.GroupVersionKind().Group {
				continue
			}
			o := &object{key: keyOf(gr, obj.GetNamespace(), obj.GetName()), api: a, raw: obj}
			s.objects[o.key] = o
			if obj.GetUID() != "" {
				s.byUID[string(obj.GetUID())] = o
			}
		}
	}
	return s
}

const nothing = "{apiVersion: v1, kind: Namespace, metadata: {name: default, uid: ns}}"

func try(t *testing.T, from, to string, change func(*trial)) []string {
	t.Helper()
	tr := &trial{from: world(t, from), to: world(t, to), fromBefore: world(t, nothing), toBefore: world(t, nothing),
		archived: map[key]bool{}, report: map[key]string{}, sameVersion: true, judge: scripted{}, source: scripted{}}
	for k := range tr.from.objects {
		tr.archived[k] = true
	}
	if change != nil {
		change(tr)
	}
	var lines []string
	for _, f := range tr.findings(t.Context()) {
		first, _, _ := strings.Cut(f.detail, "\n")
		lines = append(lines, strings.TrimSuffix(string(f.verdict)+" "+string(f.key)+" "+first, " "))
	}
	slices.Sort(lines)
	return lines
}

func TestFindings(t *testing.T) {
	const (
		config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: x, uid: a1}, data: {k: v}}"
		tent   = "{apiVersion: example.com/v1, kind: Tent, metadata: {name: t, namespace: x, uid: t1}, status: {poles: 3}}"
	)
	replicas := func(hash, owner string) string {
		return `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: x, uid: ` + owner + `}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: d-` + hash + `, namespace: x, uid: r` + owner + `, labels: {pod-template-hash: ` + hash + `}, ownerReferences: [{kind: Deployment, name: d, uid: ` + owner + `, controller: true}]}, spec: {replicas: 1}}`
	}
	for name, c := range map[string]struct {
		from, to string
		change   func(*trial)
		want     []string
	}{
		"equal but for uid": {from: config, to: strings.Replace(config, "a1", "b1", 1), want: []string{"equal configmaps x/c"}},
		"changed":           {from: config, to: strings.Replace(config, "k: v", "k: w", 1), want: []string{"silent configmaps x/c arrived unequal:"}},
		"defaults of the target": {from: config, to: strings.Replace(config, "k: v", "k: w", 1),
			change: func(tr *trial) { tr.judge = scripted{defaults: true} }, want: []string{"equal configmaps x/c"}},
		"missing": {from: config, to: nothing, want: []string{"silent configmaps x/c missing, and not in the restore's report"}},
		"reported, refused by hand": {from: config, to: nothing,
			change: func(tr *trial) {
				tr.report["configmaps x/c"], tr.judge = "Failed", scripted{refusal: "invalid"}
			},
			want: []string{"reported configmaps x/c Failed; by hand: invalid"}},
		"reported, accepted by hand": {from: config, to: nothing,
			change: func(tr *trial) { tr.report["configmaps x/c"] = "Failed" },
			want:   []string{"silent configmaps x/c missing (report: Failed), but the target serves /v1, Resource=configmaps and accepts it by hand"}},
		"not archived": {from: config, to: config, change: func(tr *trial) { tr.archived = nil }, want: []string{"silent configmaps x/c not in the archive"}},
		"applied in a version that is gone": {from: config, to: config,
			change: func(tr *trial) { tr.manifests = fieldsChosen{"configmaps x/c": {"apiVersion": "v0"}} },
			want:   []string{"converted configmaps x/c v0 to v1"}},
		"no successor": {from: tent, to: nothing,
			change: func(tr *trial) {
				delete(tr.to.apis, schema.GroupResource{Group: "example.com", Resource: "tents"})
				tr.report["tents.example.com x/t"] = "NotServed"
			},
			want: []string{"reported tents.example.com x/t NotServed"}},
		"status that is data":     {from: tent, to: strings.Replace(tent, "3", "4", 1), want: []string{"silent tents.example.com x/t arrived unequal:"}},
		"in the target only":      {from: nothing, to: nothing + "\n---\n" + config, want: []string{"silent configmaps x/c in the target only"}},
		"server's own, unchanged": {from: nothing, to: nothing, want: nil},
		"made again by a controller": {from: replicas("aaa", "o1"), to: replicas("bbb", "o2"),
			want: []string{"equal deployments.apps x/d", "equal replicasets.apps x/d-aaa"}},
		"made twice": {from: replicas("aaa", "o1"),
			to:   replicas("bbb", "o2") + "\n---\n" + strings.ReplaceAll(strings.SplitN(replicas("ccc", "o2"), "---\n", 2)[1], "uid: ro2", "uid: rr"),
			want: []string{"equal deployments.apps x/d", "equal replicasets.apps x/d-aaa", "silent replicasets.apps x/d-ccc made again once more than it was"}},
		"made twice where the source had no room for it": {from: replicas("aaa", "o1"),
			to:     replicas("bbb", "o2") + "\n---\n" + strings.ReplaceAll(strings.SplitN(replicas("ccc", "o2"), "---\n", 2)[1], "uid: ro2", "uid: rr"),
			change: func(tr *trial) { tr.source = scripted{refusal: "exceeded quota"} },
			want:   []string{"equal deployments.apps x/d", "equal replicasets.apps x/d-aaa"}},
		"made no more, and no quota says why": {from: replicas("aaa", "o1"), to: strings.SplitN(replicas("bbb", "o2"), "---\n", 2)[0],
			change: func(tr *trial) { tr.report["replicasets.apps x/d-aaa"] = "Remade" },
			want: []string{"equal deployments.apps x/d",
				"silent replicasets.apps x/d-aaa made by a controller, missing (report: Remade), but the target serves apps/v1, Resource=replicasets and accepts it by hand"}},
		"made no more for want of room": {from: replicas("aaa", "o1"), to: strings.SplitN(replicas("bbb", "o2"), "---\n", 2)[0],
			change: func(tr *trial) {
				tr.report["replicasets.apps x/d-aaa"], tr.judge = "Remade", scripted{quota: "exceeded quota"}
			},
			want: []string{"equal deployments.apps x/d", "reported replicasets.apps x/d-aaa made by a controller, Remade; to its controller: exceeded quota"}},
		"made no more, and not in the report": {from: replicas("aaa", "o1"), to: strings.SplitN(replicas("bbb", "o2"), "---\n", 2)[0],
			change: func(tr *trial) { tr.judge = scripted{quota: "exceeded quota"} },
			want:   []string{"equal deployments.apps x/d", "silent replicasets.apps x/d-aaa made by a controller, missing, and not in the restore's report"}},
		"owner lost": {
			from: config + "\n---\n" + "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: x, ownerReferences: [{kind: ConfigMap, name: c, uid: a1}]}}",
			to:   config + "\n---\n" + "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: x, ownerReferences: [{kind: ConfigMap, name: c, uid: zz}]}}",
			want: []string{"equal configmaps x/c", "silent secrets x/s arrived unequal:"}},
		"it was there before, and the report says so": {from: config, to: strings.Replace(config, "k: v", "k: w", 1),
			change: func(tr *trial) { tr.toBefore, tr.report["configmaps x/c"] = tr.to, "Skipped, ExistsDiffers" },
			want:   []string{"reported configmaps x/c Skipped, ExistsDiffers"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := try(t, c.from, c.to, c.change); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestVolumesOfAnotherCluster: what would delete another cluster's volume is kept, and nothing else is changed.
func TestVolumesOfAnotherCluster(t *testing.T) {
	system := func(uid string) string {
		return "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, uid: " + uid + "}}\n---\n"
	}
	volume := func(policy string) string {
		return "{apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {persistentVolumeReclaimPolicy: " + policy + "}}"
	}
	content := func(policy string) string {
		return "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: s}, spec: {deletionPolicy: " + policy + ", source: {snapshotHandle: snap-1}}}"
	}
	for name, c := range map[string]struct {
		from, to string
		want     string
	}{
		"kept":                     {system("a") + volume("Delete"), system("b") + volume("Retain"), "converted persistentvolumes /v volume of another cluster to one that is kept"},
		"emptied no more":          {system("a") + volume("Recycle"), system("b") + volume("Retain"), "converted persistentvolumes /v volume of another cluster to one that is kept"},
		"kept as before":           {system("a") + volume("Retain"), system("b") + volume("Retain"), "equal persistentvolumes /v"},
		"deleted for the other":    {system("a") + volume("Delete"), system("b") + volume("Delete"), "silent persistentvolumes /v arrived unequal:"},
		"deleted only in one":      {system("a") + volume("Retain"), system("b") + volume("Delete"), "silent persistentvolumes /v arrived unequal:"},
		"the same cluster":         {system("a") + volume("Delete"), system("a") + volume("Delete"), "equal persistentvolumes /v"},
		"the same cluster, kept":   {system("a") + volume("Delete"), system("a") + volume("Retain"), "silent persistentvolumes /v arrived unequal:"},
		"snapshot kept":            {system("a") + content("Delete"), system("b") + content("Retain"), "converted volumesnapshotcontents.snapshot.storage.k8s.io /s snapshot of another cluster to one that is kept"},
		"snapshot deleted for one": {system("a") + content("Delete"), system("b") + content("Delete"), "silent volumesnapshotcontents.snapshot.storage.k8s.io /s arrived unequal:"},
	} {
		t.Run(name, func(t *testing.T) {
			got := try(t, c.from, c.to, func(tr *trial) {
				tr.fromBefore, tr.toBefore = world(t, nothing+"\n---\n"+strings.TrimSuffix(system("a"), "\n---\n")), world(t, nothing)
			})
			got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "equal namespaces") })
			if !slices.Equal(got, []string{c.want}) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestWhatTheUserChoseIsCompared(t *testing.T) {
	service := func(port string) string {
		return "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {type: NodePort, clusterIP: 10.0.0." + port[:1] + ", ports: [{port: 80, nodePort: " + port + "}]}}"
	}
	if got := try(t, service("30001"), service("31002"), nil); !slices.Equal(got, []string{"equal services x/s"}) {
		t.Errorf("allocated ports: %q", got)
	}
	chosen := func(tr *trial) {
		tr.manifests = fieldsChosen{"services x/s": {"apiVersion": "v1", "spec": map[string]any{"ports": []any{map[string]any{"nodePort": int64(30001)}}}}}
	}
	if got := try(t, service("30001"), service("31002"), chosen); !slices.Equal(got, []string{"silent services x/s arrived unequal:"}) {
		t.Errorf("a chosen port that changed: %q", got)
	}
}

func TestOverlayPutsWhatIsWantedOverWhatIs(t *testing.T) {
	parse := func(text string) map[string]any {
		var m map[string]any
		if err := yaml.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	live := parse("{metadata: {uid: u, name: m}, spec: {a: 1, b: {c: 2, d: 3}, list: [{x: 1, z: 2}], gone: 1}, status: {s: 1}}")
	got := parse("{metadata: {name: m}, spec: {a: 1, b: {c: 2, d: 3}, list: [{x: 1}], gone: 1}}")
	overlay(live, got, parse("{metadata: {name: m}, spec: {a: 5, b: {c: 2}, list: [{x: 7}], new: 1}}"))
	want := parse("{metadata: {uid: u, name: m}, spec: {a: 5, b: {c: 2}, list: [{x: 7, z: 2}], new: 1}, status: {s: 1}}")
	if d := diff(want, live); d != "" {
		t.Error(d)
	}
}

func TestDiffNamesPaths(t *testing.T) {
	got := diff(map[string]any{"a": map[string]any{"b": "1", "c": []any{"x"}}}, map[string]any{"a": map[string]any{"b": "2", "c": []any{"y"}, "d": "z"}})
	want := "- .a.b: \"1\"\n+ .a.b: \"2\"\n- .a.c[0]: \"x\"\n+ .a.c[0]: \"y\"\n+ .a.d: \"z\""
	if got != want {
		t.Errorf("got:\n%s", got)
	}
}
