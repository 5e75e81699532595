package main

import (
	"context"
	"errors"
	"fmt"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
)

// restoreNotFound is the error of commands that look for a restore everywhere.
func restoreNotFound(name string) error {
	return codeError(exitNotFound, fmt.Errorf("find restore %s: neither this machine nor the location has one", name), `"kedge restore get" lists the known restores`)
}

// locatedReport is a report that a location keeps.
type locatedReport struct {
	report   *restore.Report
	location string
}

// object is the restore of a report; of its spec only the backup is known.
func (l *locatedReport) object() *v1alpha1.Restore {
	return restoreObject(l.report.Name, l.report.UID, v1alpha1.RestoreSpec{BackupName: l.report.Backup, StorageLocation: l.location}, l.report.Status())
}

// locationReports reads the reports of a location, all or those of restores of one name; none where no key at hand opens it.
func (a *app) locationReports(ctx context.Context, c *config, location, name string) ([]locatedReport, error) {
	if location == "" && len(c.Locations) == 0 {
		return nil, nil
	}
	p, err := a.openPlace(ctx, c, location)
	if err != nil {
		return nil, err
	}
	keys, err := a.unlockIfPossible(ctx, p)
	if err != nil {
		return nil, err
	}
	if keys == nil {
		a.ui.Note("No key at hand opens location %s, so only restores of this machine are known (--age-identity-file).", p.object.Name)
		return nil, nil
	}
	var list []locatedReport
	err = restore.Reports(ctx, p.location, keys, name, func(r *restore.Report) error {
		list = append(list, locatedReport{r, p.object.Name})
		return nil
	})
	return list, err
}

// findReport finds a restore with its last report, on this machine or in the location. The report is nil where no run has ended.
func (a *app) findReport(ctx context.Context, c *config, location, name string) (*v1alpha1.Restore, *restore.Report, error) {
	state, err := a.findRestoreState(name)
	if err == nil {
		object, err := state.object()
		if err != nil {
			return nil, nil, err
		}
		report, err := state.report()
		return object, report, err
	}
	if !errors.Is(err, errNoState) {
		return nil, nil, err
	}
	reports, err := a.locationReports(ctx, c, location, name)
	if err != nil {
		return nil, nil, err
	}
	if len(reports) == 0 {
		return nil, nil, restoreNotFound(name)
	}
	last := reports[0]
	for _, r := range reports {
		if r.report.Started.After(last.report.Started) {
			last = r
		}
	}
	return last.object(), last.report, nil
}
