package files

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ACLs that Linux keeps as extended attributes.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// keepsAttr says which extended attributes are kept. What the system computes for one machine or one pod (SELinux labels, IMA, EVM) is
// not: it would be wrong in another.
func keepsAttr(name string) bool {
	switch {
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."):
		return true
	}
	return name == "security.capability" || name == accessACL || name == defaultACL
}

// unsupported says that a file system, or a sort of file, has no such attributes.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// attrNames lists the names of the attributes of an entry that are kept, sorted; those of the directory itself have the name ".".
func (d *dir) attrNames(name string) ([]string, error) {
	var small [512]byte
	buf := small[:]
	for {
		n, err := d.listAttrs(name, buf)
		switch {
		case err == nil:
			return splitNames(buf[:n]), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ERANGE) && len(buf) < maxAttr:
			buf = make([]byte, maxAttr)
		default:
			return nil, err
		}
	}
}

// noListAt is set where the kernel (before 6.13) does not know listxattrat(2), or what confines the process does not let it through.
var noListAt atomic.Bool

// listAttrs is listxattrat(2), which costs half of what the way through /proc does; every file is asked for its attributes at every copy.
func (d *dir) listAttrs(name string, buf []byte) (int, error) {
	if !noListAt.Load() {
		p, err := unix.BytePtrFromString(name)
		if err != nil {
			return 0, err
		}
		n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(d.fd), uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW, //nolint:gosec // as unix.Llistxattr does
			uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0) //nolint:gosec // the same
		switch errno {
		case 0:
			return int(n), nil
		case unix.ENOSYS, unix.EPERM:
			noListAt.Store(true)
		default:
			return 0, errno
		}
	}
	return unix.Llistxattr(d.procPath(name), buf)
}

func splitNames(buf []byte) []string {
	var names []string
	for len(buf) > 0 {
		end := bytes.IndexByte(buf, 0)
		if end < 0 {
			end = len(buf)
		}
		if name := string(buf[:end]); keepsAttr(name) {
			names = append(names, name)
		}
		buf = buf[min(end+1, len(buf)):]
	}
	slices.Sort(names)
	return names
}

// attrValue reads one attribute.
func attrValue(path, name string) ([]byte, error) {
	var small [512]byte
	buf := small[:]
	for {
		n, err := unix.Lgetxattr(path, name, buf)
		switch {
		case err == nil:
			return bytes.Clone(buf[:n]), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ERANGE) && len(buf) < maxAttr:
			buf = make([]byte, maxAttr)
		default:
			return nil, err
		}
	}
}

// readAttrs reads the attributes of an entry that are kept. lost names each one that is there and could not be read.
func (d *dir) readAttrs(name string, lost func(detail string)) ([]attr, error) {
	names, err := d.attrNames(name)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	path := d.procPath(name)
	var attrs []attr
	size := 0
	for _, name := range names {
		value, err := attrValue(path, name)
		switch {
		case errors.Is(err, unix.ENODATA): // removed in between
			continue
		case err != nil:
			lost(fmt.Sprintf("read extended attribute %q: %v", name, err))
			continue
		}
		if size += len(name) + len(value); size > maxAttrs {
			lost(fmt.Sprintf("extended attributes from %q on: a file's may have %d bytes in all", name, maxAttrs))
			break
		}
		a := attr{Name: name, Value: value}
		if !utf8.ValidString(name) {
			a = attr{Raw: []byte(name), Value: value}
		}
		attrs = append(attrs, a)
	}
	return attrs, nil
}
