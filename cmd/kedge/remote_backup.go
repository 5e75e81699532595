package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

// createBackup asks the server for a backup; with --wait it follows it to its end.
func (r *remote) createBackup(cmd *cobra.Command, name string, f *backupFlags) error {
	const command = "create backup"
	if f.dryRun {
		return onlyLocal(command+": --dry-run", "counting is done by who reads the cluster")
	}
	if err := refuseLocalFlags(cmd, command, append([]string{"sign-key-file", "concurrency", "spool-dir"}, moverFlagNames...)...); err != nil {
		return err
	}
	if err := r.app.completeBackup(f, name); err != nil {
		return err
	}
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Name: f.object.Name, Labels: f.object.Labels, Annotations: f.object.Annotations}, Spec: f.object.Spec}
	if err := r.checkNamespace(f.object.Namespace); err != nil {
		return usageError(fmt.Errorf("%s: %w", command, err), "")
	}
	if b.Name == "" {
		b.Name = generatedName(r.cluster, r.app.env.Now())
	}
	ctx := cmd.Context()
	if err := r.create(ctx, b); err != nil {
		return fmt.Errorf("%s %s: %w", command, b.Name, err)
	}
	if f.wait {
		return r.waitBackup(ctx, b, &f.out)
	}
	if err := r.app.printObject(&f.out, backupOut(b), b.Name, "Backup %s is requested from the server in namespace %s.", b.Name, r.namespace); err != nil {
		return err
	}
	r.app.ui.Note("\"kedge backup get %s\" shows where it stands; --wait follows it.", b.Name)
	return nil
}

// waitBackup follows a backup to its end, prints what became of it, and gives the exit code.
func (r *remote) waitBackup(ctx context.Context, b *v1alpha1.Backup, out *outputFlag) error {
	s := &b.Status
	if err := r.watchRun(ctx, b, "backup", func() (v1alpha1.Phase, *v1alpha1.Progress) { return s.Phase, s.Progress }); err != nil {
		return err
	}
	text := fmt.Sprintf("Backup %s: %s", b.Name, s.Phase)
	if s.Phase.Usable() {
		text += fmt.Sprintf(", %s, %s stored in %s, took %s", countsText(s.Counts), term.Bytes(s.StoredBytes), s.StorageLocation, tookText(s.StartTime, s.CompletionTime))
	}
	if err := r.app.printObject(out, backupOut(b), b.Name, "%s", text); err != nil {
		return err
	}
	return r.app.ended("create backup "+b.Name, s.Phase, s.Message, `"kedge backup describe `+b.Name+`" names what is missing`)
}

// ended turns the phase of what was followed into an exit code, and says why there is no result.
func (a *app) ended(what string, phase v1alpha1.Phase, message, hint string) error {
	if phase == v1alpha1.PhaseFailed {
		return codeError(exitFailed, fmt.Errorf("%s: %s", what, orElse(message, "it failed")), "")
	}
	return phaseError(phase, hint, a)
}

// printObject prints what a command has made: as data, as its name, or as a line for people.
func (a *app) printObject(out *outputFlag, object any, name, format string, args ...any) error {
	switch {
	case out.structured():
		return a.printStructured(out.format, object)
	case out.format == formatName:
		a.printf("%s\n", name)
	default:
		a.printf(format+"\n", args...)
	}
	return nil
}

// refuseLocalFlags refuses the flags that only this process could follow.
func refuseLocalFlags(cmd *cobra.Command, command string, names ...string) error {
	for _, name := range names {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			return onlyLocal(command+": --"+name, "the server has settings and keys of its own")
		}
	}
	return nil
}

// readFlags are the flags with which this machine opens a backup by itself.
var readFlags = []string{"age-identity-file", "trusted-key-file", "require-signature"}

// checkNamespace refuses an object that a file puts elsewhere.
func (r *remote) checkNamespace(given string) error {
	if given != "" && given != r.namespace {
		return fmt.Errorf("metadata.namespace: it is %q, and the server's objects are in %s (--kedge-namespace)", given, r.namespace)
	}
	return nil
}

