//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/test/testbed"
)

// backendWait bounds how long a restore waits for the backends of webhooks: there are no nodes, so they never come. Definitions of custom resources wait for the server no longer either.
const backendWait = 10 * time.Second

// restoreInto restores a whole backup. Objects that the report names are given with its reasons.
func restoreInto(ctx context.Context, c *testbed.Cluster, backup *archive.Reader) (map[key]string, error) {
	client, err := kedge(ctx, c)
	if err != nil {
		return nil, err
	}
	engine := &restore.Engine{Kube: client, Source: restore.FromArchive(backup), Version: "roundtrip", Now: time.Now}
	plan, err := engine.Plan(ctx, restore.Request{
		Name: "roundtrip", UID: "00000000-0000-4000-8000-000000000002",
		Spec: v1alpha1.RestoreSpec{BackupName: backup.Record().Name, WaitTimeout: metav1.Duration{Duration: backendWait}},
	})
	if err != nil {
		return nil, err
	}
	report, err := engine.Run(ctx, plan)
	if err != nil {
		return nil, err
	}
	reasons := map[key]string{}
	for _, e := range report.Entries {
		if e.Warning || e.Reason == restore.Exists {
			continue // it arrived, or claims to be there as it was
		}
		reasons[refKey(e.Ref)] = fmt.Sprintf("%s, %s: %s", e.Outcome, e.Reason, e.Message)
	}
	return reasons, nil
}
