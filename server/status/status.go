// Package status writes what controllers find out: one conditional patch of the status, and conditions.
package status

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
