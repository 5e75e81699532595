package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// ObjectStore keeps named, immutable sequences of bytes: a bucket with a prefix, or a folder.
//
// Keys are relative, slash-separated, at most 900 bytes of UTF-8 without control characters and backslashes, of segments of at
// most 255 bytes that are neither empty nor "." nor ".." and do not begin with ".kedge-". A store refuses any other key with
// ErrInvalidKey before it does anything; CheckKey is that rule. A key is never also the folder of another ("a" and "a/b"): stores
// that are file systems underneath cannot hold both, and refuse the second with ErrInvalidKey.
//
// An object appears whole or not at all: a Put that fails, is cancelled or whose process dies leaves nothing that
// another call can see under that key. Once Put has returned, every later call by anyone sees the object, and it outlives a crash
// of the machine that the store runs on.
//
// Every method may be called from many goroutines, obeys its context promptly, and returns errors that wrap one of
// the sentinels of this package where one fits (after a cancel: the context's error), and say which operation on which key failed.
//
// What a store can do beyond this is another interface of this package, such as Checker and Retainer; As finds it through decorators.
type ObjectStore interface {
	// Put stores all that r yields under key. It streams: memory does not grow with the size.
	// With PutOptions.IfNoneMatch an existing object is left as it is and the error wraps ErrExists; of any number of
	// such calls at once exactly one succeeds. A caller that lost the reply to its own call sees ErrExists too, and
	// tells by reading back. Without it an existing object is replaced, as one step.
	// An error returned by r is returned (wrapped), and nothing is stored. r is read by one goroutine at a time and never after Put
	// has returned; a Read that blocks is waited for, so whoever cancels ctx must see to it that r returns too.
	Put(ctx context.Context, key string, r io.Reader, opts PutOptions) (ObjectInfo, error)

	// Get opens length bytes from offset on; a negative length means to the end. The error wraps ErrNotFound where
	// there is no object, and ErrRange where offset is negative or beyond its end (offset equal to its size gives no bytes). The
	// reader yields exactly what was asked for or what there is; a connection that ends early is an error, never a
	// short read that looks like the end. All bytes of one reader are of one object, though it be replaced meanwhile. ctx governs
	// the reader too, until it is closed. The reader is for one goroutine, and its Close may be called more than once.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Stat describes one object; the error wraps ErrNotFound where there is none.
	Stat(ctx context.Context, key string) (ObjectInfo, error)

	// List calls fn for every object whose key starts with prefix (a plain string prefix; "" means all), in the byte
	// order of the keys, and stops at fn's first error, which it returns as it is. It pages; memory does not grow with the number
	// of objects (in a file system it does with that of one directory). Objects that come or go meanwhile may be in it or not;
	// each of the others is in it exactly once. fn may call the store.
	List(ctx context.Context, prefix string, fn func(ObjectInfo) error) error

	// Delete removes the object and, in a versioned store, every version of it. Removing what is not there succeeds.
	// What retention protects stays, and the error wraps ErrRetained; it is a *RetainedError where the end is known.
	Delete(ctx context.Context, key string) error

	// String names the store for messages, without secrets: "s3://bucket/prefix", "file:///srv/backups".
	String() string
}

// PutOptions says how an object is stored.
type PutOptions struct {
	// IfNoneMatch refuses to replace an existing object.
	IfNoneMatch bool
	// RetainUntil asks the store to refuse changes and removal until then (S3 Object Lock, compliance as the bucket
	// allows). The zero time asks for nothing. A store that cannot retain refuses the Put with ErrUnsupported.
	RetainUntil time.Time
}

// ObjectInfo describes one stored object.
type ObjectInfo struct {
	Key          string
	Size         int64
	LastModified time.Time
}

// Errors that callers of an ObjectStore test for, with errors.Is.
var (
	ErrNotFound    = errors.New("no such object")
	ErrExists      = errors.New("object exists already")
	ErrRange       = errors.New("range is beyond the end of the object")
	ErrRetained    = errors.New("object is protected by retention")
	ErrInvalidKey  = errors.New("invalid object key")
	ErrUnsupported = errors.New("not supported by this store")
	// ErrAccess means that the store refused who asked: wrong credentials, missing rights, a clock that is off.
	ErrAccess = errors.New("access denied")
	// ErrConfig means that the store cannot be what was configured: no such bucket, another region, not an S3 endpoint.
	ErrConfig = errors.New("location is misconfigured")
)

// Permanent says whether err is one that a later attempt would meet again, which is so of all that wrap a sentinel of this package but
// ErrVolumeQuota: room may be made.
func Permanent(err error) bool {
	for _, sentinel := range []error{
		ErrNotFound, ErrExists, ErrRange, ErrRetained, ErrInvalidKey, ErrUnsupported, ErrAccess, ErrConfig,
		ErrVolumeGone, ErrNoBase,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// StoreError is a refusal or failure of a store, with what its reader can do about it.
type StoreError struct {
	Op     string // "put", "get", "stat", "list", "delete", "retain", "open"
	Store  string // ObjectStore.String()
	Key    string // empty where the operation has none
	Err    error  // wraps one of the sentinels where one fits
	Remedy string // one sentence in the imperative; empty where nothing better than trying again is known
}

// Error says what failed, on what, why, and what to do.
func (e *StoreError) Error() string {
	where := e.Store
	if e.Key != "" {
		where += "/" + e.Key
	}
	msg := fmt.Sprintf("%s %s: %v", e.Op, where, e.Err)
	if e.Remedy != "" {
		msg += " (" + e.Remedy + ")"
	}
	return msg
}

// Unwrap gives the cause.
func (e *StoreError) Unwrap() error { return e.Err }
