package main

import (
	"runtime"
	"runtime/debug"
)

// gcPercent trades processor time for memory. With 10,000 objects a backup peaked at 67 MiB and a restore at 107 MiB at 50, at 73
// and 127 MiB at the default of 100, in the same time.
const gcPercent = 50

// firstGCPercent is in force until the first collection, which it puts off to 16 MiB (4 MiB times a hundredth of it, package runtime): what
// a command allocates to begin with mostly stays, and at gcPercent it would be looked through six times on the way there.
const firstGCPercent = 400

// tuneGC sets both, unless the environment has the word.
func tuneGC(getenv func(string) string) {
	if getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(firstGCPercent)
	first := new([16]byte)
	runtime.AddCleanup(first, func(percent int) { debug.SetGCPercent(percent) }, gcPercent)
}
