//go:build !linux

package files

import (
	"context"
	"fmt"

	"github.com/kopia/kopia/repo"
)

// Copy is for Linux; here its error wraps ErrUnsupported.
func (c *Copier) Copy(context.Context, repo.RepositoryWriter, CopyRequest) (*CopyResult, error) {
	return nil, fmt.Errorf("copy files: %w", ErrUnsupported)
}

// Restore is for Linux; here its error wraps ErrUnsupported.
func (s *Restorer) Restore(context.Context, repo.Repository, RestoreRequest) (*RestoreResult, error) {
	return nil, fmt.Errorf("restore files: %w", ErrUnsupported)
}
