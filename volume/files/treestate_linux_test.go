package files

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeState describes all that a copy keeps of a tree, by path. It uses nothing of the package under test.
func treeState(t testing.TB, root string) map[string]string {
	t.Helper()
	state := map[string]string{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "mode %o owner %d:%d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " size %d sha256 %x sparse %v", st.Size, sha256.Sum256(content), st.Blocks*512+minHole <= st.Size)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " to %q", target)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(&b, " device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			key := [2]uint64{st.Dev, st.Ino}
			if first[key] == "" {
				first[key] = rel
			}
			fmt.Fprintf(&b, " links %d with %q", st.Nlink, first[key])
		}
		for _, a := range allAttrs(t, path) {
			fmt.Fprintf(&b, " %s", a)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			state[rel] = b.String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func allAttrs(t testing.TB, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var attrs []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		attrs = append(attrs, fmt.Sprintf("%q=%x", name, value[:n]))
	}
	slices.Sort(attrs)
	return attrs
}

// compareTrees reports how two trees differ.
func compareTrees(t testing.TB, want, got map[string]string) bool {
	t.Helper()
	same := true
	for path, w := range want {
		if g, ok := got[path]; !ok {
			t.Errorf("%q is missing: %s", path, w)
			same = false
		} else if g != w {
			t.Errorf("%q is\n  %s, was\n  %s", path, g, w)
			same = false
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%q was not there: %s", path, g)
			same = false
		}
	}
	return same
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners, devices and trusted attributes need root")
	}
}
