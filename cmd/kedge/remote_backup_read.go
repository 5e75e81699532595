package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/internal/term"
)

var uidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// describeBackup prints a Backup object, and what the server reads of its report.
func (r *remote) describeBackup(ctx context.Context, out *outputFlag, location, name string) error {
	b, err := r.findBackup(ctx, location, name)
	if err != nil {
		return err
	}
	details := backupDetails{Backup: *backupOut(b)}
	if b.Status.Phase.Usable() {
		var report archive.Report
		err := r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupReport, Name: b.Name}, decodeInto(&report))
		switch {
		case err == nil:
			details.Report = &report
		case ctx.Err() != nil:
			return err
		default:
			r.app.ui.Warn("the report is not shown: %s", oneLine(err.Error()))
		}
	}
	rows, err := r.volumes(ctx, b)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.app.ui.Warn("the volumes are not shown: %s", oneLine(err.Error()))
	}
	details.Volumes = volumeRows(rows)
	if out.structured() {
		return r.app.printStructured(out.format, details)
	}
	r.app.printBackupObject(&details)
	return nil
}

// printBackupObject prints what is known of a backup of a server.
func (a *app) printBackupObject(details *backupDetails) {
	b := &details.Backup
	s := &b.Status
	d := a.describe()
	d.field("Name", b.Name)
	d.field("UID", s.ArchiveUID)
	d.field("Status", orElse(string(s.Phase), "New: no server has looked at it"))
	d.field("Message", s.Message)
	d.field("Location", locationOf(b))
	if c := s.Cluster; c != nil {
		d.field("Cluster", c.Name)
		d.field("Cluster uid", c.UID)
		d.field("Cluster version", c.Version)
	}
	d.field("Revision", s.Revision)
	d.moment("Requested", b.CreationTimestamp.Time)
	if s.StartTime != nil {
		d.moment("Started", s.StartTime.Time)
	}
	if s.CompletionTime != nil {
		d.moment("Completed", s.CompletionTime.Time)
		d.field("Took", tookText(s.StartTime, s.CompletionTime))
	}
	if p := s.Progress; p != nil && !s.Phase.Final() {
		d.field("Progress", fmt.Sprintf("%s of %s objects: %s", term.Count(p.Done), term.Count(p.Total), progressStage(p)))
	}
	if s.Attempts > 1 {
		d.field("Attempts", fmt.Sprint(s.Attempts))
	}
	if s.Phase.Usable() {
		d.field("Expires", keptText(b, a.env.Now()))
		d.field("Content", countsText(s.Counts))
		d.field("Stored", term.Bytes(s.StoredBytes))
		d.flag("Signed", s.Signed)
	}
	for _, key := range sortedKeys(b.Labels) {
		d.field("Label", key+"="+b.Labels[key])
	}
	a.printSpec(b.Spec)
	a.printConditions(s.Conditions)
	a.printVolumeLines(details.Volumes)
	if details.Report != nil {
		a.printReport(details.Report)
	}
}

// printConditions prints what the server says of an object.
func (a *app) printConditions(conditions []metav1.Condition) {
	if len(conditions) == 0 {
		return
	}
	d := a.describe()
	d.section("Conditions")
	for _, c := range conditions {
		d.line("%s is %s since %s: %s: %s", c.Type, c.Status, c.LastTransitionTime.UTC().Format("2006-01-02T15:04:05Z"), c.Reason, oneLine(c.Message))
	}
}

// backupLogs prints the log of a backup.
func (r *remote) backupLogs(ctx context.Context, location, name, format string) error {
	b, err := r.findBackup(ctx, location, name)
	if err != nil {
		return err
	}
	w := r.app.logWriter(format)
	err = r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupLog, Name: b.Name}, copyTo(w))
	return errors.Join(err, w.Close())
}

// backupItems lists the objects that a backup holds.
func (r *remote) backupItems(ctx context.Context, out *outputFlag, location, name string, s v1alpha1.Selection) error {
	b, err := r.findBackup(ctx, location, name)
	if err != nil {
		return err
	}
	p := r.app.newItemPrinter(out)
	if err := r.rows(ctx, b.Name, s, p.row); err != nil {
		return err
	}
	return p.end()
}

