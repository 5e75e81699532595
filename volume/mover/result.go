package mover

import (
	"encoding/json"
	"fmt"
	"time"

	"kedge.dev/kedge/volume/files"
)

// MaxMessage is how much of a termination message Kubernetes keeps (Kubernetes documentation, "Determine the Reason for Pod Failure").
const MaxMessage = 4096

// CodePartial is the exit code of "kedge mover" where something could not be read, or not be restored; the result says how much.
const CodePartial = 3

// Result is what "kedge mover" prints, and leaves as its container's termination message.
type Result struct {
	Operation string `json:"operation"`
	// Copy is the copy's id in the repository, Base that of the one it was compared with.
	Copy     string    `json:"copy,omitempty"`
	Base     string    `json:"base,omitempty"`
	Cluster  string    `json:"cluster,omitempty"`
	Provider string    `json:"provider,omitempty"`
	Handle   string    `json:"handle,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// Files are of any sort, but folders; Bytes are in them.
	Files   int64 `json:"files"`
	Folders int64 `json:"folders"`
	Bytes   int64 `json:"bytes"`
	// Of a copy: what was read, and what went to the bucket.
	ReadFiles     int64 `json:"readFiles,omitempty"`
	ReadBytes     int64 `json:"readBytes,omitempty"`
	UploadedBytes int64 `json:"uploadedBytes,omitempty"`
	// Of a restore: what was not there already, and what went because the copy does not have it.
	WrittenFiles int64 `json:"writtenFiles,omitempty"`
	WrittenBytes int64 `json:"writtenBytes,omitempty"`
	Deleted      int64 `json:"deleted,omitempty"`
	// Counts are of all remarks, by kind; Remarks the first of them, as many as there is room for.
	Counts  map[files.RemarkKind]int64 `json:"counts,omitempty"`
	Remarks []files.Remark             `json:"remarks,omitempty"`
	// Code is the exit code; Error says why it failed.
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Lacks is how many files and folders are missing in the copy, or in the restored tree.
func (r *Result) Lacks() int64 { return r.Counts[files.Unreadable] + r.Counts[files.Failed] }

// Line is the result as one line of JSON of at most limit bytes: remarks go first, then the end of the error.
func (r Result) Line(limit int) ([]byte, error) {
	for {
		data, err := json.Marshal(&r)
		if err != nil {
			return nil, fmt.Errorf("encode the result: %w", err)
		}
		over := len(data) + 1 - limit
		switch n := len(r.Remarks); {
		case over <= 0:
			return append(data, '\n'), nil
		case n > 0:
			r.Remarks = r.Remarks[:n/2]
		case r.Error != "":
			runes := []rune(r.Error)
			r.Error = string(runes[:len(runes)/2])
		default:
			return nil, fmt.Errorf("encode the result: it has %d bytes more than the %d that it may have", over, limit)
		}
	}
}
