package download

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/journal"
	"kedge.dev/kedge/server/location"
)

// Sources are where answers come from.
type Sources struct {
	// Client reads Kedge's objects and, not from a cache, Secrets.
	Client client.Client
	// Secrets lists Secrets, not from a cache.
	Secrets  client.Reader
	Registry *location.Registry
}

// write writes the whole answer to w, the same bytes whenever it is asked.
func (s *Sources) write(ctx context.Context, namespace string, spec *v1alpha1.DownloadRequestSpec, w io.Writer, report func(v1alpha1.Progress)) error {
	switch spec.Target {
	case v1alpha1.DownloadRestoreLog:
		return s.restoreLog(ctx, namespace, spec.Name, w)
	case v1alpha1.DownloadRestoreReport:
		return s.restoreReport(ctx, namespace, spec.Name, w)
	default:
	}
	place, entry, err := s.find(ctx, namespace, spec.Name)
	if err != nil {
		return err
	}
	if spec.Target == v1alpha1.DownloadBackupVerify {
		return verify(ctx, place, entry, spec.Deep, w, report)
	}
	reader, err := read(ctx, place, entry)
	if err != nil {
		return err
	}
	switch spec.Target {
	case v1alpha1.DownloadBackupLog:
		return reader.Log(ctx, w)
	case v1alpha1.DownloadBackupReport:
		archived, err := reader.Report(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(w).Encode(archived)
	case v1alpha1.DownloadBackupItems:
		var selected v1alpha1.Selection
		if spec.Selection != nil {
			selected = *spec.Selection
		}
		encoder := json.NewEncoder(w)
		return Rows(ctx, reader, selected, func(row archive.Row) error { return encoder.Encode(row) })
	case v1alpha1.DownloadBackupVolumes:
		return writeVolumes(ctx, reader, w)
	case v1alpha1.DownloadBackupItem:
		return writeItem(ctx, reader, spec.Item, w)
	default:
		return fmt.Errorf("spec.target: %q is not known", spec.Target)
	}
}

// find finds a backup by the name of its object, or by its name or uid in the default location where there is no object.
func (s *Sources) find(ctx context.Context, namespace, name string) (*location.Place, *archive.Entry, error) {
	var object v1alpha1.Backup
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &object)
	wanted, where := name, ""
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, nil, fmt.Errorf("find backup %s: %w", name, err)
	case object.Status.ArchiveUID == "" || !object.Status.Phase.Final():
		return nil, nil, fmt.Errorf("find backup %s: it is not done yet (%s)", name, object.Status.Phase)
	default:
		wanted, where = object.Status.ArchiveUID, object.Status.StorageLocation
	}
	place, err := s.Registry.Get(ctx, where)
	if err != nil {
		return nil, nil, err
	}
	entry, err := place.Archive.Find(ctx, wanted)
	if errors.Is(err, archive.ErrBackupNotFound) || errors.Is(err, plugins.ErrNotFound) {
		message := ""
		if object.Status.Message != "" {
			message = ": " + object.Status.Message
		}
		return nil, nil, fmt.Errorf("find backup %s: location %s holds nothing of it%s: %w", name, place.Object.Name, message, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find backup %s: %w", name, err)
	}
	return place, &entry, nil
}

// read opens a backup.
func read(ctx context.Context, place *location.Place, entry *archive.Entry) (*archive.Reader, error) {
	keys, err := place.Keys(ctx)
	if err != nil {
		return nil, err
	}
	trusted, err := place.TrustedKeys()
	if err != nil {
		return nil, err
	}
	reader, err := place.Archive.OpenBackup(ctx, *entry, keys, archive.ReadOptions{TrustedKeys: trusted})
	if err != nil {
		return nil, fmt.Errorf("open backup %s: %w", entry.Name, err)
	}
	return reader, nil
}

