package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/retention"
)

// TestDecide has a schedule whose backups went to another location from some day on: each location keeps its own, as the server has it.
func TestDecide(t *testing.T) {
	day := time.Date(2026, 11, 1, 2, 0, 0, 0, time.UTC)
	var backups []v1alpha1.Backup
	for i, c := range []struct{ name, location string }{{"d", "new"}, {"c", "new"}, {"b", "old"}, {"a", "old"}, {"failed", "old"}} {
		b := v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: c.name, Labels: map[string]string{v1alpha1.ScheduleLabel: "nightly"}}}
		started := metav1.NewTime(day.AddDate(0, 0, -i))
		b.Status = v1alpha1.BackupStatus{
			Phase: v1alpha1.PhaseCompleted, ArchiveUID: c.name, StorageLocation: c.location, StartTime: &started, Cluster: &v1alpha1.ClusterInfo{UID: "ours"},
		}
		if c.name == "failed" {
			b.Status.Phase, b.Status.ArchiveUID = v1alpha1.PhaseFailed, ""
		}
		backups = append(backups, b)
	}
	in := retention.Input{
		Cluster: "ours", Now: day.AddDate(0, 0, 1),
		Policies: map[string]retention.Policy{"nightly": {Rules: v1alpha1.RetentionPolicy{KeepLast: 1}}},
	}
	var got []string
	for _, d := range decide(in, backups) {
		verb := "remove "
		if d.Keep {
			verb = "keep "
		}
		got = append(got, verb+d.Backup.Name+" in "+d.Location)
	}
	if d := cmp.Diff([]string{"keep d in new", "remove c in new", "keep b in old", "remove a in old"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
