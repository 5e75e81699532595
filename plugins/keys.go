package plugins

import (
	"context"
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
