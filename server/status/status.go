// Package status writes what controllers find out: one conditional patch of the status, and conditions.
package status

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/server/outcome"
)

// Ready is the condition that every kind has.
const Ready = "Ready"

// maxMessage bounds the message of a condition, which may quote errors of servers; the API allows 32 KiB.
const maxMessage = 2000

// Patch writes the status of object where it differs from before, its copy as it was read. The write is refused with a conflict where
// anybody changed the object meanwhile: a server that has lost its lease cannot overwrite what its successor wrote.
func Patch(ctx context.Context, c client.Client, object, before client.Object) error {
	if equality.Semantic.DeepEqual(object, before) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := c.Status().Patch(ctx, object, patch); err != nil {
		return fmt.Errorf("write the status of %s: %w", client.ObjectKeyFromObject(object), err)
	}
	return nil
}

// Condition is one condition about to be set.
type Condition struct {
	Type    string
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// Set puts a condition among the others, for a generation of the spec; its time of transition moves only with its status.
func Set(conditions *[]metav1.Condition, now time.Time, generation int64, c Condition) {
	if runes := []rune(c.Message); len(runes) > maxMessage {
		c.Message = string(runes[:maxMessage]) + "…"
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
}

// Failed is the condition for the error of a step: False where somebody must act, Unknown where it may go better next time.
func Failed(kind string, err error) Condition {
	o := outcome.Of(err)
	c := Condition{Type: kind, Status: metav1.ConditionFalse, Reason: o.Reason, Message: err.Error()}
	if o.Kind == outcome.Retry {
		c.Status = metav1.ConditionUnknown
	}
	return c
}

// Refused gives how long something is refused: since is when it was first, and is set where this is the first time.
func Refused(since **metav1.Time, now time.Time) time.Duration {
	if *since == nil {
		first := metav1.NewTime(now)
		*since = &first
	}
	return now.Sub((*since).Time)
}

// lostRace is the wait after somebody else wrote an object: the cache will have it then.
const lostRace = 200 * time.Millisecond

// Lost is what a Reconcile returns for the error of Patch: where another write came first it looks again soon, and where the object is gone there is
// nothing to do.
func Lost(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: lostRace}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// changeAgain are the waits of Change: a cache may be behind what was just written.
var changeAgain = wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Steps: 10, Cap: 2 * time.Second}

// Change reads an object and writes what change makes of its status, again where anybody else wrote it meanwhile. It is refused where an object of
// another uid has the name by now.
func Change[O any, P interface {
	*O
	client.Object
}](ctx context.Context, c client.Client, key client.ObjectKey, uid types.UID, change func(P)) error {
	err := wait.ExponentialBackoffWithContext(ctx, changeAgain, func(ctx context.Context) (bool, error) {
		object := P(new(O))
		if err := c.Get(ctx, key, object); err != nil {
			return false, fmt.Errorf("read %s: %w", key, err)
		}
		if object.GetUID() != uid {
			return false, fmt.Errorf("write the status of %s: an object of another uid (%s, not %s) has its name by now", key, object.GetUID(), uid)
		}
		before, _ := object.DeepCopyObject().(client.Object)
		change(object)
		err := Patch(ctx, c, object, before)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("write the status of %s: others write it each time: %w", key, err)
	}
	return err
}
