package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
	"kedge.dev/kedge/restore"
)

func (a *app) restoreCommand() *cobra.Command {
	cmd := group("restore", "Restore backups, and look at what became of it", `A restore brings the objects of a backup into a cluster: the one they came from or another, of the same version or a newer one.

The server carries it out, and goes on by itself where it was interrupted. With --local this process does; its journal is kept on this
machine, so that a restore that was cancelled or killed can go on where it was.`,
		a.restoreCreateCommand(),
		a.restoreGetCommand(),
		a.restoreDescribeCommand(),
		a.restoreLogsCommand(),
		a.restoreResumeCommand(),
		a.restoreCancelCommand(),
	)
	cmd.Aliases = []string{"restores"}
	return cmd
}

// restoreObject is a restore as an object of the API.
func restoreObject(name, uid string, spec v1alpha1.RestoreSpec, status v1alpha1.RestoreStatus) *v1alpha1.Restore {
	r := &v1alpha1.Restore{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Restore"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)},
		Spec:       spec,
		Status:     status,
	}
	if status.StartTime != nil {
		r.CreationTimestamp = *status.StartTime
	}
	return r
}

// restoreCountsText sums a restore up in words.
func restoreCountsText(c v1alpha1.RestoreCounts) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s objects planned: %s created", term.Count(int64(c.Planned)), term.Count(int64(c.Created)))
	for _, part := range []struct {
		n    int
		what string
	}{{c.Updated, "updated"}, {c.Unchanged, "unchanged"}, {c.Skipped, "skipped"}, {c.Failed, "FAILED"}} {
		if part.n > 0 {
			fmt.Fprintf(&text, ", %s %s", term.Count(int64(part.n)), part.what)
		}
	}
	if c.Warnings > 0 {
		text.WriteString(", " + plural(c.Warnings, "warning"))
	}
	return text.String()
}

// entryText is a line of a restore's report: "deployments.apps shop/cart: Failed: Refused by webhook x: …".
func entryText(e restore.Entry) string {
	text := e.Ref.String() + ": " + e.Outcome.String()
	if e.Warning {
		text = e.Ref.String() + ": Warning"
	}
	if e.Reason != "" {
		text += ": " + string(e.Reason)
	}
	if e.By != "" {
		text += " by " + e.By
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return term.Clean(text)
}
