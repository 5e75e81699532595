//go:build unix

package failover_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
)

// operation is one sort of the servers' work.
type operation struct {
	name string
	end  string // the phase in which it ends
	// prepare makes what it needs, and begin asks for it by an object.
	prepare func(t *testing.T, name string)
	begin   func(t *testing.T, name string) client.Object
	// undisturbed remembers what one that nobody disturbed comes to; check says what is wrong with another.
	undisturbed func(t *testing.T, name string, uid types.UID)
	check       func(ctx context.Context, name string, uid types.UID) error
}

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }

func (w *world) operations() []*operation {
	return []*operation{w.backups(), w.restores(), w.deletions()}
}

// backups are backups of the namespace that stays.
func (w *world) backups() *operation {
	var want backupState
	return &operation{
		name: "backup", end: string(v1alpha1.PhaseCompleted),
		prepare: func(*testing.T, string) {},
		begin: func(t *testing.T, name string) client.Object {
			t.Helper()
			b := &v1alpha1.Backup{ObjectMeta: meta(name), Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{kept}}}}
			w.create(t, b)
			return b
		},
		undisturbed: func(t *testing.T, name string, uid types.UID) {
			t.Helper()
			state, remains, err := w.backupState(t.Context(), name, uid)
			if err != nil || len(remains) > 0 || len(state.Rows) < 100 {
				t.Fatalf("undisturbed: %+v, remains %v, %v", state, remains, err)
			}
			want = state
		},
		check: func(ctx context.Context, name string, uid types.UID) error {
			state, _, err := w.backupState(ctx, name, uid)
			if err != nil {
				return err
			}
			return differ(cmp.Diff(want, state))
		},
	}
}

func differ(diff string) error {
	if diff == "" {
		return nil
	}
	return fmt.Errorf("-undisturbed +this:\n%s", diff)
}

// restores are restores of the namespace that is lost each time.
func (w *world) restores() *operation {
	var want restoreState
	return &operation{
		name: "restore", end: string(v1alpha1.PhaseCompleted),
		prepare: func(t *testing.T, _ string) {
			t.Helper()
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: lost}}
			if err := w.client.Delete(t.Context(), ns); client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			until(t, "the namespace is gone", func(ctx context.Context) (bool, any) {
				err := w.client.Get(ctx, client.ObjectKeyFromObject(ns), &corev1.Namespace{})
				return apierrors.IsNotFound(err), err
			})
		},
		begin: func(t *testing.T, name string) client.Object {
			t.Helper()
			o := &v1alpha1.Restore{ObjectMeta: meta(name)}
			o.Spec.BackupName, o.Spec.IncludedNamespaces = source, []string{lost}
			w.create(t, o)
			return o
		},
		undisturbed: func(t *testing.T, name string, uid types.UID) {
			t.Helper()
			state, err := w.restoreState(t.Context(), name, uid)
			if err != nil || len(state.Objects) < 100 || state.Counts.Failed > 0 || state.Secrets["report"] != 1 || len(state.Files) != 1 {
				t.Fatalf("undisturbed: %d objects, %+v, %v, %v, %v", len(state.Objects), state.Counts, state.Secrets, state.Files, err)
			}
			want = state
		},
		check: func(ctx context.Context, name string, uid types.UID) error {
			state, err := w.restoreState(ctx, name, uid)
			if err != nil {
				return err
			}
			return differ(cmp.Diff(want, state))
		},
	}
}

// deletions are deletions of a backup that is made for each.
func (w *world) deletions() *operation {
	doomed := map[string]types.UID{} // by the request's name
	return &operation{
		name: "deletion", end: string(v1alpha1.RequestDone),
		prepare: func(t *testing.T, name string) {
			t.Helper()
			b := &v1alpha1.Backup{ObjectMeta: meta(name), Spec: v1alpha1.BackupSpec{Selection: v1alpha1.Selection{IncludedNamespaces: []string{kept}}}}
			w.create(t, b)
			until(t, "the backup to delete is made", func(context.Context) (bool, any) {
				l := w.history.of(b.UID)
				return l.final, fmt.Sprintf("%q", l.phases)
			})
			doomed[name] = b.UID
		},
		begin: func(t *testing.T, name string) client.Object {
			t.Helper()
			o := &v1alpha1.DeleteBackupRequest{ObjectMeta: meta(name)}
			o.Spec.BackupName, o.Spec.BackupUID = name, string(doomed[name])
			w.create(t, o)
			return o
		},
		undisturbed: func(t *testing.T, name string, _ types.UID) {
			t.Helper()
			if err := w.deleted(t.Context(), name, doomed[name]); err != nil {
				t.Fatalf("undisturbed: %v", err)
			}
		},
		check: func(ctx context.Context, name string, _ types.UID) error { return w.deleted(ctx, name, doomed[name]) },
	}
}
