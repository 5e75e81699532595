package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
)

// maxDeletions is how many orphans one look removes; the next goes on.
const maxDeletions = 200

// sweep removes the orphaned snapshots of this cluster's backups and restores, where there ever was anything of volumes. Volumes are left for a
// person to judge.
func (r *Reconciler) sweep(ctx context.Context, object *v1alpha1.BackupStorageLocation, place *location.Place) (used bool, err error) {
	cluster, err := r.ClusterUID(ctx)
	if err != nil {
		return false, err
	}
	busy, had, err := r.underWay(ctx, object, place, cluster)
	if err != nil || had == noData {
		return false, err
	}
	providers, err := r.providers(ctx, place)
	if had == onlyCopies && !slices.ContainsFunc(providers, takes) {
		return false, nil
	}
	failed := []error{err}
	places, err := r.places(ctx, object.Namespace)
	if err != nil {
		return true, err
	}
	for _, p := range providers { // one that does not answer keeps no other from it
		search := &Search{
			Providers: []plugins.VolumeProvider{p}, LocationID: place.Archive.ID(), Entries: place.Entries, Places: places, Cluster: cluster, Target: cluster,
			Busy: busy, Before: r.Now().Add(-SafeAge),
		}
		failed = append(failed, r.removeOrphans(ctx, object, search, providers))
	}
	return true, errors.Join(failed...)
}

func (r *Reconciler) removeOrphans(ctx context.Context, object *v1alpha1.BackupStorageLocation, search *Search, all []plugins.VolumeProvider) error {
	orphans, err := search.Find(ctx)
	switch {
	case Unreached(err, all):
		return nil
	case err != nil:
		return err
	}
	var failed []error
	for i := range orphans[:min(len(orphans), maxDeletions)] {
		o := &orphans[i]
		if err := search.Delete(ctx, o); err != nil {
			failed = append(failed, fmt.Errorf("remove orphaned %s %s: %w", o.Kind, o.ID, err))
			continue
		}
		log.FromContext(ctx).Info("removed an orphaned "+o.Kind, "id", o.ID, "reason", o.Reason, "claim", o.Claim, "backup", o.Backup, "restore", o.Restore)
		r.Events.Eventf(object, nil, "Normal", "OrphanRemoved", "Upkeep", "%s %s of claim %s: %s", o.Kind, o.ID, o.Claim, o.Reason)
	}
	return errors.Join(append(failed, search.Unseen())...)
}

// places are where the backups and schedules of the namespace want copies of snapshots: of one that was never sealed no record says so.
func (r *Reconciler) places(ctx context.Context, namespace string) (places []plugins.Place, err error) {
	var backups v1alpha1.BackupList
	if err := r.Client.List(ctx, &backups, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the Backup objects: %w", err)
	}
	for i := range backups.Items {
		places = append(places, volumes.Places(backups.Items[i].Spec.Volumes)...)
	}
	var schedules v1alpha1.ScheduleList
	if err := r.Client.List(ctx, &schedules, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the Schedule objects: %w", err)
	}
	for i := range schedules.Items {
		places = append(places, volumes.Places(schedules.Items[i].Spec.Template.Spec.Volumes)...)
	}
	return places, nil
}

func (r *Reconciler) providers(ctx context.Context, place *location.Place) ([]plugins.VolumeProvider, error) {
	if r.Providers != nil {
		return r.Providers(ctx, place)
	}
	return place.VolumeProviders(ctx)
}

// What backups of a cluster take of volumes, the least first.
const (
	noData = iota
	// onlyCopies are made of snapshots where the cluster takes some, which a backup that was killed leaves.
	onlyCopies
	snapshots
)

// underWay gives the uids of backups and restores that are not over, and says whether this cluster asks for snapshots of volumes, or has backups of which
// a provider may keep some: who has none need not give the server rights there, and outside of AWS nobody would answer.
func (r *Reconciler) underWay(ctx context.Context, object *v1alpha1.BackupStorageLocation, place *location.Place, cluster string) (busy map[string]bool, had int, err error) {
	busy = map[string]bool{}
	var backups v1alpha1.BackupList
	if err := r.Client.List(ctx, &backups, client.InNamespace(object.Namespace)); err != nil {
		return nil, noData, fmt.Errorf("list the Backup objects: %w", err)
	}
	for i := range backups.Items {
		b := &backups.Items[i]
		switch {
		case b.Spec.Volumes.Snapshots():
			had = snapshots
		case b.Spec.Volumes.Copies():
			had = max(had, onlyCopies)
		}
		if !b.Status.Phase.Final() {
			busy[string(b.UID)], busy[b.Status.ArchiveUID] = true, true
		}
	}
	var restores v1alpha1.RestoreList
	if err := r.Client.List(ctx, &restores, client.InNamespace(object.Namespace)); err != nil {
		return nil, noData, fmt.Errorf("list the Restore objects: %w", err)
	}
	for i := range restores.Items {
		if s := &restores.Items[i]; !s.Status.Phase.Final() {
			busy[string(s.UID)] = true
		}
	}
	if had == snapshots {
		return busy, had, nil
	}
	entries, err := place.Entries(ctx)
	if err != nil {
		return nil, noData, err
	}
	for i := range entries {
		switch rec := entries[i].Record; {
		case rec == nil || rec.Cluster.UID != cluster:
		case rec.Counts.Snapshots > 0:
			return busy, snapshots, nil
		case rec.Counts.Volumes > 0:
			had = max(had, onlyCopies)
		}
	}
	return busy, had, nil
}
