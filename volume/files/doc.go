// Package files copies a directory tree into a kopia repository, as a snapshot that kopia's own programs can read, and
// restores it: whole, one folder, or one file. docs/volume-files.md says what is kept, and describes the sidecar that
// holds what kopia's entries cannot.
//
// Nothing here holds a whole tree in memory. What is held is: the names of the folders that are being worked on, a few
// entries of each, and for each file that is being read or written one buffer and what kopia's writer needs. Entries and
// sidecars of folders that are not finished go to unnamed files in SpoolDir once they are larger than spoolMemory, and
// the table of hard links is such a file too.
//
// Copies and restores need Linux; elsewhere they say so, and copies can be browsed.
package files

// Names that Kedge puts beside a user's own. A user's name that begins with reserved is stored under another one.
const (
	reserved    = ".kedge-"
	sidecarName = reserved + "sidecar"
	escapedName = reserved + "name-"    // what a name that cannot be stored as it is begins with
	partialName = reserved + "partial-" // a file that a restore has not finished yet
)

// Bounds. What a repository holds is smaller, or refused before memory is spent on it.
const (
	maxName    = 255       // bytes of one name; Linux takes no longer ones
	maxTarget  = 4095      // bytes of a symbolic link's target
	maxDepth   = 8192      // folders inside each other
	maxEntry   = 1 << 20   // bytes of one entry of a folder, as JSON
	maxRecord  = 4 << 20   // bytes of one line of a sidecar
	maxAttrs   = 5 << 19   // bytes of one file's extended attributes, names and values; in base64 they fit into a record
	maxAttr    = 64 << 10  // bytes of one value; Linux takes no longer ones
	maxRemarks = 1000      // remarks that a result lists; all are counted, and all go to Remark
	maxSmall   = 256 << 10 // bytes of a folder that is read at once
)

// spoolMemory is how many bytes of one unfinished folder stay in memory.
const spoolMemory = 256 << 10

// aheadEntries is how many entries of one folder may be worked on, or wait for an earlier one, at once.
const aheadEntries = 256
