package ebs_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/ebs"
)

func persistentVolume(t *testing.T, text string) *corev1.PersistentVolume {
	t.Helper()
	pv := &corev1.PersistentVolume{}
	if err := yaml.UnmarshalStrict([]byte(text), pv); err != nil {
		t.Fatal(err)
	}
	return pv
}

func TestRebind(t *testing.T) {
	v := plugins.Volume{Handle: "vol-0123456789abcdef0", SizeBytes: 8 << 30, Region: "eu-west-1", Zone: "eu-west-1b"}
	for name, c := range map[string]struct{ before, after string }{
		"CSI driver": {`
metadata: {name: a}
spec:
  capacity: {storage: 4Gi}
  csi: {driver: ebs.csi.aws.com, volumeHandle: vol-00000000, fsType: xfs, volumeAttributes: {storage.kubernetes.io/csiProvisionerIdentity: x}}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.ebs.csi.aws.com/zone, operator: In, values: [us-east-1a]}]}]}}
`, `
metadata: {name: a}
spec:
  capacity: {storage: 8Gi}
  csi: {driver: ebs.csi.aws.com, volumeHandle: vol-0123456789abcdef0, fsType: xfs, volumeAttributes: {storage.kubernetes.io/csiProvisionerIdentity: x}}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.ebs.csi.aws.com/zone, operator: In, values: [eu-west-1b]}]}]}}
`},
		"two zones, other rules kept": {`
metadata: {name: a}
spec:
  csi: {driver: ebs.csi.eks.amazonaws.com, volumeHandle: vol-00000000}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1a]}, {key: eks.amazonaws.com/compute-type, operator: In, values: [auto]}]
      - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1c]}, {key: eks.amazonaws.com/compute-type, operator: In, values: [auto]}]
`, `
metadata: {name: a}
spec:
  capacity: {storage: 8Gi}
  csi: {driver: ebs.csi.eks.amazonaws.com, volumeHandle: vol-0123456789abcdef0}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1b]}, {key: eks.amazonaws.com/compute-type, operator: In, values: [auto]}]
`},
		"in-tree with labels": {`
metadata: {name: a, labels: {failure-domain.beta.kubernetes.io/zone: us-east-1a, failure-domain.beta.kubernetes.io/region: us-east-1, team: x}}
spec:
  awsElasticBlockStore: {volumeID: aws://us-east-1a/vol-00000000, fsType: ext4}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions:
        - {key: failure-domain.beta.kubernetes.io/zone, operator: In, values: [us-east-1a]}
        - {key: failure-domain.beta.kubernetes.io/region, operator: In, values: [us-east-1]}
`, `
metadata: {name: a, labels: {failure-domain.beta.kubernetes.io/zone: eu-west-1b, failure-domain.beta.kubernetes.io/region: eu-west-1, team: x}}
spec:
  capacity: {storage: 8Gi}
  awsElasticBlockStore: {volumeID: aws://eu-west-1b/vol-0123456789abcdef0, fsType: ext4}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: failure-domain.beta.kubernetes.io/zone, operator: In, values: [eu-west-1b]}]}]}}
`},
		"no affinity": {`
metadata: {name: a}
spec: {awsElasticBlockStore: {volumeID: vol-00000000}}
`, `
metadata: {name: a}
spec:
  capacity: {storage: 8Gi}
  awsElasticBlockStore: {volumeID: aws://eu-west-1b/vol-0123456789abcdef0}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [eu-west-1b]}]}]}}
`},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := persistentVolume(t, c.before), persistentVolume(t, c.after)
			if err := (&ebs.Provider{}).Rebind(got, v); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRebindRefuses(t *testing.T) {
	pv := persistentVolume(t, "metadata: {name: a}\nspec: {csi: {driver: ebs.csi.aws.com, volumeHandle: vol-00000000}}")
	for _, v := range []plugins.Volume{{}, {Handle: "fs-1", SizeBytes: 1, Zone: "z"}, {Handle: "vol-0123456789abcdef0", SizeBytes: 1}} {
		wantError(t, (&ebs.Provider{}).Rebind(pv, v), plugins.ErrConfig, "persistent volume a")
	}
}

func FuzzHandle(f *testing.F) {
	for _, seed := range []string{"vol-0123456789abcdef0", "aws://eu-west-1a/vol-00000000", "aws:///vol-00000000", "aws://", "vol-", "fs-1::fsap-2", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		pv := &corev1.PersistentVolume{}
		pv.Spec.AWSElasticBlockStore = &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id}
		if handle, ok := (&ebs.Provider{}).Handle(pv); ok && (len(handle) > 21 || handle[:4] != "vol-") {
			t.Errorf("%q gives %q", id, handle)
		}
	})
}