// backupOut is a backup as commands print it.
func backupOut(b *v1alpha1.Backup) *v1alpha1.Backup {
	b.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Backup"}
	b.ManagedFields = nil
	return b
}

// findBackup finds a backup by its name, or by the uid of its archive. Where a location is named it must be that one's.
func (r *remote) findBackup(ctx context.Context, location, name string) (*v1alpha1.Backup, error) {
	var b v1alpha1.Backup
	err := r.get(ctx, name, &b)
	if isNotFound(err) && uidPattern.MatchString(name) {
		found, listErr := r.backups(ctx, labels.Everything(), location)
		if listErr != nil {
			return nil, listErr
		}
		if i := slices.IndexFunc(found, func(b v1alpha1.Backup) bool { return b.Status.ArchiveUID == name }); i >= 0 {
			return &found[i], nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find backup %s: %w", name, err)
	}
	if location != "" && locationOf(&b) != location {
		return nil, codeError(exitNotFound, fmt.Errorf("find backup %s: it is in location %s, not %s", name, orElse(locationOf(&b), "the default one"), location), "")
	}
	return &b, nil
}

// locationOf is the location that holds a backup, or will.
func locationOf(b *v1alpha1.Backup) string {
	return orElse(b.Status.StorageLocation, b.Spec.StorageLocation)
}

// backups lists the backups that match, by age.
func (r *remote) backups(ctx context.Context, want labels.Selector, location string) ([]v1alpha1.Backup, error) {
	var list v1alpha1.BackupList
	if err := r.list(ctx, &list, client.MatchingLabelsSelector{Selector: want}); err != nil {
		return nil, fmt.Errorf("list the backups: %w", err)
	}
	found := slices.DeleteFunc(list.Items, func(b v1alpha1.Backup) bool { return location != "" && locationOf(&b) != location })
	slices.SortStableFunc(found, func(x, y v1alpha1.Backup) int {
		return cmp.Or(begun(&x).Compare(begun(&y)), cmp.Compare(x.Name, y.Name))
	})
	return found, nil
}

// begun is when a backup was made, or asked for.
func begun(b *v1alpha1.Backup) time.Time {
	if s := b.Status.StartTime; s != nil {
		return s.Time
	}
	return b.CreationTimestamp.Time
}

// getBackups lists backups, all or those that are named.
func (r *remote) getBackups(ctx context.Context, out *outputFlag, location string, names []string, want labels.Selector) error {
	var found []v1alpha1.Backup
	for _, name := range names {
		b, err := r.findBackup(ctx, location, name)
		if err != nil {
			return err
		}
		found = append(found, *b)
	}
	if len(names) == 0 {
		var err error
		if found, err = r.backups(ctx, want, location); err != nil {
			return err
		}
	}
	if out.structured() {
		return printList(r.app, out, found, len(names) == 1, "BackupList", func(b *v1alpha1.Backup) { backupOut(b) })
	}
	if out.format == formatName {
		for i := range found {
			r.app.printf("%s\n", found[i].Name)
		}
		return nil
	}
	none := "No backups in namespace " + r.namespace + "."
	if location != "" {
		none = "No backups in location " + location + "."
	}
	return r.app.printTable(backupTable(found, r.app.env.Now()), out.format, none)
}

// printList prints objects as data: one of them alone where it was asked for by its name.
func printList[T any](a *app, out *outputFlag, items []T, single bool, kind string, complete func(*T)) error {
	for i := range items {
		complete(&items[i])
	}
	if single && len(items) == 1 {
		return a.printStructured(out.format, items[0])
	}
	return a.printStructured(out.format, struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []T `json:"items"`
	}{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}, Items: append([]T{}, items...)})
}

