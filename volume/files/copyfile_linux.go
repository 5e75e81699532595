package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

// one copies one entry of a folder. Its error is fatal.
func (r *copyRun) one(ctx context.Context, f *unfinished, s *slot) (outcome, error) {
	if s.dir {
		return r.kid(ctx, f, s)
	}
	path := joinPath(f.path, s.name)
	var st unix.Stat_t
	if err := f.d.lstat(s.name, &st); err != nil {
		return r.fault(path, err), nil
	}
	rec := record{Name: s.stored}
	if s.stored != s.name {
		rec.Raw = []byte(s.name)
	}
	if st.Nlink > 1 {
		rec.Link = linkName(&st, r.device)
	}
	var out outcome
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		out, err = r.file(ctx, f, s, &st, &rec)
	case unix.S_IFLNK:
		out, err = r.symlink(ctx, f, s, &st, &rec)
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		rec.Special = specialOf(&st)
		r.attrs(f.d, s.name, path, &rec)
	case unix.S_IFDIR:
		return r.fault(path, unix.ENOTDIR), nil // it was none when the folder was listed
	default:
		r.remarks.add(Skipped, path, kindOf(st.Mode)+" has no content to keep")
		return outcome{}, nil
	}
	if err != nil || (out.raw == nil && rec.Special == nil) {
		return out, err
	}
	r.counts.files.Add(1)
	if !rec.empty() {
		out.line, err = appendRecord(nil, &rec)
	}
	return out, err
}

// linkName names an inode among those of a copy.
func linkName(st *unix.Stat_t, root uint64) string {
	name := strconv.FormatUint(st.Ino, 10)
	if st.Dev != root { // overlay file systems
		name = strconv.FormatUint(st.Dev, 10) + ":" + name
	}
	return name
}

