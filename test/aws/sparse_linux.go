package aws

import (
	"fmt"
	"os"
	"syscall"
)

// The values of whence for holes (lseek(2)), and the flags of fallocate(2) that make one.
const (
	seekData  = 3
	seekHole  = 4
	keepSize  = 1
	punchHole = 2
)

// Discard makes a range of a volume's file as if it had never been written, as a trim of a file system does.
func Discard(f *os.File, offset, length int64) error {
	if err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, offset, length); err != nil {
		return fmt.Errorf("punch a hole: %w", err)
	}
	return nil
}
