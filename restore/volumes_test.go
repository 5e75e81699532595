package restore

import (
	"strings"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/test/testbed"
)

// volumeAndClaim are a volume and the claim that it is for. No class of that name exists, so that nobody makes a volume.
const volumeAndClaim = `
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: NS-volume, labels: {from: backup}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Delete
  storageClassName: NS-none
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: NS, name: data}
  csi: {driver: none.example.com, volumeHandle: vol-0123456789abcdef0}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS}
spec: {accessModes: [ReadWriteOnce], storageClassName: NS-none, volumeName: NS-volume, resources: {requests: {storage: 1Gi}}}
status: {phase: Bound}
`

// clusterUID is the identity of the cluster that a client speaks to.
func clusterUID(t *testing.T, c *kube.Client) string {
	t.Helper()
	info, err := c.ClusterInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.UID
}

// TestVolumesOfAnotherCluster: a target does not delete the volume of the cluster that was backed up.
func TestVolumesOfAnotherCluster(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	for name, tc := range map[string]struct{ source, policy string }{
		"vol-other":   {"elsewhere", "Retain"},
		"vol-unknown": {"", "Retain"},
		"vol-same":    {clusterUID(t, c), "Delete"},
	} {
		t.Run(name, func(t *testing.T) {
			source := fromYAML(t, in(name, volumeAndClaim))
			source.info.Cluster.UID = tc.source
			r := restoreAll(t, engineFor(c, source), request(name))
			if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 3 {
				t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
			}
			spec, _ := getObject(t, c, "/api/v1/persistentvolumes/"+name+"-volume")["spec"].(map[string]any)
			if spec["persistentVolumeReclaimPolicy"] != tc.policy {
				t.Errorf("the reclaim policy is %v, want %s", spec["persistentVolumeReclaimPolicy"], tc.policy)
			}
			said := entriesOf(r, "persistentvolumes", "", name+"-volume")
			if changed := tc.policy != "Delete"; changed != (len(said) == 1 && said[0].Reason == Changed && said[0].Warning) {
				t.Errorf("%+v", said)
			}
		})
	}
}

// bound makes the volume and its claim in the cluster, waits until they have each other, and gives both.
func bound(t *testing.T, cluster *testbed.Cluster, c *kube.Client, ns string) (volume, claim map[string]any) {
	t.Helper()
	if err := cluster.ApplyYAML(t.Context(), in(ns, volumeAndClaim)); err != nil {
		t.Fatal(err)
	}
	claimPath := "/api/v1/namespaces/" + ns + "/persistentvolumeclaims/data"
	eventually(t, "the claim is bound", func() bool { return phaseOf(getObject(t, c, claimPath)) == "Bound" })
	return getObject(t, c, "/api/v1/persistentvolumes/"+ns+"-volume"), getObject(t, c, claimPath)
}

func phaseOf(obj map[string]any) any {
	status, _ := obj["status"].(map[string]any)
	return status["phase"]
}

func claimRefOf(volume map[string]any) string {
	spec, _ := volume["spec"].(map[string]any)
	return toJSON(spec["claimRef"])
}

// TestVolumeInUse copies a namespace within its cluster. Whatever the policy for existing objects, the volume stays with the claim that
// has it, and the copy's claim asks for one of its own.
func TestVolumeInUse(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	for name, tc := range map[string]struct {
		policy  v1alpha1.ExistingResourcePolicy
		mode    v1alpha1.UpdateMode
		outcome Outcome
		reason  Reason
	}{
		"inuse-skip":     {v1alpha1.PolicySkip, "", Skipped, VolumeInUse},
		"inuse-merge":    {v1alpha1.PolicyUpdate, v1alpha1.UpdateMerge, Skipped, VolumeInUse},
		"inuse-exact":    {v1alpha1.PolicyUpdate, v1alpha1.UpdateExact, Skipped, VolumeInUse},
		"inuse-recreate": {v1alpha1.PolicyRecreate, "", Skipped, VolumeInUse},
		"inuse-fail":     {v1alpha1.PolicyFail, "", Failed, ExistsFail},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := bound(t, cluster, c, name)
			source := fromYAML(t, in(name, volumeAndClaim))
			source.info.Cluster.UID = clusterUID(t, c)
			req := request(name)
			req.Spec.NamespaceMapping = map[string]string{name: name + "-test"}
			req.Spec.ExistingResourcePolicy, req.Spec.UpdateMode = tc.policy, tc.mode
			e := engineFor(c, source)
			preview := previewOf(t, e, req)
			r := restoreAll(t, e, req)
			checkPreview(t, preview, r)
			said := entriesOf(r, "persistentvolumes", "", name+"-volume")
			if len(said) != 1 || said[0].Outcome != tc.outcome || said[0].Reason != tc.reason {
				t.Errorf("%+v", said)
			}
			after := getObject(t, c, "/api/v1/persistentvolumes/"+name+"-volume")
			if claimRefOf(after) != claimRefOf(before) {
				t.Errorf("the volume was for %s, now %s", claimRefOf(before), claimRefOf(after))
			}
			checkEmptyVolume(t, c, r, preview, name)
		})
	}
}

