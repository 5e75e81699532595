package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// leaf restores what is no folder, with its hard links.
func (r *restoreRun) leaf(ctx context.Context, t *target, n *node, name, path string) error {
	if n.rec == nil || n.rec.Link == "" {
		_, err := r.single(ctx, t, n, name, path)
		return err
	}
	use := func(value []byte) bool {
		err := r.link(t, value, name)
		if err != nil && !errors.Is(err, errOther) {
			r.remarks.add(Lost, path, fmt.Sprintf("hard link: %v; it is a file of its own now", err))
		}
		if err == nil {
			r.done(n)
		}
		return err == nil
	}
	return r.links.do(n.rec.Link, use, func() ([]byte, error) {
		there, err := r.single(ctx, t, n, name, path)
		if err != nil || !there {
			return nil, err
		}
		var st unix.Stat_t
		if err := t.lstat(name, &st); err != nil {
			return nil, err
		}
		return json.Marshal(restored{Path: []byte(path), Inode: inode{st.Dev, st.Ino}})
	})
}

// restored is where the first of several names of a file is.
type restored struct {
	Path  []byte `json:"p"`
	Inode inode  `json:"i"`
}

type inode [2]uint64

// errOther means that a name's file is another than the one that was restored: somebody else writes to the target.
var errOther = errors.New("the file was replaced meanwhile")

// link makes name another name of a file that is restored already.
func (r *restoreRun) link(t *target, value []byte, name string) error {
	var first restored
	if err := json.Unmarshal(value, &first); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := t.lstat(name, &st); err == nil {
		if (inode{st.Dev, st.Ino}) == first.Inode {
			return nil
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR || r.Overwrite == OverwriteNever || r.Overwrite == OverwriteOlder {
			return errOther // these rules are looked at where files are restored
		}
	}
	folder, base, err := r.beneath(string(first.Path))
	if err != nil {
		return err
	}
	defer folder.close()
	if err := folder.lstat(base, &st); err != nil {
		return err
	}
	if (inode{st.Dev, st.Ino}) != first.Inode {
		return errOther
	}
	part := partOf(name)
	_ = unix.Unlinkat(t.fd, part, 0)
	if err := unix.Linkat(folder.fd, base, t.fd, part, 0); err != nil {
		return err
	}
	if err := unix.Renameat(t.fd, part, t.fd, name); err != nil {
		_ = unix.Unlinkat(t.fd, part, 0)
		return err
	}
	return nil
}

// beneath opens the folder of a path below the root, name by name.
func (r *restoreRun) beneath(path string) (*dir, string, error) {
	d, err := r.root.open(".")
	if err != nil {
		return nil, "", err
	}
	for {
		name, rest, more := strings.Cut(path, "/")
		if !more {
			return d, name, nil
		}
		sub, err := d.open(name)
		d.close()
		if err != nil {
			return nil, "", err
		}
		d, path = sub, rest
	}
}

// partOf is the name that a file has until it is complete. It is always the same one, so that a restore that was killed
// leaves nothing which the next one does not find.
func partOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return partialName + hex.EncodeToString(sum[:16])
}

// done counts a file that is as in the copy.
func (r *restoreRun) done(n *node) {
	r.counts.files.Add(1)
	if n.entry != nil {
		r.counts.bytes.Add(n.entry.FileSize)
	}
}

// verdict says what becomes of what is there under a name.
type verdict int

const (
	verdictWrite verdict = iota // nothing is there, or it is to be replaced
	verdictSame                 // it has the content already
	verdictKeep                 // it must stay
)

