package location

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/server/status"
)

// NoteCondition writes a condition of a location, of which object is a copy; nil takes the condition of that kind away. What led to it may have
// taken long, so the object is read again.
func NoteCondition(ctx context.Context, c client.Client, object *v1alpha1.BackupStorageLocation, now func() time.Time, kind string, condition *status.Condition) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var latest v1alpha1.BackupStorageLocation
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), &latest); err != nil {
			return err
		}
		before := latest.DeepCopy()
		if condition == nil {
			meta.RemoveStatusCondition(&latest.Status.Conditions, kind)
		} else {
			status.Set(&latest.Status.Conditions, now(), object.Generation, *condition)
		}
		return status.Patch(ctx, c, &latest, before)
	})
	return client.IgnoreNotFound(err)
}
