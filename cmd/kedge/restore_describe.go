package main

import (
	"github.com/spf13/cobra"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/restore"
)

// restoreDetails is what "restore describe -o json" prints.
type restoreDetails struct {
	v1alpha1.Restore `json:",inline"`
	Report           *restore.Report `json:"report,omitempty"`
}

func (a *app) restoreDescribeCommand() *cobra.Command {
	var out outputFlag
	var location string
	var all bool
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Say everything about a restore: what failed, was converted or left out, and why",
		Args:  exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("describe restore", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "describe restore", "age-identity-file"); err != nil {
					return err
				}
				return r.describeRestore(cmd.Context(), &out, args[0], all)
			}
			object, report, err := a.findReport(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			if out.structured() {
				return a.printStructured(out.format, restoreDetails{*object, report})
			}
			return a.printRestoreDetails(object, report, all)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&all, "all", false, "name every object that is not simply created, not only those that failed")
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) printRestoreDetails(o *v1alpha1.Restore, report *restore.Report, all bool) error {
	a.printRestoreHead(o, report)
	if report == nil {
		a.ui.Note("No run of this restore has ended. If none is running, go on with: kedge restore resume %s", o.Name)
	}
	a.printSpec(o.Spec)
	return a.printRestoreResult(report, all)
}

func (a *app) printRestoreHead(o *v1alpha1.Restore, report *restore.Report) {
	d := a.describe()
	d.field("Name", o.Name)
	d.field("UID", string(o.UID))
	d.field("Status", string(o.Status.Phase))
	d.field("Message", o.Status.Message)
	d.field("Backup", o.Spec.BackupName)
	d.field("Location", o.Spec.StorageLocation)
	if t := o.Status.Target; t != nil {
		d.field("Target", t.Name)
		d.field("Target uid", t.UID)
		d.field("Target version", t.Version)
	}
	if s := o.Status.StartTime; s != nil {
		d.moment("Started", s.Time)
		if c := o.Status.CompletionTime; c != nil {
			d.moment("Completed", c.Time)
			took := c.Sub(s.Time)
			if report != nil {
				took = report.Completed.Sub(report.Started) // not rounded to seconds
			}
			d.field("Took", term.Duration(took))
		}
	}
}

// printRestoreResult prints what a report says.
func (a *app) printRestoreResult(report *restore.Report, all bool) error {
	if report == nil {
		return nil
	}
	d := a.describe()
	d.section("Result")
	if err := a.printText(report.WriteSummary); err != nil {
		return err
	}
	if all && len(report.Entries) > 0 {
		d.section("Objects that are not simply created")
		for _, e := range report.Entries {
			d.line("%s", entryText(e))
		}
	}
	return nil
}
