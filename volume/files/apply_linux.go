package files

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// applyFolder sets all that a folder is, once nothing is written into it any more.
func (r *restoreRun) applyFolder(t *target, n *node, path string) {
	m := metaOf(n)
	r.apply(t.dir, ".", path, &m, t.existed || len(m.attrs) > 0 || t.inherits, false)
}

// applyLeaf sets all that is no content of what is no folder.
func (r *restoreRun) applyLeaf(t *target, n *node, name, path string, fresh bool) {
	m := metaOf(n)
	r.apply(t.dir, name, path, &m, !fresh || len(m.attrs) > 0 || t.inherits, n.kind() == TypeSymlink)
}

// apply sets owner, extended attributes, mode and times, in this order: a change of the owner takes capabilities and the
// set-uid bit away, an ACL changes the mode, and all of it but the last changes times. What cannot be set is a remark.
func (r *restoreRun) apply(d *dir, name, path string, m *meta, attrs, symlink bool) {
	var st unix.Stat_t
	if err := d.lstat(name, &st); err != nil {
		r.lost(path, "stat", err)
		return
	}
	if st.Uid != m.uid || st.Gid != m.gid {
		if err := unix.Fchownat(d.fd, name, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			r.lost(path, fmt.Sprintf("set owner %d:%d", m.uid, m.gid), err)
		}
	}
	switch {
	case attrs && !r.noAttrs.Load():
		r.applyAttrs(d, name, path, m.attrs)
	case len(m.attrs) > 0:
		r.lost(path, "set extended attributes", unix.ENOTSUP)
	}
	if !symlink {
		if err := chmod(d, name, m.mode); err != nil {
			r.lost(path, fmt.Sprintf("set mode %#o", m.mode), err)
		}
	}
	times := []unix.Timespec{{Sec: m.time.Sec, Nsec: m.time.Nsec}, {Sec: m.time.Sec, Nsec: m.time.Nsec}}
	if err := unix.UtimesNanoAt(d.fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.lost(path, "set modification time", err)
	}
}

func (r *restoreRun) lost(path, what string, err error) {
	r.remarks.add(Lost, path, fmt.Sprintf("%s: %v", what, err))
}

// chmod sets a mode, and follows no symbolic link that took the name meanwhile.
func chmod(d *dir, name string, mode uint32) error {
	err := unix.Fchmodat(d.fd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if !unsupported(err) { // Linux before 6.6 does not know that flag
		return err
	}
	fd, err := openAt(d.fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return errOther
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// applyAttrs makes the attributes that are kept those of the copy: others are removed, such as what a default ACL gave.
func (r *restoreRun) applyAttrs(d *dir, name, path string, want []attr) {
	have, err := d.attrNames(name)
	if unsupported(err) {
		if len(want) == 0 {
			return
		}
		err = nil
	}
	if err != nil {
		r.lost(path, "list extended attributes", err)
	}
	proc := d.procPath(name)
	for _, name := range have {
		if slices.ContainsFunc(want, func(a attr) bool { return a.name() == name }) {
			continue
		}
		if err := unix.Lremovexattr(proc, name); err != nil && !errors.Is(err, unix.ENODATA) {
			r.lost(path, fmt.Sprintf("remove extended attribute %q", name), err)
		}
	}
	for i := range want {
		name := want[i].name()
		if !keepsAttr(name) {
			r.remarks.add(Lost, path, fmt.Sprintf("extended attribute %q is of a sort that is not restored", name))
			continue
		}
		if slices.Contains(have, name) {
			if old, err := attrValue(proc, name); err == nil && bytes.Equal(old, want[i].Value) {
				continue
			}
		}
		if err := unix.Lsetxattr(proc, name, want[i].Value, 0); err != nil {
			r.lost(path, fmt.Sprintf("set extended attribute %q", name), err)
		}
	}
}

// hasDefaultACL says whether new files in a folder get an ACL by themselves.
func (r *restoreRun) hasDefaultACL(t *target) bool {
	if r.noAttrs.Load() {
		return false
	}
	names, err := t.attrNames(".")
	if unsupported(err) {
		r.noAttrs.Store(true)
	}
	return err != nil || slices.Contains(names, defaultACL)
}
