//go:build unix

package schedule_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
)

// TestTakenName finds an object under the name of its backup.
func TestTakenName(t *testing.T) {
	p := newPlace(t, "1.36.3")
	p.schedule(t, "demo")
	p.at(t, "demo", "10:15:00")
	// Another cluster has a schedule of the same name, and its archive is shown here.
	foreign := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.namespace, Name: "demo-20260301110000", Labels: map[string]string{v1alpha1.ScheduleLabel: "demo"},
		Annotations: map[string]string{v1alpha1.ArchiveUIDAnnotation: "some-uid"},
	}}
	if err := p.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	foreign.Status.Phase, foreign.Status.Cluster = v1alpha1.PhaseFailed, &v1alpha1.ClusterInfo{UID: "another"}
	if err := p.Status().Update(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	p.at(t, "demo", "11:00:00")
	s := p.look(t, "demo")
	if !strings.HasPrefix(s.Status.Active, "demo-20260301110000-") || s.Status.Active != s.Status.LastBackup {
		t.Fatalf("active is %q, the last backup %q; there are %s", s.Status.Active, s.Status.LastBackup, p.backups(t, "demo"))
	}
	is(t, "healthy", condition(s, "Healthy"), "Unknown NoRunYet")
	is(t, "made", p.made(t, s, p.backup(t, s.Status.Active)), true)
	p.end(t, s.Status.Active, v1alpha1.PhaseCompleted)
	s = p.look(t, "demo")
	is(t, "active", s.Status.Active, "")
	is(t, "healthy", condition(s, "Healthy"), "True LastRunSucceeded")
}

// TestPlanted has somebody who may create Backups, and reads what he likes of the schedule, put some in its way: under the name of a run, with label and
// mark of an earlier one, and ones that never end. The schedule goes on with its own, and says what it met.
func TestPlanted(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		p.schedule(t, "demo")
		p.at(t, "demo", "10:15:00")
		p.at(t, "demo", "11:00:00")
		first := p.backup(t, "demo-20260301110000")
		p.end(t, first.Name, v1alpha1.PhaseCompleted)
		plant := func(name string, observed int64) {
			b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name, Labels: first.Labels, Annotations: first.Annotations}}
			if err := p.Create(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			b.Status.ObservedGeneration, b.Status.Phase = observed, v1alpha1.PhaseInProgress
			if err := p.Status().Update(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		plant("a-long-one", 1)
		plant("an-unseen-one", 0)
		plant("demo-20260301120000", 0)
		p.at(t, "demo", "12:00:00")
		s := p.look(t, "demo")
		if !strings.HasPrefix(s.Status.Active, "demo-20260301120000-") || s.Status.Active != s.Status.LastBackup {
			t.Fatalf("active is %q, the last backup %q; there are %s", s.Status.Active, s.Status.LastBackup, p.backups(t, "demo"))
		}
		is(t, "made", p.made(t, s, p.backup(t, s.Status.Active)), true)
		is(t, "planted", p.made(t, s, p.backup(t, "demo-20260301120000")), false)
		var told []string
		for len(p.events.Events) > 0 {
			told = append(told, <-p.events.Events)
		}
		if all := strings.Join(told, "\n"); !strings.Contains(all, "Warning NameTaken Backup demo-20260301120000 is not this schedule's") {
			t.Errorf("events:\n%s", all)
		}
		p.end(t, s.Status.Active, v1alpha1.PhaseFailed)
		s = p.look(t, "demo")
		is(t, "active", s.Status.Active, "")
		is(t, "healthy", condition(s, "Healthy"), "False LastRunFailed")
		is(t, "last success", s.Status.LastSuccessfulBackup, first.Name)
	})
}

// TestMarkAgain has somebody who reads the mark of the newest run delete its Backup and create it again: it is not the schedule's.
func TestMarkAgain(t *testing.T) {
	p := newPlace(t, "1.36.3")
	p.schedule(t, "demo")
	p.at(t, "demo", "10:15:00")
	s := p.at(t, "demo", "11:00:00")
	first := p.backup(t, "demo-20260301110000")
	is(t, "uid", s.Status.MadeUID, first.UID)
	p.end(t, first.Name, v1alpha1.PhaseCompleted)
	p.look(t, "demo")
	again := func() *v1alpha1.Backup {
		t.Helper()
		if err := p.Delete(t.Context(), p.backup(t, first.Name)); err != nil {
			t.Fatal(err)
		}
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: first.Name, Labels: first.Labels, Annotations: first.Annotations}}
		if err := p.Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := again()
	s = p.look(t, "demo")
	is(t, "made", p.made(t, s, b), false)
	is(t, "active", s.Status.Active, "")
	is(t, "last success", s.Status.LastSuccessfulBackup, "")
	p.at(t, "demo", "12:00:00")
	s = p.look(t, "demo")
	is(t, "the next run", s.Status.Active, "demo-20260301120000")

	// The server that made it ended before it noted the uid: the next one notes it when it sees the Backup, and forgets a run whose Backup is gone.
	s.Status.MadeUID = ""
	if err := p.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	second := p.backup(t, s.Status.Active)
	is(t, "made before it is noted", p.made(t, s, second), false)
	s = p.look(t, "demo")
	is(t, "uid", s.Status.MadeUID, second.UID)
	is(t, "made", p.made(t, s, second), true)
	s.Status.MadeUID = ""
	if err := p.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	is(t, "forgotten", p.look(t, "demo").Status.Made, "")
}

// TestNoKey has a Secret of the key that is of no use: the schedule says so, and what is overdue, until it is deleted.
func TestNoKey(t *testing.T) {
	p := newPlace(t, "1.36.3")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "kedge-runs"}, Data: map[string][]byte{"key": []byte("short")}}
	if err := p.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	p.schedule(t, "demo")
	s := p.at(t, "demo", "10:15:00")
	is(t, "ready", condition(s, "Ready"), "False NoKey")
	s = p.at(t, "demo", "11:06:00")
	is(t, "healthy", condition(s, "Healthy"), "False RunOverdue")
	is(t, "backups", p.backups(t, "demo"), "")
	if err := p.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	s = p.at(t, "demo", "11:07:00")
	is(t, "ready", condition(s, "Ready"), "True Valid")
	is(t, "backups", p.backups(t, "demo"), "demo-20260301110000")
}
