package retention

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
)

// missingGrace is how long a schedule must have been seen not to be there before its backups are left to their TTL alone. Kedge's objects may be
// away by mistake, or not be put back yet after Kedge was installed anew.
const missingGrace = 24 * time.Hour

// preparation finds what decisions about one location depend on beside its backups.
type preparation struct {
	r       *Reconciler
	object  *v1alpha1.BackupStorageLocation
	memory  *memory
	cluster string
}

func (p preparation) prepare(ctx context.Context, entries []archive.Entry) (Input, error) {
	var schedules v1alpha1.ScheduleList
	if err := p.r.Client.List(ctx, &schedules, client.InNamespace(p.object.Namespace)); err != nil {
		return Input{}, fmt.Errorf("list the schedules, whose rules retention follows: %w", err)
	}
	in := Input{Cluster: p.cluster, Policies: policiesOf(schedules.Items)}
	p.memory.missed(entries, in.Policies, p.cluster, p.r.Now())
	var err error
	in.InUse, err = p.inUse(ctx, entries)
	return in, err
}

// missed keeps everything of schedules that have not been missing for long enough. What it notes begins anew with the server.
func (m *memory) missed(entries []archive.Entry, policies map[string]Policy, cluster string, now time.Time) {
	missing := map[string]time.Time{}
	for i := range entries {
		b := BackupOf(&entries[i])
		if _, there := policies[b.Schedule]; there || b.Schedule == "" || b.Cluster != cluster {
			continue
		}
		since, seen := m.missing[b.Schedule]
		if !seen {
			since = now
		}
		missing[b.Schedule] = since
	}
	m.missing = missing
	for schedule, since := range missing {
		if now.Sub(since) < missingGrace {
			policies[schedule] = Policy{KeepAll: "its schedule is gone, seen for less than " + missingGrace.String()}
		}
	}
}

// inUse says, by uid, which backups are being restored. A restore names a backup by name or by uid.
func (p preparation) inUse(ctx context.Context, entries []archive.Entry) (map[string]string, error) {
	var restores v1alpha1.RestoreList
	if err := p.r.Client.List(ctx, &restores, client.InNamespace(p.object.Namespace)); err != nil {
		return nil, fmt.Errorf("list the restores, whose backups stay: %w", err)
	}
	users := map[string]string{} // by what they call the backup
	for i := range restores.Items {
		if s := &restores.Items[i]; !s.Status.Phase.Final() {
			users[s.Spec.BackupName] = "restore " + s.Name
		}
	}
	if len(users) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for i := range entries {
		for _, called := range []string{entries[i].Name, entries[i].UID} {
			if user, ok := users[called]; ok {
				out[entries[i].UID] = user
			}
		}
	}
	var backups v1alpha1.BackupList
	if err := p.r.Client.List(ctx, &backups, client.InNamespace(p.object.Namespace)); err != nil {
		return nil, fmt.Errorf("list the Backup objects, which restores name: %w", err)
	}
	for i := range backups.Items {
		if user, ok := users[backups.Items[i].Name]; ok {
			out[backups.Items[i].ArchiveUID()] = user
		}
	}
	return out, nil
}

// RemoveObject removes the Backup objects that show an archive of a location, whose data is gone. No data goes with them.
func RemoveObject(ctx context.Context, c client.Client, namespace, location, archiveUID string) error {
	var list v1alpha1.BackupList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("list the Backup objects: %w", err)
	}
	for i := range list.Items {
		b := &list.Items[i]
		if b.ArchiveUID() != archiveUID || b.Status.StorageLocation != location {
			continue
		}
		err := c.Delete(ctx, b, client.Preconditions{UID: &b.UID})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("remove the Backup object %s, whose data is gone: %w", b.Name, err)
		}
	}
	return nil
}