// rows calls fn for each row that a selection takes of a backup.
func (r *remote) rows(ctx context.Context, name string, s v1alpha1.Selection, fn func(archive.Row) error) error {
	spec := v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItems, Name: name, Selection: &s}
	return r.download(ctx, spec, func(in io.Reader) error {
		decoder := json.NewDecoder(in)
		for {
			var row archive.Row
			err := decoder.Decode(&row)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			if err := fn(row); err != nil {
				return err
			}
		}
	})
}

// showItem prints one object of a backup.
func (r *remote) showItem(ctx context.Context, out *outputFlag, location string, args []string, view showFlags) error {
	b, err := r.findBackup(ctx, location, args[0])
	if err != nil {
		return err
	}
	ref, err := r.findItem(ctx, b.Name, args[1], args[2], view.namespace)
	if err != nil {
		return err
	}
	raw, err := r.item(ctx, b.Name, ref)
	if err != nil {
		return err
	}
	return r.app.printItem(out, raw, view)
}

// item reads one object of a backup.
func (r *remote) item(ctx context.Context, backup string, ref *v1alpha1.ItemReference) ([]byte, error) {
	var raw []byte
	err := r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupItem, Name: backup, Item: ref}, func(in io.Reader) (err error) {
		raw, err = io.ReadAll(io.LimitReader(in, maxItemBytes))
		return err
	})
	return raw, err
}

// maxItemBytes bounds one object; etcd takes smaller ones.
const maxItemBytes = 64 << 20

// findItem asks the server which archived object is meant: a resource may be written in many ways, and only the backup knows which it has.
func (r *remote) findItem(ctx context.Context, backup, resource, name, namespace string) (*v1alpha1.ItemReference, error) {
	namespace, name, err := splitItem(name, namespace)
	if err != nil {
		return nil, err
	}
	s := v1alpha1.Selection{IncludedResources: []string{orElse(shortResource(resource), resource)}, FieldSelector: "metadata.name=" + name}
	if namespace != "" {
		s.IncludedNamespaces = []string{namespace}
	} else {
		s.IncludeClusterResources = new(true)
	}
	var ref *v1alpha1.ItemReference
	elsewhere := ""
	err = r.rows(ctx, backup, s, func(row archive.Row) error {
		switch {
		case row.Name != name:
		case row.Namespace != namespace:
			elsewhere = row.GroupResource()
		case ref == nil:
			ref = &v1alpha1.ItemReference{Group: row.Group, Resource: row.Resource, Namespace: row.Namespace, Name: row.Name}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case ref == nil && elsewhere != "" && namespace == "":
		return nil, usageError(fmt.Errorf("show object: %s are in namespaces, and none is named", elsewhere), "write NAMESPACE/"+name)
	case ref == nil:
		return nil, codeError(exitNotFound, fmt.Errorf("show object: the backup holds no %s", strings.TrimSpace(resource+" "+archive.Key(namespace, name))), "\"kedge backup items\" lists what it holds")
	}
	return ref, nil
}

// verifyBackup has the server check a backup.
func (r *remote) verifyBackup(ctx context.Context, out *outputFlag, location, name string, deep bool) error {
	b, err := r.findBackup(ctx, location, name)
	if err != nil {
		return err
	}
	r.app.ui.Note("The server checks backup %s.", b.Name)
	v := verification{Problems: []problem{}}
	if err := r.download(ctx, v1alpha1.DownloadRequestSpec{Target: v1alpha1.DownloadBackupVerify, Name: b.Name, Deep: deep}, decodeInto(&v)); err != nil {
		return fmt.Errorf("verify backup %s: %w", b.Name, err)
	}
	v.Backup, v.UID = orElse(v.Backup, b.Name), orElse(v.UID, b.Status.ArchiveUID)
	return r.app.printVerified(out, &v)
}
