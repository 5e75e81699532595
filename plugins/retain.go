package plugins

import (
	"context"
	"fmt"
	"time"
)

// Retainer is a store that can protect for longer what it holds already.
type Retainer interface {
	// Retain asks the store to refuse changes and removal of the object under key until then, as PutOptions.RetainUntil does for a new
	// one. It never shortens: an object that is protected for longer stays so, and the call succeeds, so it may be repeated. The error
	// wraps ErrNotFound where there is no object, and ErrUnsupported where the store cannot retain.
	Retain(ctx context.Context, key string, until time.Time) error
}

// Retain has the store that store decorates retain an object. The error wraps ErrUnsupported where none can.
func Retain(ctx context.Context, store ObjectStore, key string, until time.Time) error {
	if retainer, ok := As[Retainer](store); ok {
		return retainer.Retain(ctx, key, until)
	}
	err := CheckKey(key)
	if err == nil {
		err = ErrUnsupported
	}
	return &StoreError{Op: "retain", Store: store.String(), Key: key, Err: err}
}

// RetainedError is an ErrRetained that knows when the protection ends.
type RetainedError struct{ Until time.Time }

// Error says until when.
func (e *RetainedError) Error() string {
	return fmt.Sprintf("%v until %s", ErrRetained, e.Until.UTC().Format(time.RFC3339))
}

// Unwrap makes it an ErrRetained.
func (e *RetainedError) Unwrap() error { return ErrRetained }
