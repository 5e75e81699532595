package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

// deleteBackups asks the server to delete backups with all their data, and follows it.
func (r *remote) deleteBackups(ctx context.Context, location string, names []string, yes, force bool) error {
	found := make([]*v1alpha1.Backup, 0, len(names))
	for _, name := range names {
		b, err := r.findBackup(ctx, location, name)
		if err != nil {
			return err
		}
		if !b.Status.Phase.Final() && b.Annotations[v1alpha1.ArchiveUIDAnnotation] == "" {
			return codeError(exitRefused, fmt.Errorf("delete backup %s: it is being made (%s)", name, orElse(string(b.Status.Phase), "New")), "stop it first: kedge backup cancel "+name)
		}
		found = append(found, b)
	}
	for _, b := range found {
		if !yes {
			if err := r.app.ui.Confirm(r.deleteQuestion(b, r.app.env.Now()), b.Name); err != nil {
				return codeError(exitUsage, fmt.Errorf("delete backup %s: %w; nothing was deleted", b.Name, err), "add --yes to delete without a question")
			}
		}
		if err := r.deleteBackup(ctx, b, force); err != nil {
			return fmt.Errorf("delete backup %s: %w", b.Name, err)
		}
		r.app.ui.Note("Backup %s is deleted.", b.Name)
	}
	return nil
}

// deleteBackup has one backup deleted. One that never came to its first file in a location is an object only.
func (r *remote) deleteBackup(ctx context.Context, b *v1alpha1.Backup, force bool) error {
	if b.Status.ArchiveUID == "" {
		return r.delete(ctx, b)
	}
	request := &v1alpha1.DeleteBackupRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "kedge-"},
		Spec:       v1alpha1.DeleteBackupRequestSpec{BackupName: b.Name, BackupUID: b.Status.ArchiveUID, Force: force},
	}
	if err := r.create(ctx, request); err != nil {
		return err
	}
	s := &request.Status
	bar := r.app.ui.Progress("delete "+b.Name, "objects")
	err := r.follow(ctx, request, func() bool {
		bar.Set(term.State{Doing: orElse(s.Message, "waiting for the server")})
		return s.Phase == v1alpha1.RequestDone || s.Phase == v1alpha1.RequestFailed || s.Phase == v1alpha1.RequestWaiting
	})
	bar.Done()
	const later = "the server finishes it by itself; \"kubectl get deletebackuprequests\" in its namespace shows when"
	switch {
	case errors.Is(err, context.Canceled):
		return codeError(exitCancelled, errors.New("no longer followed; the deletion that was asked for goes on"), later)
	case err != nil:
		return err
	case s.Phase == v1alpha1.RequestWaiting:
		return codeError(exitRefused, fmt.Errorf("it waits: %s", s.Message), later)
	case s.Phase == v1alpha1.RequestFailed:
		return codeError(exitRefused, errors.New(orElse(s.Message, "the server refused it")), "")
	}
	return nil
}

// deleteQuestion says what would be lost.
func (r *remote) deleteQuestion(b *v1alpha1.Backup, now time.Time) string {
	s := &b.Status
	text := fmt.Sprintf("Backup %s (%s) will be deleted from location %s.", b.Name, orElse(s.ArchiveUID, "without an archive"), locationOf(b))
	if s.Phase.Usable() {
		cluster := ""
		if s.Cluster != nil {
			cluster = " of cluster " + orElse(s.Cluster.Name, s.Cluster.UID)
		}
		text += fmt.Sprintf(" It is %s old and holds %s%s; it expires: %s.", term.Age(now, begun(b)), plural(s.Counts.Items, "object"), cluster, keptText(b, now))
	}
	return text
}
