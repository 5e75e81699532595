package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/outcome"
	"kedge.dev/kedge/server/status"
)

// reasonUnnoted is why a backup waits until its schedule has noted its uid, which takes moments.
const (
	reasonUnnoted = "NotNotedYet"
	unnotedAgain  = 200 * time.Millisecond
)

// origin looks, when a backup is first seen, whether the schedule of its label has made it. Who may create a Backup may write any label, and with a
// schedule's he would have retention count his backup in the place of the schedule's own. What was found is noted in the status, for good: later the
// schedule may have come to the name that somebody foresaw.
func (r *Reconciler) origin(ctx context.Context, b *v1alpha1.Backup) error {
	name := b.Labels[v1alpha1.ScheduleLabel]
	if b.Status.ObservedGeneration != 0 || name == "" {
		return nil
	}
	made, err := r.made(ctx, b, name)
	if err != nil {
		return err
	}
	if made {
		b.Status.Schedule = name
		return nil
	}
	r.Events.Eventf(b, nil, "Warning", "LabelDropped", "Backup", "the label %s goes not into the archive: schedule %s has not made this backup, so that its retention does not count it",
		v1alpha1.ScheduleLabel, name)
	return nil
}

// unlooked notes why nobody can tell yet whether a schedule made a backup. It counts as not looked at.
func (r *Reconciler) unlooked(ctx context.Context, b, before *v1alpha1.Backup, err error) (ctrl.Result, error) {
	if outcome.Stopped(ctx) {
		return ctrl.Result{}, nil
	}
	if outcome.Of(err).Reason != reasonUnnoted {
		r.set(b, status.Failed(status.Ready, err))
		if patchErr := status.Patch(ctx, r.Client, b, before); patchErr != nil {
			return status.Lost(patchErr)
		}
	}
	return outcome.Result(err)
}

func (r *Reconciler) made(ctx context.Context, b *v1alpha1.Backup, name string) (bool, error) {
	var s v1alpha1.Schedule
	err := r.Look.Get(ctx, client.ObjectKey{Namespace: b.Namespace, Name: name}, &s)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read schedule %s, which the label %s of backup %s names: %w", name, v1alpha1.ScheduleLabel, b.Name, err)
	}
	owner, err := r.Marks.Of(ctx, &s, "")
	if err != nil {
		return false, fmt.Errorf("look whether schedule %s made backup %s: %w", name, b.Name, err)
	}
	made, known := owner.Made(b)
	if !known && s.DeletionTimestamp.IsZero() { // a schedule that goes notes nothing more
		return false, fmt.Errorf("look whether schedule %s made backup %s: %w", name, b.Name, outcome.Waiting(reasonUnnoted, unnotedAgain, errors.New("its status does not have the uid of its newest run yet")))
	}
	return made, nil
}

// labelsOf are the labels that go into the archive.
func labelsOf(b *v1alpha1.Backup) map[string]string {
	if b.Labels[v1alpha1.ScheduleLabel] == b.Status.Schedule {
		return b.Labels
	}
	labels := maps.Clone(b.Labels)
	delete(labels, v1alpha1.ScheduleLabel)
	if b.Status.Schedule != "" { // it was changed, or taken away
		if labels == nil {
			labels = map[string]string{}
		}
		labels[v1alpha1.ScheduleLabel] = b.Status.Schedule
	}
	return labels
}