// checkEmptyVolume looks at the claim of a copied namespace.
func checkEmptyVolume(t *testing.T, c *kube.Client, r *Report, preview map[string]Change, ns string) {
	t.Helper()
	spec, _ := getObject(t, c, "/api/v1/namespaces/"+ns+"-test/persistentvolumeclaims/data")["spec"].(map[string]any)
	if spec["volumeName"] != nil {
		t.Errorf("the copy's claim waits for %v", spec["volumeName"])
	}
	want := "its volume " + ns + "-volume is that of the target's claim " + ns + "/data; the claim gets a new, empty one"
	if said := entriesOf(r, "persistentvolumeclaims", ns, "data"); len(said) != 1 || said[0].Reason != EmptyVolume || said[0].Message != want {
		t.Errorf("%+v", said)
	}
	if said := preview["persistentvolumeclaims "+ns+"/data"].Remarks; len(said) != 1 || said[0].Message != want {
		t.Errorf("preview: %+v", said)
	}
}

// TestVolumeOfMappedClaim moves a namespace into a cluster that does not have it, twice: the volume goes to the mapped claim, and stays there.
func TestVolumeOfMappedClaim(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	const ns = "mapped-volume"
	req := request(ns)
	req.Spec.NamespaceMapping = map[string]string{ns: ns + "-test"}
	for _, want := range []v1alpha1.RestoreCounts{{Planned: 3, Created: 3, Warnings: 1}, {Planned: 3, Unchanged: 3, Warnings: 1}} {
		r := restoreAll(t, engineFor(c, fromYAML(t, in(ns, volumeAndClaim))), req)
		if r.Phase != v1alpha1.PhaseCompleted || r.Counts != want { // the warning is about the volume's reclaim policy
			t.Fatalf("%s %+v %+v", r.Phase, r.Counts, r.Entries)
		}
		eventually(t, "the claim is bound", func() bool {
			return phaseOf(getObject(t, c, "/api/v1/namespaces/"+ns+"-test/persistentvolumeclaims/data")) == "Bound"
		})
	}
}

// TestVolumeOfItsClaim updates a volume whose claim has it: it stays bound.
func TestVolumeOfItsClaim(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	for _, mode := range []v1alpha1.UpdateMode{v1alpha1.UpdateMerge, v1alpha1.UpdateExact} {
		ns := "own-volume-" + strings.ToLower(string(mode))
		t.Run(ns, func(t *testing.T) {
			before, _ := bound(t, cluster, c, ns)
			source := fromYAML(t, in(ns, strings.Replace(volumeAndClaim, "from: backup", "from: older", 1)))
			source.info.Cluster.UID = clusterUID(t, c)
			req := request(ns)
			req.Spec.ExistingResourcePolicy, req.Spec.UpdateMode = v1alpha1.PolicyUpdate, mode
			r := restoreAll(t, engineFor(c, source), req)
			if said := entriesOf(r, "persistentvolumes", "", ns+"-volume"); len(said) != 1 || said[0].Outcome != Updated {
				t.Fatalf("%+v", said)
			}
			after := getObject(t, c, "/api/v1/persistentvolumes/"+ns+"-volume")
			if claimRefOf(after) != claimRefOf(before) || !strings.Contains(claimRefOf(after), "uid") {
				t.Errorf("the volume was for %s, now %s", claimRefOf(before), claimRefOf(after))
			}
		})
	}
}

// TestInUse tells claims apart.
func TestInUse(t *testing.T) {
	volume := func(ref, phase string) string {
		return `{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"v"},"spec":{"claimRef":` + ref + `},"status":{"phase":"` + phase + `"}}`
	}
	const mine, other, nobody = `{"namespace":"a","name":"data"}`, `{"namespace":"b","name":"data"}`, `null`
	uid := func(ref, uid string) string { return strings.Replace(ref, "}", `,"uid":"`+uid+`"}`, 1) }
	for _, c := range []struct {
		resource, has, wants string
		inUse                bool
	}{
		{"persistentvolumes", uid(mine, "1"), mine, false},
		{"persistentvolumes", uid(mine, "1"), uid(mine, "1"), false},
		{"persistentvolumes", uid(mine, "1"), uid(mine, "2"), true},
		{"persistentvolumes", uid(mine, "1"), nobody, false},
		{"persistentvolumes", nobody, mine, false},
		{"persistentvolumes", nobody, nobody, false},
		{"persistentvolumes", mine, other, true},
		{"persistentvolumes", uid(other, "1"), mine, true},
		{"persistentvolumes", `{"namespace":"a","name":"logs"}`, mine, true},
		{"volumes", mine, other, false},
	} {
		for _, phase := range []string{"Bound", "Released", "Available"} {
			p := &prepared{to: plugins.Ref{Version: "v1", Resource: c.resource, Name: "v"}, body: []byte(volume(c.wants, ""))}
			if message, got := p.inUse(&liveObject{raw: []byte(volume(c.has, phase))}); got != c.inUse || got != (message != "") {
				t.Errorf("%s %s of %s, wanted by %s: %v %q", phase, c.resource, c.has, c.wants, got, message)
			}
		}
	}
}
