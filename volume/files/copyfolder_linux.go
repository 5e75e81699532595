package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

// unfinished is a folder whose copy has begun. Its mutex guards what a checkpoint reads.
type unfinished struct {
	d     *dir
	path  string
	prev  []*previous
	meta  snapshot.DirEntry // without object
	mount bool              // another file system is mounted here; its content is not ours

	mu        sync.Mutex
	entries   spool // each followed by a comma
	records   spool // the sidecar, from its first line on; empty if there are no records
	sidecarAt int64 // where in entries the sidecar's belongs; -1 as long as that is the end
	tally     tally
	kids      map[string]*unfinished // begun and not among entries yet, by stored name
	same      bool                   // all so far is as in prev[0]
	done      *snapshot.DirEntry
}

// close frees what a folder, and those begun in it, hold.
func (f *unfinished) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries.close()
	f.records.close()
	for _, kid := range f.kids {
		kid.close()
	}
	f.kids = nil
}

// newFolder begins the copy of a folder that is open.
func (r *copyRun) newFolder(d *dir, path, stored string, prev []*previous) (*unfinished, error) {
	var st unix.Stat_t
	if err := d.stat(&st); err != nil {
		return nil, err
	}
	f := &unfinished{d: d, path: path, prev: prev, sidecarAt: -1, same: len(prev) > 0, kids: map[string]*unfinished{}}
	f.entries.dir, f.records.dir = r.SpoolDir, r.SpoolDir
	f.mount = st.Dev != r.device
	rec := record{Name: "."}
	f.meta = entryOf(stored, snapshot.EntryTypeDirectory, &st, &rec)
	f.meta.FileSize = 0 // as kopia has it; its summary tells what is below
	r.attrs(d, ".", path, &rec)
	if rec.empty() {
		return f, nil
	}
	line, err := appendRecord(nil, &rec)
	if err != nil {
		return nil, err
	}
	return f, f.addRecord(line)
}

func (f *unfinished) addRecord(line []byte) error {
	if f.records.size == 0 {
		if err := f.records.write(fmt.Appendf(nil, "{\"kedgeSidecar\":%d}\n", sidecarVersion)); err != nil {
			return err
		}
	}
	return f.records.write(line)
}

// slot is an entry of a folder that is worked on, or waits for those before it.
type slot struct {
	listed
	prev [][]byte // its entries in the earlier snapshots, nil where there is none; as many as the folder has
	done chan struct{}
	out  outcome
	err  error
}

// outcome is what an entry became.
type outcome struct {
	entry snapshot.DirEntry
	raw   []byte // the entry as JSON; nil where the snapshot has none
	line  []byte // its record in the sidecar; nil if there is none
	fault string // why it could not be read
}

// folder copies all that is in a folder. On an error it stays unfinished, for a checkpoint.
func (r *copyRun) folder(ctx context.Context, f *unfinished) (*snapshot.DirEntry, error) {
	defer func() {
		for _, p := range f.prev {
			p.close()
		}
	}()
	names, err := r.names(f)
	if err != nil {
		return nil, err
	}
	if err := r.entries(ctx, f, names); err != nil {
		return nil, err
	}
	entry, err := r.seal(ctx, f)
	if err == nil {
		r.counts.folders.Add(1)
	}
	return entry, err
}

// names lists a folder in the order of its copy. This is the one list that grows with a folder.
func (r *copyRun) names(f *unfinished) ([]listed, error) {
	if f.mount {
		r.remarks.add(Skipped, f.path, "another file system is mounted here; the folder is kept as an empty one")
		return nil, nil
	}
	var names []listed
	err := f.d.list(func(name string, isDir bool) error {
		if r.Skip == nil || !r.Skip(joinPath(f.path, name), isDir) {
			names = append(names, listed{stored: storedName(name), name: name, dir: isDir})
		}
		return nil
	})
	if err != nil {
		return nil, &unreadable{err}
	}
	slices.SortFunc(names, func(a, b listed) int {
		return makeKey(a.stored, a.dir).compare(makeKey(b.stored, b.dir))
	})
	return names, nil
}

// unreadable is an error of the tree, not of the repository: it becomes a remark, and the copy goes on.
type unreadable struct{ error }

// Unwrap gives the system's error.
func (u *unreadable) Unwrap() error { return u.error }

func (r *copyRun) entries(ctx context.Context, f *unfinished, names []listed) error {
	var pending []*slot
	defer func() { // they use the folder's descriptor
		for _, s := range pending {
			<-s.done
		}
	}()
	for _, n := range names {
		if err := r.tick(ctx); err != nil {
			return err
		}
		s := &slot{listed: n, done: make(chan struct{}), prev: make([][]byte, len(f.prev))}
		for i, p := range f.prev {
			s.prev[i] = p.find(makeKey(n.stored, n.dir))
		}
		work := func() error {
			defer close(s.done)
			s.out, s.err = r.one(ctx, f, s)
			return s.err
		}
		pending = append(pending, s)
		if !r.group.TryGo(work) {
			if err := work(); err != nil {
				return err
			}
		}
		var err error
		if pending, err = emit(f, pending, aheadEntries); err != nil {
			return err
		}
	}
	for len(pending) > 0 {
		var err error
		if pending, err = emit(f, pending, 0); err != nil {
			return err
		}
	}
	return nil
}