// judge looks at what is there.
func (r *restoreRun) judge(ctx context.Context, t *target, n *node, name, path string) (verdict, error) {
	if !t.existed {
		return verdictWrite, nil // this restore made the folder
	}
	var st unix.Stat_t
	err := t.lstat(name, &st)
	if errors.Is(err, unix.ENOENT) {
		return verdictWrite, nil
	}
	if err != nil {
		return 0, err
	}
	want := metaOf(n)
	older := st.Mtim.Sec < want.time.Sec || (st.Mtim.Sec == want.time.Sec && st.Mtim.Nsec < want.time.Nsec)
	switch {
	case r.Overwrite == OverwriteNever:
		r.remarks.add(Kept, path, "it is there already")
		return verdictKeep, nil
	case r.Overwrite == OverwriteOlder && !older && !r.same(ctx, t, n, name, &st):
		r.remarks.add(Kept, path, "it is newer than the copy's")
		return verdictKeep, nil
	case r.Overwrite != OverwriteAlways && r.same(ctx, t, n, name, &st):
		return verdictSame, nil
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return verdictWrite, nil // the new one takes its name
	}
	if r.DeleteExtra {
		err = r.remove(t.dir, name, 0)
	} else if err = unix.Unlinkat(t.fd, name, unix.AT_REMOVEDIR); errors.Is(err, unix.ENOTEMPTY) {
		err = errors.New("it is not empty (deleting what is not in the copy would do it)")
	}
	if err != nil {
		return 0, fmt.Errorf("replace the folder that is there: %w", err)
	}
	return verdictWrite, nil
}

// same says that what is there has the content of the copy, by type, size and modification time; the target of a link is compared. A
// file with other names than the copy's is not the same: what changes it would change those too.
func (r *restoreRun) same(ctx context.Context, t *target, n *node, name string, st *unix.Stat_t) bool {
	want := metaOf(n)
	if n.rec == nil || n.rec.Link == "" {
		if st.Nlink > 1 {
			return false
		}
	}
	if st.Mtim.Sec != want.time.Sec || st.Mtim.Nsec != want.time.Nsec {
		return false
	}
	switch n.kind() {
	case TypeFile:
		return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == n.entry.FileSize
	case TypeSymlink:
		if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != n.entry.FileSize {
			return false
		}
		there, err := t.readlink(name)
		if err != nil {
			return false
		}
		target, err := readTarget(ctx, r.repo, n.entry.ObjectID)
		return err == nil && target == there
	}
	return st.Mode&unix.S_IFMT == specialMode(n.rec.Special) && (n.rec.Special.Type == typeFIFO || st.Rdev == rdevOf(n.rec.Special))
}

func specialMode(s *special) uint32 {
	switch s.Type {
	case typeChar:
		return unix.S_IFCHR
	case typeBlock:
		return unix.S_IFBLK
	}
	return unix.S_IFIFO
}

func rdevOf(s *special) uint64 { return unix.Mkdev(s.Major, s.Minor) }

// single restores one name of what is no folder. It says whether it is there as in the copy.
func (r *restoreRun) single(ctx context.Context, t *target, n *node, name, path string) (bool, error) {
	v, err := r.judge(ctx, t, n, name, path)
	switch {
	case err != nil:
		return false, err
	case v == verdictKeep:
		return false, nil
	case v == verdictSame:
		r.applyLeaf(t, n, name, path, false)
		r.done(n)
		return true, nil
	}
	part := partOf(name)
	if err := r.create(ctx, t, n, part, path); err != nil {
		_ = unix.Unlinkat(t.fd, part, 0)
		return false, err
	}
	if err := unix.Renameat(t.fd, part, t.fd, name); err != nil {
		_ = unix.Unlinkat(t.fd, part, 0)
		return false, fmt.Errorf("rename the finished file: %w", err)
	}
	r.counts.writtenFiles.Add(1)
	r.done(n)
	return true, nil
}

// create makes a file, link or special file, complete under a name that is not its own yet.
func (r *restoreRun) create(ctx context.Context, t *target, n *node, part, path string) error {
	if t.existed { // a restore before this one may have been killed
		if err := r.remove(t.dir, part, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove what is in the way: %w", err)
		}
	}
	var err error
	switch n.kind() {
	case TypeFile:
		err = r.write(ctx, t, n, part)
	case TypeSymlink:
		var target string
		if target, err = readTarget(ctx, r.repo, n.entry.ObjectID); err != nil {
			return &unreadable{err}
		}
		r.unreadable.Store(0)
		err = unix.Symlinkat(target, t.fd, part)
	default:
		s := n.rec.Special
		err = unix.Mknodat(t.fd, part, specialMode(s)|0o600, int(rdevOf(s)))
	}
	if err != nil {
		return err
	}
	r.applyLeaf(t, n, part, path, true)
	return nil
}
