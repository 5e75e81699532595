//go:build unix

package apps_test

import (
	"testing"

	"kedge.dev/kedge/test/apps"
	"kedge.dev/kedge/test/testbed"
)

func TestInstallOnOldCluster(t *testing.T) {
	cluster := testbed.NewCluster(t, "1.24.17")
	sent, err := apps.Install(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	if sent < 40 {
		t.Errorf("only %d objects sent", sent)
	}
}
