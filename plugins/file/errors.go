package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"kedge.dev/kedge/plugins"
)

var errNoLinks = fmt.Errorf("%w: the file system has no hard links", plugins.ErrConfig)

// sourceError is the failure of the reader that a Put was given.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read what is to be stored: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// gone says whether err means that there is nothing at a path: not there, or what should be a folder on the way is a file.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// fail makes err the error of an operation: with a sentinel of package plugins and a remedy where they are known.
func (s *Store) fail(op, key string, err error) error {
	e := &plugins.StoreError{Op: op, Store: s.String(), Key: key, Err: err}
	var source *sourceError
	switch {
	case errors.As(err, &source): // the store has no part in it
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, plugins.ErrInvalidKey):
	case errors.Is(err, errNoLinks):
		e.Remedy = "keep the location on a file system with hard links, which is how an object is created at most once"
	case op == "open" && !errors.Is(err, fs.ErrPermission):
		e.Err = fmt.Errorf("%w: %w", plugins.ErrConfig, err)
		e.Remedy = "name a folder that exists, or create it"
	case gone(err) && (op == "get" || op == "stat"):
		e.Err = plugins.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		e.Err = fmt.Errorf("%w: %w", plugins.ErrAccess, err)
		e.Remedy = "give the user that runs kedge the right to read and write the folder"
	case errors.Is(err, syscall.EROFS):
		e.Err = fmt.Errorf("%w: %w", plugins.ErrAccess, err)
		e.Remedy = "mount the file system for writing, or make the location read-only"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Remedy = "free some space, or delete old backups"
	}
	return e
}
