package restore

import (
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/kube"
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
