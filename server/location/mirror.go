package location

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
)

// StatusOf is the status of a Backup that shows an archive. It has no conditions: those are of an object in a cluster.
func StatusOf(e *archive.Entry, location string) v1alpha1.BackupStatus {
	s := v1alpha1.BackupStatus{ArchiveUID: e.UID, StorageLocation: location}
	r := e.Record
	if r == nil {
		s.Phase = v1alpha1.PhaseFailed
		s.Message = "the commit record cannot be used"
		if e.Err != nil {
			s.Message = e.Err.Error()
		}
		return s
	}
	cluster := r.Cluster
	s.Phase, s.Cluster, s.Counts, s.Revision = r.Phase, &cluster, r.Counts, r.Revision
	s.StartTime, s.CompletionTime = timePointer(r.Started), timePointer(r.Completed)
	s.Schedule = r.Labels[v1alpha1.ScheduleLabel] // which nobody can write there who only creates objects
	s.StoredBytes, s.Signed = r.StoredBytes(), r.SignedBy != ""
	s.Held = e.Expiry != nil && e.Expiry.Hold
	if at := e.ExpiresAt(); at != nil {
		s.Expiration = timePointer(*at)
	}
	if e.Deleting {
		s.Message = "it is being deleted"
	}
	return s
}

// timePointer is a time of the API, which has whole seconds.
func timePointer(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t)
	return &m
}
