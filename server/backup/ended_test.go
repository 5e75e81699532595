package backup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/backup/archive"
	"kedge.dev/kedge/backup/volumes"
	"kedge.dev/kedge/server/pool"
)

// TestCancelledFrozen cancels a backup whose post hook failed: its message must not say that nothing stays.
func TestCancelledFrozen(t *testing.T) {
	r := &Reconciler{Now: time.Now}
	for _, c := range []struct {
		err  error
		want string
	}{
		{pool.ErrCancelled, "nothing of it stays."},
		{errors.Join(pool.ErrCancelled, &volumes.FrozenError{Hooks: []string{"x in pod shop/db: exit code 1"}}), "pods may still be frozen, run their post hooks by hand with kubectl exec: x in pod shop/db: exit code 1"},
	} {
		b := &v1alpha1.Backup{}
		if err := r.ended(b, pool.State[*archive.Record]{Phase: pool.Ended, Err: c.err}); err != nil {
			t.Fatal(err)
		}
		if b.Status.Phase != v1alpha1.PhaseCancelled || !strings.HasSuffix(b.Status.Message, c.want) {
			t.Errorf("%v: %+v", c.err, b.Status)
		}
	}
}
