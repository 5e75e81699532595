package files

import (
	"sync/atomic"

	"github.com/kopia/kopia/snapshot"
)

// Overwrite says what happens to files that are in the target already. Folders are always merged.
type Overwrite string

// The overwrite policies.
const (
	// OverwriteChanged replaces files whose size or modification time differs. It is what a restore that goes on needs.
	OverwriteChanged Overwrite = ""
	// OverwriteAlways replaces all files.
	OverwriteAlways Overwrite = "always"
	// OverwriteOlder replaces files that are older than the copy's.
	OverwriteOlder Overwrite = "older"
	// OverwriteNever leaves all that is there as it is.
	OverwriteNever Overwrite = "never"
)

// Restorer restores copies. Its fields are set before the first restore; the zero value of each but SpoolDir will do.
type Restorer struct {
	// SpoolDir is where the table of hard links is, in files without names.
	SpoolDir string
	// Parallel is how many files, folders and parts of large files are worked on at once; zero means sixteen, which hides
	// the latency of the bucket.
	Parallel int
	// Overwrite is for what is in the target already.
	Overwrite Overwrite
	// DeleteExtra removes what is in the target's folders and not in the copy's. In the target's own root, lost+found stays.
	DeleteExtra bool
	// NoDevices leaves out character and block devices.
	NoDevices bool
	// Progress is told about once a second how far a restore is, and at its end. Calls do not overlap.
	Progress func(RestoreProgress)
	// Remark is told all remarks as they come. Calls do not overlap.
	Remark func(Remark)
}

// RestoreRequest says what to restore, and to where.
type RestoreRequest struct {
	// Manifest is of the copy.
	Manifest *snapshot.Manifest
	// Path is a folder or a file inside the copy; empty is all of it.
	Path string
	// Target is a directory, which is made if it is not there. A folder's content, and its own owner, mode and so on, become the
	// target's; a file arrives in it under its own name.
	Target string
}

// RestoreProgress is how far a restore is.
type RestoreProgress struct {
	Files        int64 `json:"files"`   // of any sort, folders not counted, that are as in the copy now
	Folders      int64 `json:"folders"` // finished
	Bytes        int64 `json:"bytes"`   // in those files
	WrittenFiles int64 `json:"writtenFiles"`
	WrittenBytes int64 `json:"writtenBytes"` // without holes
	Deleted      int64 `json:"deleted"`      // entries of the target that were not in the copy
	// TotalFiles and TotalBytes are what the copy says of itself: files and symbolic links. Sidecars count, special files do not.
	TotalFiles int64 `json:"totalFiles"`
	TotalBytes int64 `json:"totalBytes"`
}

// RestoreResult is what a restore did.
type RestoreResult struct {
	RestoreProgress
	// Counts has the number of remarks of each kind, and Remarks the first thousand.
	Counts  map[RemarkKind]int64
	Remarks []Remark
}

// restoreCounts are the counters behind RestoreProgress.
type restoreCounts struct {
	files, folders, bytes, writtenFiles, writtenBytes, deleted atomic.Int64
	totalFiles, totalBytes                                     int64
}

func (c *restoreCounts) now() RestoreProgress {
	return RestoreProgress{
		Files: c.files.Load(), Folders: c.folders.Load(), Bytes: c.bytes.Load(), WrittenFiles: c.writtenFiles.Load(),
		WrittenBytes: c.writtenBytes.Load(), Deleted: c.deleted.Load(), TotalFiles: c.totalFiles, TotalBytes: c.totalBytes,
	}
}

const (
	defaultWriters = 16
	// partBytes is how many bytes of a large file one worker writes.
	partBytes = 32 << 20
	// maxUnreadable is how many files and folders in a row may be unreadable in the repository before the repository itself is taken to be.
	maxUnreadable = 20
)
