//go:build unix

package failover_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/restore"
	"kedge.dev/kedge/server/journal"
)

// stored gives every key below a prefix with the number of its versions. In a bucket with versions nothing that was written is forgotten: a key
// with two was written twice, one that was deleted without all its versions leaves a marker.
func (w *world) stored(ctx context.Context, prefix string) (map[string]int, error) {
	out := map[string]int{}
	pages := s3.NewListObjectVersionsPaginator(w.bucket.Client(), &s3.ListObjectVersionsInput{Bucket: &w.bucket.Name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range page.Versions {
			out[*v.Key]++
		}
		for _, m := range page.DeleteMarkers {
			out["marker of "+*m.Key]++
		}
	}
	return out, nil
}

// writtenOnce says which keys have more than one version.
func writtenOnce(keys map[string]int) error {
	for key, n := range keys {
		if n != 1 || strings.HasPrefix(key, "marker of ") {
			return fmt.Errorf("%s has %d versions", key, n)
		}
	}
	return nil
}

// backupState is what there is of a backup, but for what differs from one to the next.
type backupState struct {
	Files  []string // below its folder; ATTEMPT is the record's
	Rows   []string
	Counts v1alpha1.Counts
	Phase  v1alpha1.Phase
	Names  []string // of Backup objects that show it beside its own
}

// backupState reads a backup from the bucket and the API. remains are the folders of attempts that never became one.
func (w *world) backupState(ctx context.Context, name string, uid types.UID) (state backupState, remains []string, err error) {
	folder := path.Join("backups", name, string(uid)) + "/"
	keys, err := w.stored(ctx, folder)
	if err == nil {
		err = writtenOnce(keys)
	}
	if err != nil {
		return state, nil, err
	}
	entry, err := w.archive.Find(ctx, string(uid))
	if err == nil {
		err = entry.Err
	}
	if err != nil {
		return state, nil, err
	}
	if state.Rows, err = w.rows(ctx, entry); err != nil {
		return state, nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		file := strings.TrimPrefix(key, folder)
		attempt, inside, nested := strings.Cut(file, "/")
		switch {
		case nested && attempt == entry.Record.Attempt:
			state.Files = append(state.Files, "ATTEMPT/"+inside)
		case nested && len(attempt) == len(entry.Record.Attempt):
			remains = append(remains, attempt)
		default:
			state.Files = append(state.Files, file)
		}
	}
	slices.Sort(state.Files)
	var b v1alpha1.Backup
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &b); err != nil {
		return state, nil, err
	}
	if b.Status.ArchiveUID != string(uid) || b.Status.Counts.Items != entry.Record.Counts.Items {
		return state, nil, fmt.Errorf("the status of %s says %+v, the record %+v", name, b.Status, entry.Record.Counts)
	}
	state.Counts, state.Phase, state.Names = b.Status.Counts, b.Status.Phase, w.history.showing(string(uid))
	return state, slices.Compact(remains), w.events(ctx, uid, string(v1alpha1.PhaseCompleted))
}

// rows are the objects of a backup, whose every byte is checked.
func (w *world) rows(ctx context.Context, entry archive.Entry) ([]string, error) {
	verified, err := archive.Verify(ctx, w.archive, entry, w.keys, archive.VerifyOptions{Deep: true})
	if err != nil {
		return nil, err
	}
	if !verified.OK() {
		return nil, fmt.Errorf("it is not whole: %v", verified.Problems)
	}
	reader, err := w.archive.OpenBackup(ctx, entry, w.keys, archive.ReadOptions{})
	if err != nil {
		return nil, err
	}
	var rows []string
	err = reader.Rows(ctx, nil, func(_ int, row archive.Row) error {
		rows = append(rows, row.String()+" "+row.SHA256)
		return nil
	})
	return rows, err
}

// events says what is wrong with the events that an object has: at most one tells of an end, and of the right one.
func (w *world) events(ctx context.Context, uid types.UID, want string) error {
	var list eventsv1.EventList
	if err := w.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return err
	}
	ends := 0
	for i := range list.Items {
		e := &list.Items[i]
		if e.Regarding.UID != uid || !v1alpha1.Phase(e.Reason).Final() {
			continue
		}
		ends++
		if e.Reason != want || ends > 1 || e.Series != nil {
			return fmt.Errorf("event %d of %s: %s: %s (series %v)", ends, e.Regarding.Name, e.Reason, e.Note, e.Series)
		}
	}
	return nil
}

