// Package repository keeps volume copies in a bucket, in kopia's repository format: content addressed, deduplicated, compressed, encrypted.
//
// kopia is used as a library over a plugins.ObjectStore, so that everything a store's decorators do (bounds, attempts, measurements) holds
// for volumes too. docs/volume-repository.md says what lies where, and how kopia's own command line opens it.
package repository

import "errors"

// Names below a location. Nothing but kopia's own blobs is below Folder, so that kopia's command line finds there what it expects.
const (
	// Folder holds the repository's blobs.
	Folder = "volumes"
	// KeyFolder holds the repository's password, sealed: <n>.age, the highest number first.
	KeyFolder = "volumes.key"
)

// Owner is who writes to the repository and owns its maintenance, in kopia's words: user@host. kopia's command line runs maintenance by
// itself only where it is the owner, so it never competes with ours.
const (
	ownerUser = "kedge"
	ownerHost = "kedge"
)

// Errors that callers test for, with errors.Is.
var (
	// ErrNoRepository means that the location has no repository (yet).
	ErrNoRepository = errors.New("no volume repository here")
	// ErrNoPassword means that no sealed password opens, or that there is none.
	ErrNoPassword = errors.New("no password of the volume repository can be opened")
	// ErrWrongPassword means that the repository was made with another password.
	ErrWrongPassword = errors.New("wrong password of the volume repository")
	// ErrNoCopy means that the repository has no such copy.
	ErrNoCopy = errors.New("no such volume copy")
)
