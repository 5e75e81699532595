package files

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
)

// appendHead appends the JSON of an entry as far as its object: all that says whether a file is the one that was copied
// before. With an object and an end, it is byte for byte what kopia writes.
func appendHead(dst []byte, e *snapshot.DirEntry) []byte {
	dst = append(dst, `{"name":`...)
	dst = appendString(dst, e.Name)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, '"')
	if e.Permissions != 0 {
		dst = append(dst, `,"mode":"0`...)
		dst = strconv.AppendInt(dst, int64(e.Permissions), 8)
		dst = append(dst, '"')
	}
	if e.FileSize != 0 {
		dst = append(dst, `,"size":`...)
		dst = strconv.AppendInt(dst, e.FileSize, 10)
	}
	if e.ModTime != 0 {
		dst = append(dst, `,"mtime":"`...)
		dst = e.ModTime.ToTime().UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	if e.UserID != 0 {
		dst = append(dst, `,"uid":`...)
		dst = strconv.AppendUint(dst, uint64(e.UserID), 10)
	}
	if e.GroupID != 0 {
		dst = append(dst, `,"gid":`...)
		dst = strconv.AppendUint(dst, uint64(e.GroupID), 10)
	}
	return append(dst, `,"obj":`...)
}

// appendEntry appends an entry as kopia would write it.
func appendEntry(dst []byte, e *snapshot.DirEntry) ([]byte, error) {
	dst = appendHead(dst, e)
	dst = append(dst, '"')
	dst = append(dst, e.ObjectID.String()...)
	dst = append(dst, '"')
	if e.DirSummary != nil {
		summary, err := json.Marshal(e.DirSummary)
		if err != nil {
			return dst, fmt.Errorf("encode entry %q: %w", e.Name, err)
		}
		dst = append(append(dst, `,"summ":`...), summary...)
	}
	return append(dst, '}'), nil
}

// appendString appends s as encoding/json writes it.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// rawKey finds an entry's place from its JSON.
func rawKey(raw []byte) (key, error) {
	if rest, ok := strings.CutPrefix(string(raw[:min(len(raw), maxName+32)]), `{"name":"`); ok {
		name, rest, ok := strings.Cut(rest, `"`)
		if ok && !strings.Contains(name, `\`) && len(rest) > 10 && strings.HasPrefix(rest, `,"type":"`) {
			return makeKey(name, rest[9] == 'd'), nil
		}
	}
	var e struct {
		Name string             `json:"name"`
		Type snapshot.EntryType `json:"type"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return key{}, fmt.Errorf("%w: an entry is not JSON of one", ErrDamaged)
	}
	return makeKey(e.Name, e.Type == snapshot.EntryTypeDirectory), nil
}

func makeKey(stored string, dir bool) key {
	if dir {
		return key{classDir, stored}
	}
	return key{classOther, stored}
}

// parseEntry decodes an entry.
func parseEntry(raw []byte) (*snapshot.DirEntry, error) {
	e := new(snapshot.DirEntry)
	if err := json.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf("%w: an entry is not JSON of one", ErrDamaged)
	}
	return e, nil
}

// tally counts what is in and below a folder, as kopia's summaries do.
type tally struct {
	sum fs.DirectorySummary
	any bool // there is an entry
}

// add counts an entry of the folder.
func (t *tally) add(e *snapshot.DirEntry) {
	t.any = true
	t.sum.MaxModTime = max(t.sum.MaxModTime, e.ModTime)
	switch e.Type {
	case snapshot.EntryTypeSymlink:
		t.sum.TotalSymlinkCount++
	case snapshot.EntryTypeFile:
		t.sum.TotalFileCount++
		t.sum.TotalFileSize += e.FileSize
	case snapshot.EntryTypeDirectory:
		t.addFolder(e.DirSummary)
	case snapshot.EntryTypeUnknown:
	}
}

func (t *tally) addFolder(s *fs.DirectorySummary) {
	if s == nil {
		return
	}
	t.sum.TotalFileCount += s.TotalFileCount
	t.sum.TotalFileSize += s.TotalFileSize
	t.sum.TotalDirCount += s.TotalDirCount
	t.sum.TotalSymlinkCount += s.TotalSymlinkCount
	t.sum.FatalErrorCount += s.FatalErrorCount
	t.sum.IgnoredErrorCount += s.IgnoredErrorCount
	for _, e := range s.FailedEntries {
		t.name(e)
	}
	t.sum.MaxModTime = max(t.sum.MaxModTime, s.MaxModTime)
}

// failed counts an entry that could not be read.
func (t *tally) failed(path, detail string) {
	t.sum.FatalErrorCount++
	t.name(&fs.EntryWithError{EntryPath: strings.ToValidUTF8(path, "\ufffd"), Error: strings.ToValidUTF8(detail, "\ufffd")})
}

func (t *tally) name(e *fs.EntryWithError) {
	if len(t.sum.FailedEntries) < fs.MaxFailedEntriesPerDirectorySummary {
		t.sum.FailedEntries = append(t.sum.FailedEntries, e)
	}
}

// summary is that of the folder itself, whose own modification time counts where it has no entries.
func (t *tally) summary(mtime fs.UTCTimestamp, incomplete string) *fs.DirectorySummary {
	s := t.sum.Clone()
	s.TotalDirCount++
	if !t.any {
		s.MaxModTime = mtime
	}
	s.IncompleteReason = incomplete
	return &s
}
