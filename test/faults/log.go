//go:build unix

package faults

import (
	"io"
	"log"
)

// nothing is where the proxy's servers log: aborted requests are what it is for.
var nothing = log.New(io.Discard, "", 0)
