package plugins

import (
	"context"
	"errors"
)

// Level is how a Finding came out.
type Level string

// The levels of a Finding.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning"
	LevelFailed  Level = "failed"
)

// Finding is one thing that a check looked at.
type Finding struct {
	// Name says what was looked at, for people and programs alike: "read", "conditional-write", "clock".
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Detail is what was found, one sentence.
	Detail string `json:"detail"`
	// Remedy is what to do about it, one sentence in the imperative; empty where all is well.
	Remedy string `json:"remedy,omitempty"`
}

// NewFinding is good news, in the words of detail, where err is nil, and else a failure in those of err.
func NewFinding(name, detail string, err error) Finding {
	if err == nil {
		return Finding{Name: name, Level: LevelOK, Detail: detail}
	}
	f := Finding{Name: name, Level: LevelFailed, Detail: err.Error()}
	if known, ok := errors.AsType[*StoreError](err); ok {
		bare := *known
		bare.Remedy = ""
		f.Detail, f.Remedy = bare.Error(), known.Remedy
	}
	return f
}

// CheckOptions say how far a check may go.
type CheckOptions struct {
	// ReadOnly leaves out everything that writes.
	ReadOnly bool
	// ObjectLock asks for what retention needs.
	ObjectLock bool
}

// Checker is a store that can be examined: whether it is there, keeps what it is given, refuses to overwrite, and agrees on the time.
type Checker interface {
	// Check looks at one thing after the other and returns what it found, in a fixed order; it goes on after a failure where that
	// makes sense. What it writes is under "doctor/", and is removed again.
	Check(ctx context.Context, opts CheckOptions) []Finding
}

// As finds the first of a store and of the stores that it decorates that is a T. A decorator shows its inner store by a
// method Unwrap() ObjectStore.
func As[T any](store ObjectStore) (T, bool) {
	for store != nil {
		if found, ok := store.(T); ok {
			return found, true
		}
		decorator, ok := store.(interface{ Unwrap() ObjectStore })
		if !ok {
			break
		}
		store = decorator.Unwrap()
	}
	var none T
	return none, false
}
