package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/server/location"
)

func (a *app) backupCommand() *cobra.Command {
	cmd := group("backup", "Make backups, and look at them", `A backup is the objects of a cluster as they were at one moment, encrypted in a location.`,
		a.backupCreateCommand(),
		a.backupGetCommand(),
		a.backupDescribeCommand(),
		a.backupLogsCommand(),
		a.backupItemsCommand(),
		a.backupShowCommand(),
		a.backupDiffCommand(),
		a.backupDownloadCommand(),
		a.backupVerifyCommand(),
		a.backupHoldCommand(),
		a.backupReleaseCommand(),
		a.backupExtendCommand(),
		a.backupDeleteCommand(),
		a.backupCancelCommand(),
	)
	cmd.Aliases = []string{"backups"}
	return cmd
}

// bindLocation adds the flag that chooses a location.
func bindLocation(flags *pflag.FlagSet, dst *string) {
	flags.StringVar(dst, "storage-location", "", "`name` of the location (default: the default one)")
}

// backupObject is a backup of a location as an object of the API.
func backupObject(e *archive.Entry, name string) *v1alpha1.Backup {
	b := &v1alpha1.Backup{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Backup"},
		ObjectMeta: metav1.ObjectMeta{Name: e.Name, UID: types.UID(e.UID)},
	}
	if r := e.Record; r != nil {
		b.Labels = r.Labels
		b.CreationTimestamp = metav1.NewTime(r.Started)
		b.Spec = r.Spec
	}
	b.Spec.StorageLocation = name
	b.Status = location.StatusOf(e, name)
	b.Status.Message = oneLine(b.Status.Message)
	return b
}

func timePointer(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t)
	return &m
}

// phaseColor makes phases stand out in tables.
func phaseColor(phase string) term.Color {
	switch v1alpha1.Phase(phase) {
	case v1alpha1.PhaseCompleted:
		return term.Green
	case v1alpha1.PhasePartiallyFailed, v1alpha1.PhaseCancelled, v1alpha1.PhaseInProgress, v1alpha1.PhaseQueued:
		return term.Yellow
	case v1alpha1.PhaseFailed:
		return term.Red
	}
	return ""
}

// expiryText says when a backup may be removed.
func expiryText(e *archive.Entry, now time.Time) string {
	if e.Expiry != nil && e.Expiry.Hold {
		return "held"
	}
	at := e.ExpiresAt()
	switch {
	case at == nil:
		return "never"
	case at.Before(now):
		return "expired"
	}
	return "in " + term.Age(*at, now)
}

// volumesText is how many volumes' data a backup has, and their size: "3 (30 GiB)".
func volumesText(c v1alpha1.Counts) string {
	if c.Volumes == 0 {
		return "0"
	}
	return fmt.Sprintf("%s (%s)", term.Count(int64(c.Volumes)), term.Bytes(c.VolumeBytes))
}

// countsText sums a backup up in words.
func countsText(c v1alpha1.Counts) string {
	text := fmt.Sprintf("%s objects, %s as JSON", term.Count(int64(c.Items)), term.Bytes(c.Bytes))
	if c.Volumes > 0 {
		text += fmt.Sprintf(", the data of %s (%s)", plural(c.Volumes, "volume"), term.Bytes(c.VolumeBytes))
	}
	if c.Skipped > 0 {
		text += fmt.Sprintf(", %s left out by rule", term.Count(int64(c.Skipped)))
	}
	if c.Warnings > 0 {
		text += ", " + plural(c.Warnings, "warning")
	}
	if c.Errors > 0 {
		text += ", " + plural(c.Errors, "error")
	}
	return text
}
