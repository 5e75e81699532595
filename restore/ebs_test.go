package restore

import (
	"strings"
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins/actions"
	"kedge.dev/kedge/test/testbed"
)

const ebsObjects = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: NS}
provisioner: ebs.csi.aws.com
parameters: {type: gp3}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: NS}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: NS
  csi: {driver: ebs.csi.aws.com, volumeHandle: vol-0123456789abcdef0, fsType: ext4}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: topology.ebs.csi.aws.com/zone, operator: In, values: [us-east-1a]}]
`

// TestEBSDriver restores volumes and classes of EBS into a cluster of EKS Auto Mode, which has a driver of its own, and into any other.
func TestEBSDriver(t *testing.T) {
	cluster := testbed.SharedCluster(t, "1.36.3")
	c := clientFor(t, cluster.Kedge(t))
	for name, tc := range map[string]struct{ field, driver, zone string }{
		"ebs-as-archived": {"", actions.DefaultEBSDriver, "topology.ebs.csi.aws.com/zone"},
		"ebs-auto-mode":   {actions.AutoModeEBSDriver, actions.AutoModeEBSDriver, "topology.kubernetes.io/zone"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(name)
			req.Spec.EBSDriver = tc.field
			r := restoreAll(t, engineFor(c, fromYAML(t, in(name, ebsObjects))), req)
			if r.Phase != v1alpha1.PhaseCompleted || r.Counts.Created != 2 {
				t.Fatalf("%s: %+v %v", r.Phase, r.Counts, r.Entries)
			}
			class := getObject(t, c, "/apis/storage.k8s.io/v1/storageclasses/"+name)
			if class["provisioner"] != tc.driver {
				t.Errorf("the class is of %v, want %s", class["provisioner"], tc.driver)
			}
			volume := toJSON(getObject(t, c, "/api/v1/persistentvolumes/"+name)["spec"])
			for _, want := range []string{`"driver":"` + tc.driver + `"`, `"key":"` + tc.zone + `"`, `"volumeHandle":"vol-0123456789abcdef0"`} {
				if !strings.Contains(volume, want) {
					t.Errorf("the volume lacks %s: %s", want, volume)
				}
			}
		})
	}
}

// TestBadEBSDriver: a driver that is not of EBS is refused before anything is read.
func TestBadEBSDriver(t *testing.T) {
	req := request("bad-driver")
	req.Spec.EBSDriver = "efs.csi.aws.com"
	const want = `spec.ebsDriver: "efs.csi.aws.com" is neither ebs.csi.aws.com nor ebs.csi.eks.amazonaws.com`
	if err := validate(&req); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
