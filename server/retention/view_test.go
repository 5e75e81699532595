package retention_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/retention"
)

// TestPreviewObjects decides about the objects of two locations; one that stands for no archive is left out.
func TestPreviewObjects(t *testing.T) {
	object := func(name, location string, age time.Duration, change func(*v1alpha1.Backup)) v1alpha1.Backup {
		started := metav1.NewTime(now.Add(-age))
		b := v1alpha1.Backup{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid", Labels: map[string]string{v1alpha1.ScheduleLabel: "nightly"}},
			Status: v1alpha1.BackupStatus{
				ArchiveUID: name, StorageLocation: location, Phase: v1alpha1.PhaseCompleted, Cluster: &v1alpha1.ClusterInfo{UID: ours}, StartTime: &started, CompletionTime: &started,
			},
		}
		if change != nil {
			change(&b)
		}
		return b
	}
	backups := []v1alpha1.Backup{
		object("a", "main", 3*time.Hour, nil), object("b", "main", 2*time.Hour, nil), object("c", "main", time.Hour, nil),
		object("d", "other", 4*time.Hour, nil),
		object("failed", "main", time.Minute, func(b *v1alpha1.Backup) { b.Status.Phase = v1alpha1.PhaseFailed }),
		object("held", "main", 5*time.Hour, func(b *v1alpha1.Backup) { b.Status.Held = true }),
		object("foreign", "main", 6*time.Hour, func(b *v1alpha1.Backup) { b.Status.Cluster.UID = other }),
		object("found", "main", 7*time.Hour, func(b *v1alpha1.Backup) {
			b.Annotations = map[string]string{v1alpha1.ArchiveUIDAnnotation: "found"}
			expires := metav1.NewTime(now.Add(time.Hour))
			b.Labels, b.Status.Expiration = nil, &expires
		}),
	}
	schedules := []v1alpha1.Schedule{{ObjectMeta: metav1.ObjectMeta{Name: "nightly"}, Spec: v1alpha1.ScheduleSpec{Retention: &v1alpha1.RetentionPolicy{KeepLast: 2}}}}
	var got []string
	for _, d := range retention.PreviewObjects(backups, schedules, ours, now) {
		got = append(got, d.Location+" "+verdicts([]retention.Decision{d.Decision})[0])
	}
	want := []string{
		"main keep found: TTL until 2026-11-25T13:00:00Z; newest that can be restored",
		"main keep c: newest that can be restored; keepLast 1 of 2", "main keep b: keepLast 2 of 2", "main remove a: no rule keeps it",
		"main keep held: held", "main keep foreign: of another cluster",
		"other keep d: newest that can be restored; keepLast 1 of 2",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