// restoreState is what a restore made and left.
type restoreState struct {
	Objects map[string]map[string]any
	Counts  v1alpha1.RestoreCounts
	Phase   v1alpha1.Phase
	Entries []string       // of the report
	Secrets map[string]int // by part; the log is not counted, for each attempt writes one
	Files   []string       // in the bucket
}

// restoreState reads what became of a restore from the API and the bucket.
func (w *world) restoreState(ctx context.Context, name string, uid types.UID) (state restoreState, err error) {
	var o v1alpha1.Restore
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &o); err != nil {
		return state, err
	}
	state.Counts, state.Phase = o.Status.Counts, o.Status.Phase
	report, err := journal.ReadReport(ctx, &journal.Store{Client: w.client, Lister: w.client, Owner: &o})
	if err != nil || report == nil {
		return state, fmt.Errorf("read the report of %s: %w", name, err)
	}
	// The account "default" is made by whoever is first, the restore or a controller.
	state.Counts.Created, state.Counts.Unchanged = state.Counts.Created+state.Counts.Unchanged, 0
	for _, e := range report.Entries {
		if e.Ref.Resource == "serviceaccounts" && e.Ref.Name == "default" && e.Outcome == restore.Unchanged {
			continue
		}
		state.Entries = append(state.Entries, e.Ref.String()+" "+e.Outcome.String()+" "+string(e.Reason))
	}
	slices.Sort(state.Entries)
	if state.Secrets, err = w.parts(ctx, uid); err != nil {
		return state, err
	}
	folder := path.Join("restores", name, string(uid)) + "/"
	keys, err := w.stored(ctx, folder)
	if err == nil {
		err = writtenOnce(keys)
	}
	if err != nil {
		return state, err
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		state.Files = append(state.Files, strings.TrimPrefix(key, folder))
	}
	if state.Objects, err = w.objects(ctx, name); err != nil {
		return state, err
	}
	return state, w.events(ctx, uid, string(v1alpha1.PhaseCompleted))
}

// parts counts what is kept of a restore in Secrets.
func (w *world) parts(ctx context.Context, uid types.UID) (map[string]int, error) {
	var list corev1.SecretList
	if err := w.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{journal.RestoreLabel: string(uid)}); err != nil {
		return nil, err
	}
	out := map[string]int{}
	for i := range list.Items {
		if part := list.Items[i].Labels[journal.PartLabel]; part != "log" {
			out[part]++
		}
	}
	return out, nil
}

// kinds are those that manifests makes in a namespace.
var kinds = []schema.GroupVersionKind{
	{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "ServiceAccount"}, {Version: "v1", Kind: "Service"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
	{Group: "apps", Version: "v1", Kind: "Deployment"},
}

// objects are what is in the lost namespace, without what the API server chooses anew and what controllers make.
func (w *world) objects(ctx context.Context, name string) (map[string]map[string]any, error) {
	out := map[string]map[string]any{}
	for _, kind := range kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind)
		if err := w.client.List(ctx, list, client.InNamespace(lost)); err != nil {
			return nil, err
		}
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetName() == "default" || o.GetName() == "kube-root-ca.crt" {
				continue
			}
			var managers []string
			for _, m := range o.GetManagedFields() {
				if m.Manager != "kube-controller-manager" {
					managers = append(managers, strings.ReplaceAll(m.Manager, name, "RESTORE")+" "+string(m.Operation)+" "+m.Subresource)
				}
			}
			annotations := o.GetAnnotations()
			delete(annotations, "deployment.kubernetes.io/revision")
			o.SetAnnotations(annotations)
			slices.Sort(managers)
			for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			delete(o.Object, "status")
			o.Object["managers"] = strings.Join(managers, "; ")
			out[kind.Kind+" "+o.GetName()] = o.Object
		}
	}
	return out, nil
}

// deleted says what is left of a backup that was deleted.
func (w *world) deleted(ctx context.Context, name string, uid types.UID) error {
	keys, err := w.stored(ctx, "")
	if err != nil {
		return err
	}
	for key := range keys {
		if strings.Contains(key, string(uid)) {
			return fmt.Errorf("in the bucket is %s", key)
		}
	}
	err = w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &v1alpha1.Backup{})
	if !apierrors.IsNotFound(err) {
		return errors.Join(errors.New("the Backup object is there"), err)
	}
	if names := w.history.showing(string(uid)); len(names) > 0 {
		return fmt.Errorf("it was shown again, as %v", names)
	}
	return nil
}
