package main

import (
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

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
			c, err := a.needLocal("describe restore")
			if err != nil {
				return err
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
	return cmd
}

func (a *app) printRestoreDetails(o *v1alpha1.Restore, report *restore.Report, all bool) error {
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
	if report == nil {
		a.ui.Note("No run of this restore has ended. If none is running, go on with: kedge restore resume %s", o.Name)
	}
	if spec, err := yaml.Marshal(o.Spec); err == nil {
		d.section("Spec")
		a.printIndented(string(spec))
	}
	if report == nil {
		return nil
	}
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
