//go:build !linux

package aws

import (
	"errors"
	"fmt"
	"os"
)

// The values of whence for holes, as the systems that descend from BSD have them.
const (
	seekHole = 3
	seekData = 4
)

// Discard is not to be had here.
func Discard(*os.File, int64, int64) error {
	return fmt.Errorf("punch a hole: %w", errors.ErrUnsupported)
}
