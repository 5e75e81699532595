package files

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// ErrUnsupported means that this system's files cannot be copied, or not be restored.
var ErrUnsupported = errors.New("copying and restoring files needs Linux")

// Copier copies directory trees into a repository. Its fields are set before the first copy; the zero value of each but
// SpoolDir will do.
type Copier struct {
	// SpoolDir is where unfinished folders and the table of hard links overflow to. Its files have no names, and are not
	// encrypted: they hold names, attributes and object IDs, no file's content.
	SpoolDir string
	// Parallel is how many files and folders are worked on at once; zero means eight, which hides the latency of a network file system.
	Parallel int
	// Compression is kopia's name of the compression of files: "zstd" if empty; "none" for none.
	Compression string
	// CheckpointEvery is how often the state of an unfinished copy is saved, so that a copy after a crash need not read again what was
	// read; zero means ten minutes, below zero never. It is saved too whenever 200,000 files were read: until then the repository keeps some 400 bytes of
	// each in memory.
	CheckpointEvery time.Duration
	// Skip leaves out what it says yes to, with all that is below. Nil skips nothing. It is called from many goroutines.
	Skip func(path string, isDir bool) bool
	// Progress is told about once a second how far a copy is, and at its end. Calls do not overlap.
	Progress func(CopyProgress)
	// Remark is told all remarks as they come. Calls do not overlap.
	Remark func(Remark)
}

// CopyRequest says what to copy, and to where.
type CopyRequest struct {
	// Dir is the tree's root. Other file systems that are mounted below it are not entered.
	Dir string
	// Source is what the snapshot says that it is of: host, user and path, all needed.
	Source snapshot.SourceInfo
	// Previous are manifests of earlier snapshots of the same tree; files that are as they were then are not read.
	// snapshot.FindPreviousManifests finds them, unfinished ones included.
	Previous []*snapshot.Manifest
	// Replaces are manifests that are removed together with the saving of the finished snapshot's; that they are gone already is no error.
	Replaces []manifest.ID
	// Description and Tags are kept with the snapshot; a tag's key may not be type, hostname, username or path.
	Description string
	Tags        map[string]string
	// Describe may change each manifest before it is saved, those of checkpoints too. Nil changes nothing.
	Describe func(*snapshot.Manifest)
}

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Files       int64 `json:"files"`       // of any sort, folders not counted
	Folders     int64 `json:"folders"`     // finished
	Bytes       int64 `json:"bytes"`       // in those files
	ReadFiles   int64 `json:"readFiles"`   // whose content was read; the others were as in the copy before, or another name of a read one
	ReadBytes   int64 `json:"readBytes"`   // that were read, holes not counted
	Checkpoints int64 `json:"checkpoints"` // saved on the way
}

// CopyResult is what a copy did.
type CopyResult struct {
	Manifest *snapshot.Manifest
	CopyProgress
	// Counts has the number of remarks of each kind, and Remarks the first thousand.
	Counts  map[RemarkKind]int64
	Remarks []Remark
}

// copyCounts are the counters behind CopyProgress.
type copyCounts struct {
	files, folders, bytes, readFiles, readBytes, checkpoints atomic.Int64
}

func (c *copyCounts) now() CopyProgress {
	return CopyProgress{
		Files: c.files.Load(), Folders: c.folders.Load(), Bytes: c.bytes.Load(),
		ReadFiles: c.readFiles.Load(), ReadBytes: c.readBytes.Load(), Checkpoints: c.checkpoints.Load(),
	}
}

// parallel is how many files are worked on at once.
func parallel(n int) int {
	if n > 0 {
		return n
	}
	return max(defaultParallel, runtime.GOMAXPROCS(0))
}

const (
	defaultParallel    = 8
	defaultCompression = "zstd"
	metadataCompressor = "zstd-fastest" // what kopia's own policy says for folders
	defaultCheckpoint  = 10 * time.Minute
	checkpointFiles    = 200_000
	progressEvery      = time.Second
	// racyWindow: a file that was written to so shortly before a copy began, or while it ran, may have been written to again within the
	// same tick of its file system's clock. It is read once more by the next copy.
	racyWindow = 2 * time.Second
	// rereadBelow: a file of fewer bytes that changed while it was read is read again, rereads times.
	rereadBelow = 64 << 20
	rereads     = 2
	// lastWords is how long a copy that was cancelled or failed may take to save its state: less than the time that Kubernetes gives a
	// container to end.
	lastWords = 20 * time.Second
)
