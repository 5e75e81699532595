package files

import (
	iofs "io/fs"
	"math"

	"github.com/kopia/kopia/snapshot"
)

// Seconds since 1970 whose nanoseconds fit into kopia's time stamps.
const (
	minSeconds = math.MinInt64/int64(1e9) + 1
	maxSeconds = math.MaxInt64/int64(1e9) - 1
)

// The bits of chmod(2) beyond the permissions, and Go's of the same meaning, which kopia stores.
var modeBits = []struct {
	unix uint32
	mode iofs.FileMode
}{{0o4000, iofs.ModeSetuid}, {0o2000, iofs.ModeSetgid}, {0o1000, iofs.ModeSticky}}

// modeOf turns the system's mode bits into those that kopia stores.
func modeOf(unix uint32) iofs.FileMode {
	mode := iofs.FileMode(unix & 0o777)
	for _, b := range modeBits {
		if unix&b.unix != 0 {
			mode |= b.mode
		}
	}
	return mode
}

// unixMode is the opposite of modeOf.
func unixMode(p snapshot.Permissions) uint32 {
	mode := uint32(p) & 0o777
	for _, b := range modeBits {
		if iofs.FileMode(uint32(p))&b.mode != 0 {
			mode |= b.unix
		}
	}
	return mode
}
