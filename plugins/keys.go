package plugins

import (
	"context"
	"fmt"
)

// KeyWrapper encrypts small secrets (a location's private key) with a key that a service keeps and never hands out,
// such as an AWS KMS key.
type KeyWrapper interface {
	// Wrap encrypts at most 4096 bytes.
	Wrap(ctx context.Context, plaintext []byte) ([]byte, error)
	// Unwrap is the reverse; it fails where ciphertext was wrapped by another key or was changed.
	Unwrap(ctx context.Context, ciphertext []byte) ([]byte, error)
	// KeyID names the key: for AWS KMS its ARN or alias.
	KeyID() string
}

// KeyError is a refusal or failure of a KeyWrapper, with what its reader can do about it.
type KeyError struct {
	Op     string // "wrap", "unwrap", "open"
	KeyID  string
	Err    error  // wraps ErrAccess or ErrConfig where one fits
	Remedy string // one sentence in the imperative; empty where nothing better than trying again is known
}

// Error says what failed, with which key, why, and what to do.
func (e *KeyError) Error() string {
	msg := fmt.Sprintf("%s with key %s: %v", e.Op, e.KeyID, e.Err)
	if e.Remedy != "" {
		msg += " (" + e.Remedy + ")"
	}
	return msg
}

// Unwrap gives the cause.
func (e *KeyError) Unwrap() error { return e.Err }
