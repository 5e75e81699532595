package backup

import (
	"testing"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/test/testbed"
)

func TestReadWholeCluster(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			cluster := testbed.SharedCluster(t, version)
			s, r := readInto(t, newClient(t, cluster), v1alpha1.BackupSpec{})
			for _, k := range s.keys() {
				t.Log(k)
			}
			t.Logf("%+v", r.report())
			t.Log(r.revision, len(r.targets))
		})
	}
}
