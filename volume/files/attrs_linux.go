package files

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

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

// attrNames lists the names of the attributes that are kept, sorted.
func attrNames(path string) ([]string, error) {
	var small [512]byte
	buf := small[:]
	for {
		n, err := unix.Llistxattr(path, buf)
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

func splitNames(buf []byte) []string {
	var names []string
	for name := range bytes.SplitSeq(buf, []byte{0}) {
		if len(name) > 0 && keepsAttr(string(name)) {
			names = append(names, string(name))
		}
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

// readAttrs reads the attributes that are kept. lost names each one that is there and could not be read.
func readAttrs(path string, lost func(detail string)) ([]attr, error) {
	names, err := attrNames(path)
	if err != nil || len(names) == 0 {
		return nil, err
	}
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