func specialOf(st *unix.Stat_t) *special {
	sec, nsec := st.Mtim.Unix()
	s := &special{Type: typeFIFO, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Time: stamp{Sec: sec, Nsec: nsec}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		s.Type = typeChar
	case unix.S_IFBLK:
		s.Type = typeBlock
	}
	if s.Type != typeFIFO {
		s.Major, s.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return s
}

// symlink copies a symbolic link; its target is kept as the bytes that it has.
func (r *copyRun) symlink(ctx context.Context, f *unfinished, s *slot, st *unix.Stat_t, rec *record) (outcome, error) {
	path := joinPath(f.path, s.name)
	target, err := f.d.readlink(s.name)
	if err != nil {
		return r.fault(path, err), nil
	}
	r.attrs(f.d, s.name, path, rec)
	out := outcome{entry: entryOf(s.stored, snapshot.EntryTypeSymlink, st, rec)}
	out.entry.FileSize = int64(len(target))
	if out.raw = r.reuse(f, s, &out.entry, rec); out.raw != nil {
		return out, nil
	}
	w := r.repo.NewObjectWriter(ctx, object.WriterOptions{Description: "SYMLINK", MetadataCompressor: metadataCompressor})
	defer func() { _ = w.Close() }()
	if _, err := io.WriteString(w, target); err != nil {
		return outcome{}, fmt.Errorf("store symbolic link %q: %w", path, err)
	}
	if out.entry.ObjectID, err = w.Result(); err != nil {
		return outcome{}, fmt.Errorf("store symbolic link %q: %w", path, err)
	}
	out.raw, err = appendEntry(nil, &out.entry)
	return out, err
}

// reuse gives the entry of an earlier snapshot if all that kopia's entry says is as it was, and completes e with its object.
func (r *copyRun) reuse(f *unfinished, s *slot, e *snapshot.DirEntry, rec *record) []byte {
	if rec.Time != nil {
		return nil // nothing tells whether it changed
	}
	var buf [256]byte
	var head []byte
	for i, raw := range s.prev {
		if raw == nil || f.prev[i].racy(e.ModTime) {
			continue
		}
		if head == nil {
			head = appendHead(buf[:0], e)
		}
		rest, ok := bytes.CutPrefix(raw, head)
		if !ok || len(rest) < 3 || rest[0] != '"' || !bytes.HasSuffix(rest, []byte(`"}`)) {
			continue
		}
		id, err := object.ParseID(string(rest[1 : len(rest)-2]))
		if err != nil {
			continue
		}
		e.ObjectID = id
		return raw
	}
	return nil
}

// minHole is how many bytes must be missing of a file for it to count as sparse: a block of the usual file systems.
const minHole = 4 << 10

// file copies a regular file.
func (r *copyRun) file(ctx context.Context, f *unfinished, s *slot, st *unix.Stat_t, rec *record) (outcome, error) {
	path := joinPath(f.path, s.name)
	r.attrs(f.d, s.name, path, rec)
	rec.Sparse = st.Size-st.Blocks*512 >= minHole
	out := outcome{entry: entryOf(s.stored, snapshot.EntryTypeFile, st, rec)}
	if out.raw = r.reuse(f, s, &out.entry, rec); out.raw != nil {
		r.counts.bytes.Add(out.entry.FileSize)
		return out, nil
	}
	var err error
	if st.Nlink > 1 {
		err = r.linked(ctx, f, s, st, &out.entry)
	} else {
		err = r.read(ctx, f, s, st, &out.entry)
	}
	if tree, ok := errors.AsType[*unreadable](err); ok {
		return r.fault(path, tree.error), nil
	}
	if err != nil {
		return outcome{}, fmt.Errorf("copy file %q: %w", path, err)
	}
	r.counts.bytes.Add(out.entry.FileSize)
	out.raw, err = appendEntry(nil, &out.entry)
	return out, err
}

// linkedFile is what is known of a file whose inode was read under another name.
type linkedFile struct {
	Object string `json:"o"`
	Size   int64  `json:"s"` // as stored
	Stat   [4]int64
}

// linked copies a file that has several names: the first one is read, and the others get its object.
func (r *copyRun) linked(ctx context.Context, f *unfinished, s *slot, st *unix.Stat_t, e *snapshot.DirEntry) error {
	want := [4]int64{st.Size, st.Mtim.Sec, st.Mtim.Nsec, int64(st.Ino)}
	use := func(value []byte) bool {
		var known linkedFile
		if json.Unmarshal(value, &known) != nil || known.Stat != want {
			return false
		}
		id, err := object.ParseID(known.Object)
		if err != nil {
			return false
		}
		e.ObjectID, e.FileSize = id, known.Size
		return true
	}
	return r.links.do(fmt.Sprintf("%d:%d", st.Dev, st.Ino), use, func() ([]byte, error) {
		if err := r.read(ctx, f, s, st, e); err != nil {
			return nil, err
		}
		return json.Marshal(linkedFile{Object: e.ObjectID.String(), Size: e.FileSize, Stat: want})
	})
}

// read stores a file's content. A small file that changes meanwhile is read again. The entry keeps the time from before
// the reading, so that the next copy sees that the file is another.
func (r *copyRun) read(ctx context.Context, f *unfinished, s *slot, st *unix.Stat_t, e *snapshot.DirEntry) error {
	for try := 0; ; try++ {
		changed, err := r.readOnce(ctx, f, s, st, e)
		if err != nil {
			return err
		}
		if !changed {
			break
		}
		if try == rereads || e.FileSize >= rereadBelow {
			r.remarks.add(Changed, joinPath(f.path, s.name), "it was written to while it was read")
			break
		}
	}
	r.counts.readFiles.Add(1)
	return nil
}

func (r *copyRun) readOnce(ctx context.Context, f *unfinished, s *slot, seen *unix.Stat_t, e *snapshot.DirEntry) (changed bool, err error) {
	in, err := f.d.openFile(s.name)
	if err != nil {
		return false, &unreadable{err}
	}
	defer func() { _ = in.Close() }()
	var before, after unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &before); err != nil {
		return false, &unreadable{err}
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, &unreadable{unix.ELOOP}
	}
	var rec record
	*e = entryOf(s.stored, snapshot.EntryTypeFile, &before, &rec)
	size, id, err := r.content(ctx, in, &before)
	if err != nil {
		return false, err
	}
	e.FileSize, e.ObjectID = size, id
	if err := unix.Fstat(int(in.Fd()), &after); err != nil {
		return false, &unreadable{err}
	}
	*seen = before
	return before.Mtim != after.Mtim || before.Size != after.Size || size != after.Size, nil
}

// content stores the bytes of an open file.
func (r *copyRun) content(ctx context.Context, in *os.File, st *unix.Stat_t) (int64, object.ID, error) {
	opts := object.WriterOptions{Description: "FILE", Compressor: r.comp, MetadataCompressor: metadataCompressor}
	if st.Size > 8<<20 {
		opts.AsyncWrites = 1
	}
	w := r.repo.NewObjectWriter(ctx, opts)
	defer func() { _ = w.Close() }()
	src := source{in: in, size: st.Size, sparse: st.Size-st.Blocks*512 >= minHole, read: &r.counts.readBytes}
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	var size int64
	for {
		if err := r.tick(ctx); err != nil {
			return 0, object.EmptyID, err
		}
		n, err := src.Read(*buf)
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return 0, object.EmptyID, fmt.Errorf("write to repository: %w", werr)
			}
			size += int64(n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, object.EmptyID, &unreadable{err}
		}
	}
	id, err := w.Result()
	if err != nil {
		return 0, object.EmptyID, fmt.Errorf("write to repository: %w", err)
	}
	return size, id, nil
}
