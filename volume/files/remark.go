package files

import (
	"maps"
	"strings"
	"sync"
)

// RemarkKind says what a remark is about.
type RemarkKind string

// The kinds of remarks. Unreadable and Failed are failures: the copy, or the restored tree, lacks something.
const (
	Unreadable RemarkKind = "unreadable" // copy: could not be read, so it is not in the copy
	Failed     RemarkKind = "failed"     // restore: could not be written, so it is not in the restored tree as it was
	Vanished   RemarkKind = "vanished"   // copy: was removed between the listing of its folder and its reading
	Changed    RemarkKind = "changed"    // copy: was written to while it was read; its content may be of two moments
	Skipped    RemarkKind = "skipped"    // copy: is of a sort that is not kept
	Lost       RemarkKind = "lost"       // an attribute could not be kept, or not be restored
	Kept       RemarkKind = "kept"       // restore: what was there was left alone, as the overwrite policy says
	Reread     RemarkKind = "reread"     // copy: a folder of the copy before could not be read, so its files were read again
)

// Remark is something that a person should know about one path.
type Remark struct {
	Kind RemarkKind `json:"kind"`
	// Path is relative to the tree's root, which itself is "."; it may hold any bytes but zero.
	Path   string `json:"path"`
	Detail string `json:"detail,omitempty"`
}

// remarks counts all and keeps the first.
type remarks struct {
	hook func(Remark)

	mu     sync.Mutex
	counts map[RemarkKind]int64
	list   []Remark
}

func (r *remarks) add(kind RemarkKind, path, detail string) {
	if path == "" {
		path = "."
	}
	m := Remark{Kind: kind, Path: path, Detail: detail}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[RemarkKind]int64{}
	}
	r.counts[kind]++
	if len(r.list) < maxRemarks {
		m.Path, m.Detail = strings.Clone(m.Path), strings.Clone(m.Detail)
		r.list = append(r.list, m)
	}
	if r.hook != nil {
		r.hook(m)
	}
}

// take gives what was collected.
func (r *remarks) take() (map[RemarkKind]int64, []Remark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[RemarkKind]int64, len(r.counts))
	maps.Copy(counts, r.counts)
	return counts, r.list
}
