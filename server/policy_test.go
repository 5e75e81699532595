//go:build unix

package server_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// TestAdmissionPolicy has the chart's policy refuse what names no account, of an administrator too, and let the rest pass: what the server does, a change of
// labels of what was there before, what is deleted, and each kind with an account.
func TestAdmissionPolicy(t *testing.T) {
	h := newHouse(t, "1.36.3")
	old := newBackup("old")
	h.create(t, old)
	if err := h.cluster.ApplyYAML(t.Context(), accountPolicy(t)); err != nil {
		t.Fatal(err)
	}
	h.policyWorks(t, h.client, newBackup("early"))

	template := v1alpha1.ScheduleSpec{Schedule: "@daily"}
	refused := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "that you may use") {
			t.Errorf("%s: want a refusal, got %v", what, err)
		}
	}
	passes := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	refused("a Restore", h.client.Create(t.Context(), &v1alpha1.Restore{ObjectMeta: meta("r"), Spec: v1alpha1.RestoreSpec{BackupName: "old"}}))
	refused("a Schedule", h.client.Create(t.Context(), &v1alpha1.Schedule{ObjectMeta: meta("s"), Spec: template}))
	changed := old.DeepCopy()
	changed.Spec.Cancel = true
	refused("a change of a spec without an account", h.client.Update(t.Context(), changed))

	old.Labels = map[string]string{"team": "a"}
	passes("a label", h.client.Update(t.Context(), old))
	old.Status.Phase = v1alpha1.PhaseCompleted
	passes("a status", h.client.Status().Update(t.Context(), old))
	passes("a deletion", h.client.Delete(t.Context(), old))
	template.Template.Spec.ServiceAccountName = "any"
	s := &v1alpha1.Schedule{ObjectMeta: meta("s"), Spec: template}
	passes("a Schedule with an account", h.client.Create(t.Context(), s))
	s.Spec.Template.Spec.ServiceAccountName = ""
	refused("a Schedule that loses its account", h.client.Update(t.Context(), s))
	passes("a Restore with an account", h.client.Create(t.Context(), &v1alpha1.Restore{ObjectMeta: meta("r"), Spec: v1alpha1.RestoreSpec{BackupName: "old", ServiceAccountName: "any"}}))
	passes("a location", h.client.Create(t.Context(), &v1alpha1.BackupStorageLocation{ObjectMeta: meta("l"), Spec: v1alpha1.BackupStorageLocationSpec{File: &v1alpha1.FileLocation{Path: "/x"}}}))
	passes("the server's Backup", h.as(t, "system:serviceaccount:kedge:kedge").Create(t.Context(), newBackup("shown")))
	refused("another server's Backup", h.as(t, "system:serviceaccount:kedge:other").Create(t.Context(), newBackup("foreign")))
}

// as is an administrator of another name.
func (h *house) as(t *testing.T, user string) client.Client {
	t.Helper()
	cfg := rest.CopyConfig(h.cluster.Master())
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	c, err := client.New(cfg, client.Options{Scheme: h.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