// emit appends finished entries to their folder, in order, and waits until at most ahead are left.
func emit(f *unfinished, pending []*slot, ahead int) ([]*slot, error) {
	for len(pending) > 0 {
		s := pending[0]
		if len(pending) > ahead {
			<-s.done
		} else {
			select {
			case <-s.done:
			default:
				return pending, nil
			}
		}
		if s.err != nil {
			return pending, s.err
		}
		if err := f.add(s); err != nil {
			return pending, err
		}
		pending = pending[1:]
	}
	return pending, nil
}

// add appends a finished entry.
func (f *unfinished) add(s *slot) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kids, s.stored)
	if s.out.fault != "" {
		f.tally.failed(joinPath(f.path, s.name), s.out.fault)
	}
	if s.out.line != nil {
		if err := f.addRecord(s.out.line); err != nil {
			return err
		}
	}
	if f.same && (s.out.fault != "" || !bytes.Equal(s.out.raw, s.prev[0])) {
		f.same = false
	}
	if s.out.raw == nil {
		return nil
	}
	f.tally.add(&s.out.entry)
	if f.sidecarAt < 0 && !s.dir && s.stored > sidecarName {
		f.sidecarAt = f.entries.size
	}
	return f.entries.write(s.out.raw, []byte{','})
}

// kid copies a folder inside of f.
func (r *copyRun) kid(ctx context.Context, f *unfinished, s *slot) (outcome, error) {
	path := joinPath(f.path, s.name)
	if strings.Count(path, "/") >= maxDepth {
		return r.fault(path, fmt.Errorf("it is more than %d folders deep", maxDepth)), nil
	}
	d, err := f.d.open(s.name)
	if err != nil {
		return r.fault(path, err), nil
	}
	defer d.close()
	kid, err := r.newFolder(d, path, s.stored, r.openKids(ctx, f, s, path))
	if err != nil {
		return outcome{}, err
	}
	f.mu.Lock()
	f.kids[s.stored] = kid
	f.mu.Unlock()
	entry, err := r.folder(ctx, kid)
	if tree, ok := errors.AsType[*unreadable](err); ok {
		kid.close()
		return r.fault(path, tree.error), nil
	}
	if err != nil {
		return outcome{}, err
	}
	out := outcome{entry: *entry}
	if s.stored != s.name {
		if out.line, err = appendRecord(nil, &record{Name: s.stored, Dir: true, Raw: []byte(s.name)}); err != nil {
			return out, err
		}
	}
	out.raw, err = appendEntry(nil, entry)
	return out, err
}

// openKids opens a folder's earlier versions. Those that cannot be read, or are the same, are left out.
func (r *copyRun) openKids(ctx context.Context, f *unfinished, s *slot, path string) []*previous {
	var prev []*previous
	for i, raw := range s.prev {
		if raw == nil {
			continue
		}
		e, err := parseEntry(raw)
		if err != nil || slices.ContainsFunc(prev, func(p *previous) bool { return p.id == e.ObjectID }) {
			continue
		}
		p, err := openPrevious(ctx, r.repo, e.ObjectID, f.prev[i].from, f.prev[i].to)
		if err != nil {
			if ctx.Err() == nil {
				r.remarks.add(Reread, path, err.Error())
			}
			continue
		}
		prev = append(prev, p)
	}
	return prev
}

// fault makes a remark of what could not be read.
func (r *copyRun) fault(path string, err error) outcome {
	if errors.Is(err, unix.ENOENT) {
		r.remarks.add(Vanished, path, "")
		return outcome{}
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		r.remarks.add(Changed, path, "it was replaced while its folder was read, and is not in the copy")
		return outcome{fault: "replaced while its folder was read"}
	}
	r.remarks.add(Unreadable, path, err.Error())
	return outcome{fault: err.Error()}
}

// attrs reads extended attributes into a record. What cannot be read is a remark.
func (r *copyRun) attrs(d *dir, name, path string, rec *record) {
	if r.noAttrs.Load() {
		return
	}
	attrs, err := d.readAttrs(name, func(detail string) { r.remarks.add(Lost, path, detail) })
	switch {
	case err == nil:
		rec.Attrs = attrs
	case unsupported(err):
		if rec.Name == "." { // the root and folders have them wherever files do
			r.noAttrs.Store(true)
		}
	case errors.Is(err, unix.ENOENT): // the file vanished, which shows elsewhere
	default:
		r.remarks.add(Lost, path, fmt.Sprintf("list extended attributes: %v", err))
	}
}

// entryOf makes a kopia entry, without object, of what stat says. What it cannot hold goes to the record.
func entryOf(stored string, kind snapshot.EntryType, st *unix.Stat_t, rec *record) snapshot.DirEntry {
	e := snapshot.DirEntry{
		Name: stored, Type: kind, FileSize: st.Size, UserID: st.Uid, GroupID: st.Gid,
		Permissions: snapshot.Permissions(modeOf(st.Mode)),
	}
	sec, nsec := st.Mtim.Unix()
	if sec < minSeconds || sec > maxSeconds {
		rec.Time = &stamp{Sec: sec, Nsec: nsec}
	} else {
		e.ModTime = fs.UTCTimestamp(sec*1e9 + nsec)
	}
	return e
}