func writeItem(ctx context.Context, reader *archive.Reader, item *v1alpha1.ItemReference, w io.Writer) error {
	raw, err := reader.Item(ctx, plugins.Ref{Group: item.Group, Version: item.Version, Resource: item.Resource, Namespace: item.Namespace, Name: item.Name})
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

func writeVolumes(ctx context.Context, reader *archive.Reader, w io.Writer) error {
	rows, err := reader.Volumes(ctx)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(w)
	for i := range rows {
		if err := encoder.Encode(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// Verification is the answer of BackupVerify.
type Verification struct {
	Backup   string    `json:"backup"`
	UID      string    `json:"uid"`
	OK       bool      `json:"ok"`
	Deep     bool      `json:"deep"`
	Signed   bool      `json:"signed"`
	Items    int       `json:"items"`
	Bytes    int64     `json:"bytes"`
	Problems []Problem `json:"problems"`
}

// Problem is one thing wrong with a backup. Offset is -1 where there is none to name.
type Problem struct {
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Message string `json:"message"`
}

func verify(ctx context.Context, place *location.Place, entry *archive.Entry, deep bool, w io.Writer, report func(v1alpha1.Progress)) error {
	trusted, err := place.TrustedKeys()
	if err != nil {
		return err
	}
	var keys *archive.Keys
	if deep {
		if keys, err = place.Keys(ctx); err != nil {
			return err
		}
	}
	result, err := archive.Verify(ctx, place.Archive, *entry, keys, archive.VerifyOptions{
		Deep: deep, TrustedKeys: trusted,
		OnProgress: func(done, total int64) { report(v1alpha1.Progress{Stage: "verify", Done: done, Total: total}) },
	})
	if err == nil && deep {
		var more []archive.Problem
		more, err = volumes.Verify(ctx, place.Archive, *entry, keys, place.Repository)
		result.Problems = append(result.Problems, more...)
	}
	if err != nil {
		return err
	}
	v := Verification{Backup: entry.Name, UID: entry.UID, OK: result.OK(), Deep: result.Deep, Signed: result.Signed, Items: result.Items, Bytes: result.Bytes, Problems: []Problem{}}
	for _, p := range result.Problems {
		v.Problems = append(v.Problems, Problem{File: p.File, Offset: p.Offset, Message: p.Message})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// object reads a Restore; nil where there is none.
func (s *Sources) object(ctx context.Context, namespace, name string) (*v1alpha1.Restore, error) {
	var object v1alpha1.Restore
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &object)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // that there is none is no error here
	}
	if err != nil {
		return nil, fmt.Errorf("find restore %s: %w", name, err)
	}
	return &object, nil
}

func (s *Sources) store(object *v1alpha1.Restore) *journal.Store {
	return &journal.Store{Client: s.Client, Lister: s.Secrets, Owner: object}
}

// restoreLog writes the log of a restore. That of an attempt that a server did not survive is in that server's own log only.
func (s *Sources) restoreLog(ctx context.Context, namespace, name string, w io.Writer) error {
	object, err := s.object(ctx, namespace, name)
	if err != nil {
		return err
	}
	if object == nil {
		return fmt.Errorf("find restore %s: there is no Restore of that name: its log went with it; its report may be in the location", name)
	}
	return journal.CopyLog(ctx, s.store(object), w)
}

// restoreReport writes the report of a restore, of which only the default location may know any more.
func (s *Sources) restoreReport(ctx context.Context, namespace, name string, w io.Writer) error {
	object, err := s.object(ctx, namespace, name)
	if err != nil {
		return err
	}
	if object == nil {
		return s.archivedReport(ctx, name, w)
	}
	report, err := journal.ReadReport(ctx, s.store(object))
	if err != nil {
		return err
	}
	if report == nil {
		detail := "it has not come to its end"
		if object.Status.Phase.Final() {
			detail = "it ended before it wrote anything: " + object.Status.Message
		}
		return fmt.Errorf("find the report of restore %s: there is none: %s", name, detail)
	}
	return json.NewEncoder(w).Encode(report)
}

func (s *Sources) archivedReport(ctx context.Context, name string, w io.Writer) error {
	place, err := s.Registry.Get(ctx, "")
	if err != nil {
		return err
	}
	keys, err := place.Keys(ctx)
	if err != nil {
		return err
	}
	var last *restore.Report
	err = restore.Reports(ctx, place.Archive, keys, name, func(r *restore.Report) error {
		if last == nil || !r.Completed.Before(last.Completed) {
			last = r
		}
		return nil
	})
	if err != nil {
		return err
	}
	if last == nil {
		return fmt.Errorf("find restore %s: there is no Restore of that name, and no report of one in location %s", name, place.Object.Name)
	}
	return json.NewEncoder(w).Encode(last)
}
