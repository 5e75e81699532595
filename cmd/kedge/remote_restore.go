package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/restore"
)

// createRestore asks the server for a restore; with --wait it follows it to its end.
func (r *remote) createRestore(cmd *cobra.Command, name string, f *restoreFlags) error {
	const command = "create restore"
	if f.dryRun || f.exitCode {
		return onlyLocal(command+": --dry-run", "a Restore object always restores")
	}
	if err := refuseLocalFlags(cmd, command, append([]string{"age-identity-file", "trusted-key-file", "concurrency"}, moverFlagNames...)...); err != nil {
		return err
	}
	if err := r.app.completeRestore(f, name); err != nil {
		return err
	}
	if err := r.checkNamespace(f.object.Namespace); err != nil {
		return usageError(fmt.Errorf("%s: %w", command, err), "")
	}
	ctx := cmd.Context()
	// Who may restore need not be allowed to read Backup objects; only what is certainly wrong is refused here.
	if _, err := r.findBackup(ctx, f.object.Spec.StorageLocation, f.object.Spec.BackupName); err != nil && !isForbidden(err) {
		return fmt.Errorf("%s: %w", command, err)
	}
	o := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: f.object.Name, Labels: f.object.Labels, Annotations: f.object.Annotations}, Spec: f.object.Spec}
	if err := r.create(ctx, o); err != nil {
		return fmt.Errorf("%s %s: %w", command, o.Name, err)
	}
	if f.wait {
		return r.waitRestore(ctx, o, &f.out)
	}
	if err := r.app.printObject(&f.out, restoreOut(o), o.Name, "Restore %s is requested from the server in namespace %s.", o.Name, r.namespace); err != nil {
		return err
	}
	r.app.ui.Note("\"kedge restore get %s\" shows where it stands; --wait follows it.", o.Name)
	return nil
}

// waitRestore follows a restore to its end, prints what became of it, and gives the exit code.
func (r *remote) waitRestore(ctx context.Context, o *v1alpha1.Restore, out *outputFlag) error {
	s := &o.Status
	if err := r.watchRun(ctx, o, "restore", func() (v1alpha1.Phase, *v1alpha1.Progress) { return s.Phase, s.Progress }); err != nil {
		return err
	}
	text := fmt.Sprintf("Restore %s: %s, %s, took %s", o.Name, s.Phase, restoreCountsText(s.Counts), tookText(s.StartTime, s.CompletionTime))
	if err := r.app.printObject(out, restoreOut(o), o.Name, "%s", text); err != nil {
		return err
	}
	return r.app.ended("create restore "+o.Name, s.Phase, s.Message, `"kedge restore describe `+o.Name+`" names what is not simply created`)
}

// restoreOut is a restore as commands print it.
func restoreOut(o *v1alpha1.Restore) *v1alpha1.Restore {
	o.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Restore"}
	o.ManagedFields = nil
	return o
}

func (r *remote) findRestore(ctx context.Context, name string) (*v1alpha1.Restore, error) {
	var o v1alpha1.Restore
	if err := r.get(ctx, name, &o); err != nil {
		return nil, fmt.Errorf("find restore %s: %w", name, err)
	}
	return &o, nil
}

// getRestores lists restores, all or one.
func (r *remote) getRestores(ctx context.Context, out *outputFlag, location string, names []string) error {
	var list v1alpha1.RestoreList
	if len(names) == 1 {
		o, err := r.findRestore(ctx, names[0])
		if err != nil {
			return err
		}
		list.Items = []v1alpha1.Restore{*o}
	} else if err := r.list(ctx, &list); err != nil {
		return fmt.Errorf("list the restores: %w", err)
	}
	known := make([]knownRestore, 0, len(list.Items))
	for i := range list.Items {
		o := restoreOut(&list.Items[i])
		if location == "" || o.Spec.StorageLocation == location {
			known = append(known, knownRestore{object: o, from: "namespace " + r.namespace})
		}
	}
	slices.SortStableFunc(known, func(x, y knownRestore) int {
		return cmp.Or(x.object.CreationTimestamp.Compare(y.object.CreationTimestamp.Time), cmp.Compare(x.object.Name, y.object.Name))
	})
	return r.app.printRestores(out, known, len(names) == 1)
}

// describeRestore prints a Restore object, and what the server reads of its report.
func (r *remote) describeRestore(ctx context.Context, out *outputFlag, name string, all bool) error {
	o, err := r.findRestore(ctx, name)
	if err != nil {
		return err
	}
	var report *restore.Report
	if o.Status.Phase.Final() {
		var read restore.Report
		err := r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreReport, Name: o.Name}, decodeInto(&read))
		switch {
		case err == nil:
			report = &read
		case ctx.Err() != nil:
			return err
		default:
			r.app.ui.Warn("the report is not shown: %s", oneLine(err.Error()))
		}
	}
	if out.structured() {
		return r.app.printStructured(out.format, restoreDetails{*restoreOut(o), report})
	}
	r.app.printRestoreHead(o, report)
	r.app.printSpec(o.Spec)
	r.app.printConditions(o.Status.Conditions)
	return r.app.printRestoreResult(report, all)
}

// restoreLogs prints the log of a restore.
func (r *remote) restoreLogs(ctx context.Context, name, format string) error {
	o, err := r.findRestore(ctx, name)
	if err != nil {
		return err
	}
	w := r.app.logWriter(format)
	err = r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadRestoreLog, Name: o.Name}, copyTo(w))
	return errors.Join(err, w.Close())
}

// resumeRestore says what becomes of a restore without a command: a server goes on by itself, and begins no ended one again.
func (r *remote) resumeRestore(ctx context.Context, name string) error {
	o, err := r.findRestore(ctx, name)
	if err != nil {
		return err
	}
	phase := o.Status.Phase
	if !phase.Final() {
		r.app.ui.Note("Restore %s is %s: the server goes on with it by itself, also after a crash. There is nothing to resume.", name, orElse(string(phase), "New"))
		return nil
	}
	hint := "nothing is left to do"
	if phase != v1alpha1.PhaseCompleted {
		hint = fmt.Sprintf("create another with the same flags: kedge restore create --from-backup %s …; what is in the cluster already is not made twice", o.Spec.BackupName)
	}
	return codeError(exitRefused, fmt.Errorf("resume restore %s: it has ended (%s), and the server begins no restore twice", name, phase), hint)
}

// cancelRestore asks the server to stop a restore.
func (r *remote) cancelRestore(ctx context.Context, name string) error {
	o, err := r.findRestore(ctx, name)
	if err != nil {
		return err
	}
	if o.Status.Phase.Final() {
		return codeError(exitRefused, fmt.Errorf("cancel restore %s: it has ended already (%s)", name, o.Status.Phase), "")
	}
	if err := r.merge(ctx, o, `{"spec":{"cancel":true}}`); err != nil {
		return fmt.Errorf("cancel restore %s: %w", name, err)
	}
	r.app.ui.Note("The server is asked to stop restore %s; what it has restored stays, and its report names it.", name)
	return nil
}

func (a *app) restoreCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel NAME",
		Short: "Stop a restore that the server carries out",
		Long: `Stop a restore that the server carries out. What it has restored stays in the cluster, and its report names it.

With --local a restore is cancelled by Ctrl-C in the process that carries it out.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := a.choose()
			if err != nil {
				return atCommand("cancel restore", err)
			}
			if r == nil {
				return errCancelLocal("restore")
			}
			return r.cancelRestore(cmd.Context(), args[0])
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}
