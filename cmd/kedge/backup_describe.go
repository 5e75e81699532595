package main

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/plugins"
)

// backupDetails is what "backup describe -o json" prints: the backup, and what its encrypted part says where a key is at hand.
type backupDetails struct {
	v1alpha1.Backup `json:",inline"`
	Report          *archive.Report `json:"report,omitempty"`
	// Resources counts objects by resource.
	Resources map[string]int `json:"resources,omitempty"`
	Volumes   []volumeRow    `json:"volumes,omitempty"`
}

func (a *app) backupDescribeCommand() *cobra.Command {
	var out outputFlag
	var location string
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Say everything about a backup: what it holds, and what it could not take and why",
		Long: `Say everything about a backup: what it holds, and what it could not take and why.

Without a key that opens the location, only what is not encrypted is printed.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.choose()
			if err != nil {
				return atCommand("describe backup", err)
			}
			if r != nil {
				if err := refuseLocalFlags(cmd, "describe backup", readFlags...); err != nil {
					return err
				}
				return r.describeBackup(cmd.Context(), &out, location, args[0])
			}
			f, err := a.findBackup(cmd.Context(), c, location, args[0])
			if err != nil {
				return err
			}
			return a.describeBackup(cmd.Context(), &out, f)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.keys.bindTrust(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) describeBackup(ctx context.Context, out *outputFlag, f *found) error {
	details := backupDetails{Backup: *backupObject(&f.entry, f.object.Name)}
	if f.entry.Record == nil {
		return f.entry.Err
	}
	keys, err := a.unlockIfPossible(ctx, f.place)
	if err != nil {
		return err
	}
	if keys != nil {
		reader, err := a.read(ctx, f)
		if err != nil {
			return err
		}
		if details.Report, err = reader.Report(ctx); err != nil {
			return err
		}
		rows, err := reader.Volumes(ctx)
		if err != nil {
			return err
		}
		details.Volumes = volumeRows(rows)
		details.Resources = map[string]int{}
		for _, frame := range reader.Record().Frames {
			ref := plugins.Ref{Group: frame.Group, Resource: frame.Resource}
			details.Resources[ref.GroupResource()] += frame.Items
		}
	}
	if out.structured() {
		return a.printStructured(out.format, details)
	}
	a.printBackupDetails(&details, &f.entry)
	if keys == nil {
		a.ui.Note("No key at hand opens location %s, so only what is not encrypted is shown (--age-identity-file).", f.object.Name)
	}
	return nil
}

func (a *app) printBackupDetails(details *backupDetails, e *archive.Entry) {
	r := e.Record
	d := a.describe()
	d.field("Name", e.Name)
	d.field("UID", e.UID)
	d.field("Status", string(r.Phase))
	d.field("Message", details.Status.Message)
	d.field("Location", details.Spec.StorageLocation)
	d.field("Cluster", r.Cluster.Name)
	d.field("Cluster uid", r.Cluster.UID)
	d.field("Cluster version", r.Cluster.Version)
	d.field("Revision", r.Revision)
	d.moment("Started", r.Started)
	d.moment("Completed", r.Completed)
	if !r.Completed.IsZero() {
		d.field("Took", term.Duration(r.Completed.Sub(r.Started)))
	}
	d.field("Expires", expiryText(e, a.env.Now()))
	d.field("Content", countsText(r.Counts))
	d.field("Stored", term.Bytes(r.StoredBytes()))
	d.field("Signed by", r.SignedBy)
	d.field("Archive format", strconv.Itoa(r.FormatVersion))
	d.field("Written by kedge", r.Kedge)
	for _, key := range sortedKeys(r.Labels) {
		d.field("Label", key+"="+r.Labels[key])
	}
	a.printSpec(details.Spec)
	if len(details.Resources) > 0 {
		d.section("Objects")
		for _, name := range sortedKeys(details.Resources) {
			d.line("%8s  %s", term.Count(int64(details.Resources[name])), name)
		}
	}
	a.printVolumeLines(details.Volumes)
	if details.Report != nil {
		a.printReport(details.Report)
	}
}

// printSpec prints the spec of an object as YAML.
func (a *app) printSpec(spec any) {
	if text, err := yaml.Marshal(spec); err == nil {
		a.describe().section("Spec")
		a.printIndented(string(text))
	}
}

// printReport prints what a backup says of what it could not take.
func (a *app) printReport(report *archive.Report) {
	a.printRemarks("Errors", report.Errors)
	a.printRemarks("Warnings", report.Warnings)
	a.printRemarks("Left out by rule", report.Skipped)
	if len(report.Notes) == 0 {
		return
	}
	d := a.describe()
	d.section("Notes")
	for _, note := range report.Notes {
		d.line("%s", note)
	}
}

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// maxRemarks is how many remarks of one kind are printed to people; all of them are in the JSON.
const maxRemarks = 50

func (a *app) printRemarks(heading string, remarks []archive.Remark) {
	if len(remarks) == 0 {
		return
	}
	d := a.describe()
	d.section(heading)
	for i, remark := range remarks {
		if i == maxRemarks {
			d.line("… and %s more (-o json prints all)", term.Count(int64(len(remarks)-i)))
			return
		}
		d.line("%s", remarkText(remark))
	}
}

// remarkText is a remark as one line: "deployments.apps shop/cart: TooLarge: …".
func remarkText(r archive.Remark) string {
	subject := r.Resource
	if r.Ref != nil {
		subject = r.Ref.String()
	}
	if subject != "" {
		subject += ": "
	}
	return subject + r.Reason + ": " + term.Clean(r.Message)
}
