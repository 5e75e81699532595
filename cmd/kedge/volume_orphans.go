package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/server/location"
	"kedge.dev/kedge/server/upkeep"
)

// orphanFlags say what "volume orphans" looks for and does.
type orphanFlags struct {
	olderThan   time.Duration
	backupsOnly bool
	remove, yes bool
	volumes     bool
	places      []string
}

func (a *app) volumeOrphansCommand() *cobra.Command {
	var out outputFlag
	var where string
	var flags orphanFlags
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "Find snapshots and volumes that Kedge made and nothing needs, and delete them",
		Long: `Find snapshots that were made for backups of the location, of whatever cluster, and belong to none that it holds; those that are kept to compare the
next copy of a volume with, and have been replaced; those that a restore into this cluster needed for a while; and volumes that a restore made
for this cluster and that no PersistentVolume of it names. Copies of snapshots are looked for in the regions and accounts that the location's backups name, and in
those of --snapshot-copy.

What is younger than --older-than may be of a backup or restore that is under way, and is left out. --delete deletes the snapshots after a
question, and with --volumes the volumes too: look at them first, for they may hold what was written since the restore.

A server deletes orphaned snapshots of its own cluster by itself. Nothing is read but tags, so no key is needed.`,
		Example: `  kedge volume orphans
  kedge volume orphans --delete
  kedge volume orphans --backups-only   # no cluster is asked`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("find orphans", err)
			}
			if r != nil {
				return usageError(errors.New("find orphans: a server deletes the orphaned snapshots of its cluster by itself"), "add --local to look from this machine, with a location that it knows: kedge location add")
			}
			if flags.volumes && !flags.remove || flags.olderThan < 0 {
				return usageError(errors.New("find orphans: --volumes goes with --delete, and --older-than is not negative"), "")
			}
			p, err := a.openPlace(cmd.Context(), c, where)
			if err != nil {
				return err
			}
			places, err := flags.parsePlaces()
			if err != nil {
				return usageError(fmt.Errorf("find orphans: --snapshot-copy: %w", err), "")
			}
			return a.orphans(cmd.Context(), &out, p, flags, places)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML)
	cmd.Flags().DurationVar(&flags.olderThan, "older-than", upkeep.SafeAge, "least `age` of what is listed")
	cmd.Flags().BoolVar(&flags.backupsOnly, "backups-only", false, "look at the snapshots of backups only, not at what restores into the cluster left")
	cmd.Flags().BoolVar(&flags.remove, "delete", false, "delete the snapshots")
	cmd.Flags().BoolVar(&flags.volumes, "volumes", false, "with --delete: delete the volumes too, and the data in them")
	cmd.Flags().BoolVarP(&flags.yes, "yes", "y", false, "delete without a question")
	cmd.Flags().StringArrayVar(&flags.places, "snapshot-copy", nil, "a further `place` to look for copies of snapshots in: region=…,role=…,external-id=… (repeatable)")
	bindLocation(cmd.Flags(), &where)
	a.kube.bind(cmd.Flags())
	return cmd
}

// orphanList is what "volume orphans -o json" prints.
type orphanList struct {
	Location string      `json:"location"`
	Orphans  []orphanRow `json:"orphans"`
}

type orphanRow struct {
	upkeep.Orphan `json:",inline"`

	Deleted bool `json:"deleted,omitempty"`
}

func (f *orphanFlags) parsePlaces() (places []plugins.Place, err error) {
	for _, value := range f.places {
		c, err := parseSnapshotCopy(value)
		if err != nil {
			return nil, err
		}
		places = append(places, plugins.Place{Region: c.Region, RoleARN: c.RoleARN, ExternalID: c.ExternalID})
	}
	return places, nil
}

func (a *app) orphans(ctx context.Context, out *outputFlag, p *place, flags orphanFlags, places []plugins.Place) error {
	providers, noAWS := location.VolumeProviders(ctx, &p.object.Spec, nil)
	search := &upkeep.Search{
		Providers: providers, Places: places, LocationID: p.location.ID(), Before: a.env.Now().Add(-flags.olderThan),
		Entries: func(ctx context.Context) ([]archive.Entry, error) { return allEntries(ctx, p.location) },
	}
	if !flags.backupsOnly {
		if err := a.askCluster(ctx, search); err != nil {
			return fmt.Errorf("find orphans: %w", err)
		}
	}
	switch {
	case noAWS != nil && len(search.Providers) == 0:
		return fmt.Errorf("find orphans: %w", noAWS)
	case noAWS != nil:
		a.ui.Warn("what AWS has is not looked at: %v", noAWS)
	}
	found, unseen, err := a.findOrphans(ctx, search)
	if err != nil {
		return fmt.Errorf("find orphans: %w", err)
	}
	if unseen != nil {
		a.ui.Warn("%v", unseen)
	}
	list := orphanList{Location: p.object.Name, Orphans: make([]orphanRow, len(found))}
	for i := range found {
		list.Orphans[i].Orphan = found[i]
	}
	if !flags.remove {
		return a.printOrphans(out, &list)
	}
	deleteErr := a.deleteOrphans(ctx, search, &list, flags)
	return errors.Join(a.printOrphans(out, &list), deleteErr)
}

