package main

import (
	"context"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

// backupPreview is what "backup create --dry-run -o json" prints.
type backupPreview struct {
	Cluster   string          `json:"cluster"`
	Version   string          `json:"version"`
	Items     int             `json:"items"`
	Bytes     int64           `json:"bytes"`
	Resources []resourceCount `json:"resources"`
	Report    archive.Report  `json:"report"`
}

// resourceCount is how much of one resource a backup would hold.
type resourceCount struct {
	Resource string `json:"resource"`
	Version  string `json:"version"`
	Items    int    `json:"items"`
	Bytes    int64  `json:"bytes"`
}

// previewBackup counts what a backup would hold, and writes nothing.
func (a *app) previewBackup(ctx context.Context, engine *backup.Engine, request backup.Request, out *outputFlag) error {
	bar := a.ui.Progress("preview", "objects")
	engine.Events.Progress = func(s backup.Progress) { bar.Set(backupState(s)) }
	preview, err := engine.Preview(ctx, request)
	bar.Done()
	if err != nil {
		return err
	}
	result := backupPreview{Cluster: preview.Cluster.Name, Version: preview.Cluster.Version, Resources: []resourceCount{}, Report: preview.Report}
	table := term.Table{Columns: []term.Column{{Name: "RESOURCE"}, {Name: "VERSION"}, {Name: "OBJECTS", Right: true}, {Name: "SIZE", Right: true}}}
	for _, r := range preview.Resources {
		result.Items += r.Items
		result.Bytes += r.Bytes
		name := groupResource(r.Resource, r.Group)
		result.Resources = append(result.Resources, resourceCount{Resource: name, Version: r.Version, Items: r.Items, Bytes: r.Bytes})
		table.Add(name, r.Version, term.Count(int64(r.Items)), term.Bytes(r.Bytes))
	}
	switch {
	case out.structured():
		err = a.printStructured(out.format, result)
	case out.format == formatName:
		for _, r := range result.Resources {
			a.printf("%s\n", r.Resource)
		}
	default:
		err = a.printTable(&table, out.format, "Nothing is selected.")
		a.printRemarks("Would be errors", preview.Report.Errors)
		a.printRemarks("Warnings", preview.Report.Warnings)
	}
	if err != nil {
		return err
	}
	a.ui.Note("%s, %s as JSON. Nothing was written (--dry-run).", plural(result.Items, "object"), term.Bytes(result.Bytes))
	return phaseError(preview.Phase, "Some objects could not be taken", a)
}

// backupState is the engine's progress as the terminal shows it.
func backupState(s backup.Progress) term.State {
	state := term.State{Done: s.Items, Total: s.ItemsExpected, Bytes: s.Bytes, Doing: string(s.Stage)}
	switch {
	case s.Stage == backup.StageList && s.Resource != "":
		state.Doing = s.Resource
	case s.Stage == backup.StageVolumes && s.Volumes.Total > 0:
		state.Total = s.Items // all are read
		state.Doing = volumesDoing(&v1alpha1.Progress{
			VolumesDone: s.Volumes.Done, Volumes: s.Volumes.Total, VolumeBytes: s.Volumes.CopiedBytes, VolumeTotalBytes: s.Volumes.CopyBytes,
			SnapshotCopiesDone: s.Volumes.SnapshotCopiesDone, SnapshotCopies: s.Volumes.SnapshotCopies, SnapshotCopyPercent: s.Volumes.SnapshotCopyPercent,
		})
	}
	return state
}

// volumesDoing says how far volumes are: "volumes 1 of 3, 1.2 GiB of 4 GiB copied, 1 of 2 snapshots copied elsewhere (70 %)".
func volumesDoing(p *v1alpha1.Progress) string {
	text := fmt.Sprintf("volumes %d of %d", p.VolumesDone, p.Volumes)
	if p.VolumeTotalBytes > 0 {
		text += fmt.Sprintf(", %s of %s copied", term.Bytes(p.VolumeBytes), term.Bytes(p.VolumeTotalBytes))
	}
	if p.SnapshotCopies > 0 {
		text += fmt.Sprintf(", %d of %d snapshots copied elsewhere (%d %%)", p.SnapshotCopiesDone, p.SnapshotCopies, p.SnapshotCopyPercent)
	}
	return text
}