func backupTable(found []v1alpha1.Backup, now time.Time) *term.Table {
	table := &term.Table{Columns: []term.Column{
		{Name: "NAME"}, {Name: "STATUS", Color: phaseColor}, {Name: "OBJECTS", Right: true}, {Name: "ERRORS", Right: true}, {Name: "WARNINGS", Right: true}, {Name: "SIZE", Right: true},
		{Name: "AGE"}, {Name: "EXPIRES"}, {Name: "CLUSTER"}, {Name: "VOLUMES", Right: true, Wide: true}, {Name: "LOCATION", Wide: true}, {Name: "VERSION", Wide: true}, {Name: "SIGNED", Wide: true}, {Name: "UID", Wide: true},
	}}
	for i := range found {
		b := &found[i]
		s := &b.Status
		items, cluster, version, signed := int64(s.Counts.Items), "", "", "no"
		if p := s.Progress; p != nil && !s.Phase.Final() {
			items = p.Done
		}
		if c := s.Cluster; c != nil {
			cluster, version = orElse(c.Name, c.UID), c.Version
		}
		if s.Signed {
			signed = "yes"
		}
		table.Add(b.Name, orElse(string(s.Phase), "New"), term.Count(items), term.Count(int64(s.Counts.Errors)), term.Count(int64(s.Counts.Warnings)), term.Bytes(s.StoredBytes),
			term.Age(now, begun(b)), keptText(b, now), cluster, volumesText(s.Counts), locationOf(b), version, signed, s.ArchiveUID)
	}
	return table
}

// keptText says until when a backup is kept.
func keptText(b *v1alpha1.Backup, now time.Time) string {
	s := &b.Status
	switch at := s.Expiration; {
	case s.Held:
		return "held"
	case !s.Phase.Usable():
		return ""
	case at == nil:
		return "never"
	case at.Time.Before(now):
		return "expired"
	default:
		return "in " + term.Age(at.Time, now)
	}
}

// tookText is the time between two moments.
func tookText(from, to *metav1.Time) string {
	if from == nil || to == nil {
		return "<unknown>"
	}
	return term.Duration(to.Sub(from.Time))
}

// cancelBackup asks the server to stop the making of a backup.
func (r *remote) cancelBackup(ctx context.Context, name string) error {
	b, err := r.findBackup(ctx, "", name)
	if err != nil {
		return err
	}
	if b.Status.Phase.Final() {
		return codeError(exitRefused, fmt.Errorf("cancel backup %s: it has ended already (%s)", name, b.Status.Phase), "\"kedge backup delete\" deletes a backup")
	}
	if b.Annotations[v1alpha1.ArchiveUIDAnnotation] != "" {
		return codeError(exitRefused, fmt.Errorf("cancel backup %s: it was found in its location, and another server makes it", name), "cancel it where it is made")
	}
	if err := r.merge(ctx, b, `{"spec":{"cancel":true}}`); err != nil {
		return fmt.Errorf("cancel backup %s: %w", name, err)
	}
	r.app.ui.Note("The server is asked to stop backup %s; nothing of it stays.", name)
	return nil
}

func (a *app) backupCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel NAME",
		Short: "Stop a backup that the server is making",
		Long: `Stop a backup that the server is making. Nothing of it stays in the location; the Backup object stays, with the phase Cancelled.

With --local a backup is cancelled by Ctrl-C in the process that makes it.`,
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := a.choose()
			if err != nil {
				return atCommand("cancel backup", err)
			}
			if r == nil {
				return errCancelLocal("backup")
			}
			return r.cancelBackup(cmd.Context(), args[0])
		},
	}
	a.kube.bind(cmd.Flags())
	return cmd
}

// errCancelLocal says how what runs in a process of this machine is cancelled.
func errCancelLocal(kind string) error {
	return usageError(fmt.Errorf("cancel %s: with --local the process that runs it is told: there is no server to ask", kind), "press Ctrl-C where it runs, or send that process SIGINT")
}

// atCommand names the command in the error of one that could not begin.
func atCommand(command string, err error) error {
	if errors.Is(err, errSilent) {
		return err
	}
	return fmt.Errorf("%s: %w", command, err)
}
