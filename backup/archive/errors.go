package archive

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers test for, with errors.Is.
var (
	// ErrNotALocation: the bucket holds no kedge.json.
	ErrNotALocation = errors.New("not a backup location: kedge.json is missing (create it with \"kedge location create\", or check bucket and prefix)")
	// ErrInitialized: somebody made the bucket a location already.
	ErrInitialized = errors.New("the location exists already")
	// ErrNewerFormat: a newer Kedge wrote this.
	ErrNewerFormat = errors.New("written in a newer format: upgrade kedge")
	// ErrBackupNotFound: no backup has that name or uid.
	ErrBackupNotFound = errors.New("no such backup")
	// ErrItemNotFound: the backup does not hold that object.
	ErrItemNotFound = errors.New("no such object in the backup")
	// ErrElsewhere: the backup has data outside of its location, and nobody here can remove it.
	ErrElsewhere = errors.New("the backup has data elsewhere")
	// ErrSealed: the backup's uid has a commit record already, so there is nothing to write.
	ErrSealed = errors.New("the backup is sealed already")
	// ErrLostRace: another writer sealed the same backup first; its archive is the one that counts.
	ErrLostRace = errors.New("another writer sealed this backup first")
	// ErrUncertain: the reply to the commit was lost and the record could not be read back. The archive may be there.
	ErrUncertain = errors.New("the outcome of the commit is not known: look whether the backup exists before trying again")
	// ErrDeleting: a deletion of the backup has begun.
	ErrDeleting = errors.New("the backup is being deleted")
	// ErrHeld: the newest expiry file holds the backup.
	ErrHeld = errors.New("the backup is held (lift the hold, or force the deletion)")
	// ErrHoldUnknown: the record or the newest expiry file cannot be read, so that nobody knows of a hold.
	ErrHoldUnknown = errors.New("whether the backup is held is not known, as it cannot be read (read it again, or force the deletion)")
	// ErrNoKey: none of the given keys opens the location.
	ErrNoKey = errors.New("no given key opens this location")
	// ErrKeyMismatch: the bucket names another public key than the one that was pinned, or that a backup was written to.
	ErrKeyMismatch = errors.New("public keys differ")
	// ErrSignature: a signature is missing, broken, or not by a trusted key.
	ErrSignature = errors.New("signature refused")
	// ErrTooLarge: an item is larger than MaxItem.
	ErrTooLarge = errors.New("larger than an archive takes")
	// ErrOutOfOrder: a sorted section was given a key below the one before.
	ErrOutOfOrder = errors.New("keys arrive out of order")
	// ErrDuplicate: a section was given the same key twice.
	ErrDuplicate = errors.New("the same object twice")
	// ErrInvalid: a caller's argument cannot be taken.
	ErrInvalid = errors.New("invalid argument")
)

// DamageError says that bytes in the bucket are not what was written: which backup, which file, where, and what its
// reader can do.
type DamageError struct {
	Backup string // "name/uid"; empty for files of the location itself
	File   string // key relative to the attempt's folder, or to the location
	Offset int64  // byte in the decrypted, still compressed file; -1 where there is none to name
	Detail string
	Remedy string // empty: the remedy that fits most
	Err    error  // the cause, if it is an error of its own
}

// Error says what is damaged and what to do.
func (e *DamageError) Error() string {
	var b strings.Builder
	if e.Backup != "" {
		fmt.Fprintf(&b, "backup %s: ", e.Backup)
	}
	fmt.Fprintf(&b, "file %s", e.File)
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", e.Offset)
	}
	fmt.Fprintf(&b, " is damaged: %s", e.Detail)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	remedy := e.Remedy
	if remedy == "" {
		remedy = "run \"kedge backup verify --deep\" to see how far it goes, and use another backup or an undamaged copy of the bucket"
	}
	fmt.Fprintf(&b, " (%s)", remedy)
	return b.String()
}

// Unwrap gives the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// AmbiguousError says that a name stands for several backups.
type AmbiguousError struct {
	Name string
	UIDs []string
}

// Error names the uids to choose from.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%d backups are called %q: name one by its uid: %s", len(e.UIDs), e.Name, strings.Join(e.UIDs, ", "))
}

// NoKeyError says which kinds of key would have opened the location. It is an ErrNoKey.
type NoKeyError struct {
	Store  string
	Wanted []string // "an age key (X25519)", "KMS key arn:…"
	Err    error    // what the key service said, if it was asked
}

// Error names what would help.
func (e *NoKeyError) Error() string {
	msg := fmt.Sprintf("unlock %s: %v", e.Store, ErrNoKey)
	if len(e.Wanted) > 0 {
		msg += "; it opens with " + strings.Join(e.Wanted, ", or ")
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap makes it an ErrNoKey, and gives the cause.
func (e *NoKeyError) Unwrap() []error { return []error{ErrNoKey, e.Err} }
