package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

func (a *app) volumeCommand() *cobra.Command {
	cmd := group("volume", "Look at the data of volumes, and after it", `Backups that are made with spec.volumes hold the data of claims: snapshots that stay with the provider, copies in the location (docs/volumes.md).
"kedge restore create" brings claims back with it; these commands are for the data alone.`,
		a.volumeListCommand(),
		a.volumeRestoreCommand(),
		a.volumeOrphansCommand(),
	)
	cmd.Aliases = []string{"volumes"}
	return cmd
}

func (a *app) volumeListCommand() *cobra.Command {
	var out outputFlag
	var location, backup string
	cmd := &cobra.Command{
		Use:     "list --from-backup NAME",
		Aliases: []string{"get", "ls"},
		Short:   "List the volumes whose data a backup has, and where it is",
		Long: `List the volumes whose data a backup has: of which claim it is, how it was taken, and the provider's snapshot and the copy in the location that
hold it.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("list volumes", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "list volumes", readFlags...); err != nil {
					return err
				}
				return r.listVolumes(cmd.Context(), &out, location, backup)
			}
			f, err := a.findBackup(cmd.Context(), c, location, backup)
			if err != nil {
				return err
			}
			reader, err := a.read(cmd.Context(), f)
			if err != nil {
				return err
			}
			rows, err := reader.Volumes(cmd.Context())
			if err != nil {
				return err
			}
			return a.printVolumes(&out, f.entry.Name, rows)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML)
	bindFromBackup(cmd, &backup)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// bindFromBackup adds the flag that names the backup, without which a command cannot be.
func bindFromBackup(cmd *cobra.Command, dst *string) {
	cmd.Flags().StringVar(dst, "from-backup", "", "`name` or uid of the backup")
	_ = cmd.MarkFlagRequired("from-backup") // it fails only for a flag that is not there
}

// volumeRow is one volume as "volume list -o json" prints it.
type volumeRow struct {
	archive.Volume `json:",inline"`

	Method v1alpha1.VolumeMethod `json:"method"`
}

// volumeList is what "volume list -o json" prints.
type volumeList struct {
	Backup  string      `json:"backup"`
	Volumes []volumeRow `json:"volumes"`
}

func volumeRows(rows []archive.Volume) []volumeRow {
	out := make([]volumeRow, len(rows))
	for i := range rows {
		out[i] = volumeRow{Volume: rows[i], Method: rows[i].Method()}
	}
	return out
}

func (a *app) printVolumes(out *outputFlag, backup string, rows []archive.Volume) error {
	if out.structured() {
		return a.printStructured(out.format, volumeList{Backup: backup, Volumes: volumeRows(rows)})
	}
	return a.printTable(volumeTable(rows), out.format, "Backup "+backup+" has no data of volumes.")
}

func volumeTable(rows []archive.Volume) *term.Table {
	table := &term.Table{Columns: []term.Column{
		{Name: "CLAIM"}, {Name: "PROVIDER"}, {Name: "SIZE", Right: true}, {Name: "METHOD"}, {Name: "SNAPSHOT"}, {Name: "COPY"}, {Name: "TAKEN"},
		{Name: "HANDLE", Wide: true}, {Name: "ZONE", Wide: true}, {Name: "VOLUME", Wide: true}, {Name: "SNAPSHOT COPIES", Wide: true},
	}}
	for i := range rows {
		v := &rows[i]
		table.Add(v.Namespace+"/"+v.Claim, v.Provider, term.Bytes(v.Source.SizeBytes), string(v.Method()), v.SnapshotID, v.CopyID, v.Taken.UTC().Format("2006-01-02T15:04:05Z"),
			v.Source.Handle, v.Source.Zone, v.Volume, snapshotCopies(v.SnapshotCopies))
	}
	return table
}

// snapshotCopies says where copies of a snapshot are.
func snapshotCopies(copies []archive.SnapshotCopy) string {
	texts := make([]string, len(copies))
	for i, c := range copies {
		texts[i] = c.String()
	}
	return strings.Join(texts, "; ")
}

// printVolumeLines prints volumes as a part of a description.
func (a *app) printVolumeLines(rows []volumeRow) {
	if len(rows) == 0 {
		return
	}
	d := a.describe()
	d.section("Volumes")
	for i := range rows {
		if i == maxRemarks {
			d.line("… and %s more (kedge volume list prints all)", term.Count(int64(len(rows)-i)))
			return
		}
		v := &rows[i]
		where := ""
		if v.SnapshotID != "" {
			where += ", snapshot " + v.SnapshotID
		}
		if len(v.SnapshotCopies) > 0 {
			where += ", copied to " + snapshotCopies(v.SnapshotCopies)
		}
		if v.CopyID != "" {
			where += ", copy " + v.CopyID
		}
		d.line("%s/%s: %s of %s %s%s", v.Namespace, v.Claim, term.Bytes(v.Source.SizeBytes), v.Provider, v.Source.Handle, where)
	}
}

// listVolumes prints the volumes of a backup of a server.
func (r *remote) listVolumes(ctx context.Context, out *outputFlag, location, name string) error {
	b, err := r.findBackup(ctx, location, name)
	if err != nil {
		return err
	}
	rows, err := r.volumes(ctx, b)
	if err != nil {
		return err
	}
	return r.app.printVolumes(out, b.Name, rows)
}

// volumes asks the server where the data of a backup's volumes is; nobody is asked where the backup has none.
func (r *remote) volumes(ctx context.Context, b *v1alpha1.Backup) (rows []archive.Volume, err error) {
	if b.Status.Counts.Volumes == 0 {
		return nil, nil
	}
	err = r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupVolumes, Name: b.Name}, func(in io.Reader) error {
		d := json.NewDecoder(io.LimitReader(in, maxDocument))
		for {
			var v archive.Volume
			if err := d.Decode(&v); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			rows = append(rows, v)
		}
	})
	return rows, err
}
