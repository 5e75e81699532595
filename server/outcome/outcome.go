// Package outcome says what the error of a reconcile step means: that a person must act, that it is too early, or that it may go better
// next time.
package outcome

import (
	"context"
	"errors"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"kedge.dev/kedge/plugins"
)

// Kind is what is to be done about an error.
type Kind int

// The kinds. Whatever is not marked is a Retry.
const (
	// Retry tries again, later and later.
	Retry Kind = iota
	// IsStalled waits for a change of the object, or of what it names: trying again would meet the same.
	IsStalled
	// IsWaiting looks again after a known time.
	IsWaiting
)

// ReasonRetrying is the reason of errors that nobody gave one.
const ReasonRetrying = "Retrying"

// Error is an error with its kind. Its text is the cause's.
type Error struct {
	Kind   Kind
	Reason string        // of the condition, in CamelCase
	After  time.Duration // of IsWaiting
	Err    error
}

// Error is the cause's text.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Stalled marks an error that only a person can do something about.
func Stalled(reason string, err error) error {
	return &Error{Kind: IsStalled, Reason: reason, Err: err}
}

// Waiting marks an error that is expected to be over after a while.
func Waiting(reason string, after time.Duration, err error) error {
	return &Error{Kind: IsWaiting, Reason: reason, After: after, Err: err}
}

// Of reads the mark of an error. The object store's permanent errors are stalled, looked at again from time to time, because what
// they complain about (rights, a bucket) is changed where no event tells of it.
func Of(err error) Error {
	if own, ok := errors.AsType[*Error](err); ok {
		return Error{Kind: own.Kind, Reason: own.Reason, After: own.After, Err: err}
	}
	switch {
	case errors.Is(err, plugins.ErrAccess):
		return Error{Kind: IsWaiting, Reason: "AccessDenied", After: outsideAgain, Err: err}
	case errors.Is(err, plugins.ErrConfig):
		return Error{Kind: IsWaiting, Reason: "Misconfigured", After: outsideAgain, Err: err}
	}
	return Error{Kind: Retry, Reason: ReasonRetrying, Err: err}
}

// outsideAgain is how often a fault outside of the cluster is looked at again.
const outsideAgain = time.Minute

// Result is what a Reconcile returns for the error of its steps; nil is a success. A cancelled context is no failure of the object.
func Result(err error) (ctrl.Result, error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return ctrl.Result{}, nil
	}
	switch o := Of(err); o.Kind {
	case IsStalled:
		return ctrl.Result{}, nil
	case IsWaiting:
		return ctrl.Result{RequeueAfter: o.After}, nil
	case Retry:
	}
	return ctrl.Result{}, err
}

// Stopped says whether the server is stopping. What a step returned then says nothing of its object, and nothing is to be written.
func Stopped(ctx context.Context) bool { return ctx.Err() != nil }