// findOrphans looks with each provider. One that nobody gave access to is told of, where the cluster has snapshots of its own;
// unseen is why other places could not be looked at.
func (a *app) findOrphans(ctx context.Context, search *upkeep.Search) (found []upkeep.Orphan, unseen, err error) {
	for _, p := range search.Providers {
		one := *search
		one.Providers = []plugins.VolumeProvider{p}
		some, err := one.Find(ctx)
		switch {
		case err != nil && upkeep.Unreached(err, search.Providers):
			a.ui.Warn("what %s has is not looked at: %v", p.Name(), err)
		case err != nil:
			return nil, nil, err
		}
		found, unseen = append(found, some...), errors.Join(unseen, one.Unseen())
	}
	slices.SortStableFunc(found, func(a, b upkeep.Orphan) int { return a.Created.Compare(b.Created) })
	return found, unseen, nil
}

// askCluster has the search look at what restores into the cluster left.
func (a *app) askCluster(ctx context.Context, search *upkeep.Search) error {
	client, _, err := a.cluster(0)
	if err == nil {
		search.Target, err = client.ClusterUID(ctx)
	}
	if err != nil {
		return fmt.Errorf("ask the cluster what its restores left (--backups-only does without): %w", err)
	}
	search.Providers = append(search.Providers, location.ClusterProvider(ctx, client))
	search.Volumes = func(ctx context.Context) (pvs []corev1.PersistentVolume, err error) {
		res := kube.Resource{Version: "v1", Resource: "persistentvolumes"}
		_, err = client.List(ctx, kube.ListRequest{Path: res.Path("", "")}, func(raw []byte) error {
			var pv corev1.PersistentVolume
			if err := json.Unmarshal(raw, &pv); err != nil {
				return fmt.Errorf("read a PersistentVolume: %w", err)
			}
			pvs = append(pvs, pv)
			return nil
		})
		return pvs, err
	}
	return nil
}

// deleteOrphans deletes what is asked for, after a question, and marks it. One that cannot be deleted keeps no other.
func (a *app) deleteOrphans(ctx context.Context, search *upkeep.Search, list *orphanList, flags orphanFlags) error {
	var doomed []*orphanRow
	snapshots, volumes := 0, 0
	for i := range list.Orphans {
		switch o := &list.Orphans[i]; {
		case o.Kind == upkeep.KindSnapshot:
			snapshots, doomed = snapshots+1, append(doomed, o)
		case flags.volumes:
			volumes, doomed = volumes+1, append(doomed, o)
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	if !flags.yes {
		question := fmt.Sprintf("%s and %s will be deleted; \"kedge volume orphans\" lists them.", plural(snapshots, "snapshot"), plural(volumes, "volume"))
		if err := a.ui.Confirm(question, "delete"); err != nil {
			return codeError(exitUsage, fmt.Errorf("delete orphans: %w; nothing was deleted", err), "add --yes to delete without a question")
		}
	}
	bar := a.ui.Progress("delete orphans", "orphans")
	defer bar.Done()
	var failed []error
	for i, o := range doomed {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		bar.Set(term.State{Done: int64(i), Total: int64(len(doomed))})
		if err := search.Delete(ctx, &o.Orphan); err != nil {
			failed = append(failed, err)
			continue
		}
		o.Deleted = true
	}
	if len(failed) > 0 {
		return fmt.Errorf("delete orphans: %d of %d could not be deleted: %w", len(failed), len(doomed), errors.Join(failed...))
	}
	return nil
}

func (a *app) printOrphans(out *outputFlag, list *orphanList) error {
	if out.structured() {
		return a.printStructured(out.format, list)
	}
	table := &term.Table{Columns: []term.Column{
		{Name: "KIND"}, {Name: "ID"}, {Name: "SIZE", Right: true}, {Name: "AGE"}, {Name: "REASON"}, {Name: "OF"}, {Name: "CLAIM"}, {Name: "DELETED"}, {Name: "PLACE", Wide: true},
	}}
	for i := range list.Orphans {
		o := &list.Orphans[i]
		of, deleted, place := "", "no", ""
		if o.Place != nil {
			place = o.Place.String()
		}
		if o.Backup != "" {
			of = "backup " + o.Backup
		} else if o.Restore != "" {
			of = "restore " + o.Restore
		}
		if o.Deleted {
			deleted = "yes"
		}
		table.Add(o.Kind, o.ID, term.Bytes(o.SizeBytes), term.Age(a.env.Now(), o.Created), o.Reason, of, o.Claim, deleted, place)
	}
	return a.printTable(table, out.format, "Nothing is orphaned.")
}
